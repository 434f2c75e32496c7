"""Ablation over a cohort: closed forms of a linear tail, a dead channel, blocks and inputs."""

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.cohort import Cohort, blocks_of
from pellucid.core.errors import BadOption, UnknownLayer
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.target import ClassScore
from pellucid.explain.ablation import AblationStudy


@pytest.fixture
def study():
    """A network whose third channel is dead, with a tail that is linear in the rest, and twenty cases."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 5, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 3))
    with torch.no_grad():
        net[0].weight[2], net[0].bias[2] = 0, -1
    images = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    model = Model(net, (InputSpec(rank=2, channels=1),), OutputSpec(labels=("a", "b", "c")))
    return model, Cohort({"image": images}, ClassScore("c"), blocks_of((8, 8)))


def rows(answer):
    return {row.name: row for row in answer.rows}


@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
def test_equals_the_second_implementation_and_the_linear_tail(study, reference, how):
    model, cohort = study
    net = model.module
    answer = AblationStudy(how=how, layer="1")(model, cohort)
    with torch.no_grad():
        a = net[1](net[0](cohort.inputs["image"]))
        order = np.random.default_rng(0).permutation(20)
        weight = net[3].weight[2].view(5, 4, 4)
        stand = {"zero": torch.zeros_like(a), "mean": a.mean(0, keepdim=True), "resample": a[torch.from_numpy(order)]}
        for k in range(5):
            second = reference("ablation_study").ablation_study(lambda v: net[3](v.flatten(1))[0, 2], a, k, how, order)
            closed = (weight[k] * (a - stand[how])[:, k]).flatten(1).sum(1)
            assert answer.tables["by case"][f"channel {k}"] == pytest.approx(list(second), abs=1e-5)
            assert list(second) == pytest.approx(closed.tolist(), abs=1e-5)
    dead = rows(answer)["channel 2"]
    assert (dead.estimate, dead.low, dead.high, dead.more["mean magnitude"]) == (0.0, 0.0, 0.0, 0.0)
    assert any(row.estimate != 0 for row in answer.rows)


def test_the_mean_of_mean_ablation_in_a_linear_tail_is_zero_but_not_its_magnitude(study):
    answer = AblationStudy(how="mean", layer="1")(*study)
    row = rows(answer)["channel 0"]
    assert any("read the mean magnitude" in words for words in answer.warnings)
    assert row.estimate == pytest.approx(0, abs=1e-6)
    assert row.more["mean magnitude"] > 1e-3


def test_fewer_channels_are_those_that_vary_and_the_rest_is_told(study):
    answer = AblationStudy(channels=2, layer="1")(*study)
    assert len(answer.rows) == 2
    assert "channel 2" not in rows(answer)
    assert any("3 channels" in words for words in answer.said)


def test_a_block_replaced_by_its_mean_gives_the_score_of_the_mean(study):
    model, cohort = study
    answer = AblationStudy(over="blocks", how="mean")(model, cohort)
    assert set(rows(answer)) == {"0", "1", "2"}
    with torch.no_grad():
        flat = model.module[:3](cohort.inputs["image"])
        same = model.module[3](flat.mean(0, keepdim=True))[0, 2]
        whole = model.module(cohort.inputs["image"])[:, 2]
    assert answer.tables["by case"]["2"] == pytest.approx((whole - same).tolist(), abs=1e-5)
    named = AblationStudy(over="blocks", how="mean", layer="1;2")(model, cohort)
    assert set(rows(named)) == {"1", "2"}


def test_an_input_from_another_case(study):
    model, cohort = study
    answer = AblationStudy(over="inputs", how="resample")(model, cohort)
    order = torch.from_numpy(np.random.default_rng(0).permutation(20))
    with torch.no_grad():
        whole = model.module(cohort.inputs["image"])[:, 2]
    assert answer.tables["by case"]["image"] == pytest.approx((whole - whole[order]).tolist(), abs=1e-5)


def test_what_cannot_be_is_refused(study):
    with pytest.raises(BadOption, match="at least one channel"):
        AblationStudy(channels=0)
    with pytest.raises(UnknownLayer):
        AblationStudy(layer="heart")(*study)
    one = Model(nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(64, 2))), (InputSpec(rank=2, channels=1),))
    cohort = Cohort(study[1].inputs, ClassScore(0), study[1].parts)
    with pytest.raises(BadOption, match="no blocks"):
        AblationStudy(over="blocks")(one, cohort)
