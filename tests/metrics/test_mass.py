"""Shares of the evidence in a region: closed forms, second implementations, ties, parts, what is undefined."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.core.errors import BadRegion
from pellucid.metrics.localization.mass import AUPRC, EnergyPointing, RelevanceMass, RelevanceRank

ALL = {
    "relevance_mass": RelevanceMass(),
    "energy_pointing": EnergyPointing(),
    "relevance_rank": RelevanceRank(),
    "auprc": AUPRC(),
}
SHAPE = {2: (6, 8), 3: (4, 5, 6)}


@pytest.fixture(scope="module")
def run(nets, model_of, scored):
    """``run(metric, maps, region)``."""

    def of(metric, maps, region):
        x = nets.noise(len(maps), 1, *maps.shape[2:])
        net = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 1)), 0)
        return scored(metric, model_of(net, maps.ndim - 2), x, maps, region)

    return of


def two_parts(rank):
    region = torch.zeros(SHAPE[rank], dtype=torch.bool)
    region[(slice(0, 2),) * rank] = True
    region[(slice(3, 4), slice(2, 5), slice(4, 6))[:rank]] = True
    region[(3, 4, 4)[:rank]] = False
    return region


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", ALL)
def test_equal_to_the_second_implementation(name, rank, nets, run, reference):
    maps, region = nets.noise(3, 1, *SHAPE[rank], seed=4), two_parts(rank)
    maps[1] = maps[1].round()  # ties
    slow = getattr(reference(name), name)
    expected = [slow(m[0].numpy(), region.numpy()) for m in maps]
    assert run(ALL[name], maps, region).values.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_a_perfect_map_scores_one_and_an_even_one_its_chance(name, run):
    region = torch.zeros(8, 8, dtype=torch.bool)
    region[2:5, 3:6] = True
    both = torch.stack([region.double(), torch.ones(8, 8, dtype=torch.float64)])[:, None]
    got = run(ALL[name], both, region)
    assert got.values.tolist() == pytest.approx([1.0, 9 / 64])
    assert got.detail["chance"] == pytest.approx(9 / 64)


def test_ties_count_at_their_expected_value(run, reference):
    maps, region = torch.zeros(1, 1, 5, 5).double(), torch.zeros(5, 5, dtype=torch.bool)
    maps[0, 0, 0, :3], region[0, 1:4] = 1.0, True
    draws = np.random.default_rng(0).random((4000, 25))
    expected = reference("relevance_rank").relevance_rank(maps[0, 0].numpy(), region.numpy(), draws)
    assert float(run(RelevanceRank(), maps, region).values[0]) == pytest.approx(expected, abs=0.02)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3))
@pytest.mark.parametrize("name", ALL)
def test_scale_and_turning_change_nothing(name, seed, factor, run):
    maps = torch.randn(2, 1, 6, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    region = two_parts(2)
    plain = run(ALL[name], maps, region).values
    turned = run(ALL[name], (maps * factor).transpose(2, 3), region.T.contiguous()).values
    assert turned.tolist() == pytest.approx(plain.tolist(), abs=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_evidence_moved_out_of_the_region_scores_less(name, run):
    region = torch.zeros(8, 8, dtype=torch.bool)
    region[2:4, 2:4] = True
    maps = torch.stack([region.double().roll(s, 1) + 0.01 for s in (0, 1, 2)])[:, None]
    assert (run(ALL[name], maps, region).values.diff() < 0).all()


def test_what_is_undefined_says_why(run):
    maps, region = torch.full((1, 1, 4, 4), -1.0).double(), torch.zeros(4, 4, dtype=torch.bool)
    region[0, 0] = True
    for metric in (RelevanceMass(), EnergyPointing()):
        assert run(metric, maps, region).reasons == ("the map has no evidence for the target",)
    for metric in ALL.values():
        assert run(metric, maps, None).reasons == ("no expert or planted region",)
        assert run(metric, maps * torch.nan, region).reasons == ("the map is not finite",)
        with pytest.raises(BadRegion, match="empty"):
            run(metric, maps, ~region & region)
