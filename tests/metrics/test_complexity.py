"""Sparseness, entropy and effective complexity: closed forms, second implementations, invariances."""

from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.core.errors import BadOption
from pellucid.core.infill import Constant
from pellucid.metrics.complexity import EffectiveComplexity, Entropy, Sparseness

SHAPE = {2: (5, 7), 3: (3, 4, 5)}


def linear(nets, rank):
    return nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(SHAPE[rank])), 1)), 0)


@pytest.fixture(scope="module")
def run(nets, model_of, scored):
    """``run(metric, maps)`` on a linear score."""

    def of(metric, maps):
        rank = maps.ndim - 2
        x = nets.noise(len(maps), 1, *maps.shape[2:])
        net = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 1)), 0)
        return scored(metric, model_of(net, rank), x, maps)

    return of


@pytest.mark.parametrize("rank", [2, 3])
def test_one_voxel_and_an_even_map(rank, run):
    shape = SHAPE[rank]
    d = int(np.prod(shape))
    one, even = torch.zeros(1, 1, *shape), torch.full((1, 1, *shape), -2.0)
    one.view(-1)[3] = -5
    both = torch.cat([one, even]).double()
    assert run(Sparseness(), both).values.tolist() == pytest.approx([1 - 1 / d, 0], abs=1e-12)
    assert run(Entropy(), both).values.tolist() == pytest.approx([0, log(d)], abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3))
def test_equal_to_the_second_implementations_and_blind_to_scale_and_order(seed, factor, run, reference):
    maps = torch.randn(2, 1, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    turned = maps.transpose(2, 3).flip(3) * factor
    for metric, name in ((Sparseness(), "sparseness"), (Entropy(), "entropy")):
        values = run(metric, maps).values
        slow = [getattr(reference(name), name)(m.numpy()) for m in maps]
        assert values.tolist() == pytest.approx(slow, abs=1e-10)
        assert run(metric, turned).values.tolist() == pytest.approx(values.tolist(), abs=1e-10)
        assert run(metric, maps[:1]).values[0] == values[0]


def test_noise_spread_over_a_map_makes_it_less_sparse(run):
    maps = torch.zeros(4, 1, 8, 8).double()
    maps[:, :, 2:4, 2:4] = 1.0
    noise = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    maps += torch.tensor([0.0, 0.01, 0.1, 1.0]).view(4, 1, 1, 1) * noise
    assert (run(Sparseness(), maps).values.diff() < 0).all()
    assert (run(Entropy(), maps).values.diff() > 0).all()


@pytest.mark.parametrize("rank", [2, 3])
def test_effective_complexity_equals_the_second_implementation(rank, nets, model_of, scored, reference):
    net, shape = nets.classifier(rank), SHAPE[rank]
    x, maps = nets.noise(2, 2, *shape), nets.noise(2, 1, *shape, seed=5)
    d = int(np.prod(shape))
    metric = EffectiveComplexity(steps=9, tolerance=0.3, infill=Constant(0.1))
    got = scored(metric, model_of(net, rank, 2), x, maps)
    counts = np.unique(np.geomspace(1, d, 9).round().astype(int)).tolist()
    slow = reference("effective_complexity").effective_complexity
    for i in range(2):
        one = slow(
            lambda y: net(y)[:, 0].detach(), x[i : i + 1], x[i : i + 1] * 0 + 0.1, maps[i, 0].numpy(), counts, 0.3
        )
        assert float(got.values[i]) == one


def test_a_score_of_one_voxel_needs_one_voxel(model_of, scored):
    class One(nn.Module):
        def forward(self, x):
            return x[:, :, 2, 1]

    x = torch.rand(1, 1, 4, 4).double() + 1
    maps = torch.zeros(1, 1, 4, 4).double()
    maps[0, 0, 2, 1] = 1
    metric = EffectiveComplexity(infill=Constant(0.0))
    assert float(scored(metric, model_of(One(), 2), x, maps).values[0]) == 1
    assert float(scored(metric, model_of(One(), 2), x, -maps).values[0]) == 16


def test_the_number_of_even_voxels_is_found_within_two_in_a_hundred(model_of, scored):
    """Of 6400 voxels that weigh alike, nine tenths bring the score within a tenth."""

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean((1, 2, 3))[:, None]

    x = torch.ones(1, 1, 80, 80).double()
    maps = torch.rand(1, 1, 80, 80, generator=torch.Generator().manual_seed(0)).double()
    got = scored(EffectiveComplexity(infill=Constant(0.0)), model_of(Mean(), 2), x, maps).values[0]
    assert 5760 <= float(got) <= 5760 * 1.02


def test_what_is_undefined_says_why(run, model_of, scored):
    blank = torch.zeros(1, 1, 4, 4).double()
    for metric in (Sparseness(), Entropy()):
        assert run(metric, blank).reasons == ("the map is zero everywhere",)
        assert run(metric, blank * torch.nan).reasons == ("the map is not finite",)
    assert run(EffectiveComplexity(), blank).reasons == ("the map is constant: it ranks nothing",)

    class Blind(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :1] * 0 + 1

    got = scored(EffectiveComplexity(), model_of(Blind(), 2), blank + 1, torch.rand(1, 1, 4, 4).double())
    assert got.reasons == ("the fill does not change the score",)
    with pytest.raises(BadOption, match="at least 2 steps"):
        EffectiveComplexity(steps=1)
