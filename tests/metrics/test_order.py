"""Ties: parts of equal mean go by their place in the image, whatever the last digits of their sums say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.core.infill import Constant
from pellucid.core.units import Units, blocks, voxels
from pellucid.metrics.faithfulness.curves import DeletionAUC, InsertionAUC
from pellucid.metrics.faithfulness.flipping import RegionPerturbation, Selectivity
from pellucid.metrics.faithfulness.order import most_first

FEW = settings(max_examples=15, deadline=None)
EDGE, ALONG = 6, 4  # voxels of a block, blocks of the image


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def filled_blocks(levels, rank, seed):
    """A float32 map whose blocks have these means: in each other values, which sum to it but for rounding."""
    units = blocks((EDGE * ALONG,) * rank, (EDGE,) * rank)
    size, found = EDGE**rank, torch.zeros(units.labels.shape)
    for unit, level in enumerate(levels):
        half = torch.rand(size // 2, generator=drawn(seed + unit), dtype=torch.float64) * (0.1 + unit % 7)
        values = torch.cat([level + half, level - half])[torch.randperm(size, generator=drawn(seed - unit))]
        found[units.labels == unit] = values.float()
    return units, found


@pytest.mark.parametrize("rank", [2, 3])
@FEW
@given(seed=st.integers(0, 10**6))
def test_blocks_of_equal_means_go_by_their_place(rank, seed):
    levels = torch.randint(1, 5, (ALONG**rank,), generator=drawn(seed)).double()
    units, values = filled_blocks(levels.tolist(), rank, seed)
    order = most_first(units, values[None])[0]
    assert torch.equal(order, levels.argsort(descending=True, stable=True))


def test_what_rounding_does_to_sums_would_decide_otherwise():
    """The trap is real: single precision ranks some of these tied blocks by their last digits."""
    units, values = filled_blocks([1.0] * ALONG**2, 2, 3)
    assert units.means(values).unique().numel() > 1
    assert most_first(units, values[None])[0].tolist() == list(range(ALONG**2))


@FEW
@given(seed=st.integers(0, 10**6), last=st.sampled_from([1, 4, 16]))
def test_the_last_digits_of_a_map_do_not_change_the_order(seed, last):
    """As an item has them alone and in a batch."""
    levels = torch.randint(1, 9, (8, 8), generator=drawn(seed)).float()
    noisy = levels * (1 + last * torch.finfo(torch.float32).eps * (torch.rand(8, 8, generator=drawn(seed)) - 0.5))
    for units in (voxels((8, 8)), blocks((8, 8), (2, 4))):
        assert torch.equal(most_first(units, levels[None]), most_first(units, noisy[None]))


def test_every_item_has_the_same_rule():
    tied, units = torch.tensor([[2.0, 1.0, 2.0, 1.0]]), voxels((4,))
    assert most_first(units, tied.expand(3, 4)).tolist() == [[0, 2, 1, 3]] * 3
    assert most_first(Units(torch.tensor([1, 0, 1, 0]), 2), tied).tolist() == [[1, 0]]


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("made", [DeletionAUC, InsertionAUC, RegionPerturbation, Selectivity], ids=lambda m: m.__name__)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_tied_blocks_of_equal_effect_may_change_places(made, rank, seed, model_of, scored):
    """Where tied blocks matter alike, neither their places nor what is in them counts: to 1e-6 of the score."""
    metric = made(8, block=float(EDGE), infill=Constant(0.0))
    levels = torch.randint(1, 5, (ALONG**rank,), generator=drawn(seed)).double()
    found = []
    for shuffled in (levels, levels[torch.randperm(len(levels), generator=drawn(seed + 1))]):
        units, values = filled_blocks(shuffled.tolist(), rank, seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(values.numel(), 1), nn.Softplus()).double()
        net[1].weight.data[0] = shuffled[units.labels].flatten() / EDGE**rank
        net[1].bias.data.zero_()
        x = torch.ones(1, 1, *values.shape, dtype=torch.float64)
        found.append(scored(metric, model_of(net, rank), x, values[None, None]).values)
    assert torch.allclose(*found, rtol=1e-6)
