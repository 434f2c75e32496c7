"""IoU, Dice and hit rate against second implementations, closed forms and planted corruption."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.core.errors import BadOption, BadRegion
from pellucid.core.grid import Calibration, Grid
from pellucid.core.probe import Scene
from pellucid.metrics.localization.overlap import Dice, IoU
from pellucid.metrics.localization.pointing import HitRate

RANKS = (2, 3)
SHAPE = {2: (9, 12), 3: (5, 6, 7)}
FEW = settings(max_examples=25, deadline=None)
EVERY = [IoU(), Dice(), IoU("otsu"), Dice("otsu"), HitRate()]


@pytest.fixture(scope="module")
def valued(model_of, scored):
    """``valued(metric, map, region)`` of one "*space" map; the model does not matter."""

    def run(metric, values, region, scene=None):
        values, region = torch.as_tensor(values), torch.as_tensor(region)
        model = model_of(nn.Sequential(nn.Flatten(), nn.LazyLinear(1)), values.ndim)
        x = torch.zeros(1, 1, *values.shape)
        model.module(x)
        return scored(metric, model, x, values[None, None].double(), region, scene)

    return run


@st.composite
def maps_with_regions(draw, levels=6):
    """A map with many ties, not constant, and a region that is neither empty nor full."""
    shape = SHAPE[draw(st.sampled_from(RANKS))]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    values = torch.randint(0, levels, shape, generator=generator).double()
    values.view(-1)[0], values.view(-1)[1] = 0.0, float(levels)
    region = torch.rand(shape, generator=generator) < draw(st.floats(0.1, 0.9))
    region.view(-1)[0], region.view(-1)[-1] = True, False
    return values, region


def box(shape, low, high):
    out = torch.zeros(shape, dtype=torch.bool)
    out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return out


def disc(shape, center, radius):
    axes = torch.meshgrid(*(torch.arange(n).double() for n in shape), indexing="ij")
    return sum((a - c) ** 2 for a, c in zip(axes, center, strict=True)) <= radius**2


@FEW
@given(maps_with_regions())
def test_overlap_equals_the_second_implementation(valued, reference, drawn):
    values, region = drawn
    second = reference("iou")
    membership = second.top_area(values.numpy(), int(region.sum()))
    expected = second.iou(membership, region.numpy())
    assert float(valued(IoU(), values, region).values) == pytest.approx(expected, abs=1e-12)
    assert float(valued(Dice(), values, region).values) == pytest.approx(2 * expected / (1 + expected), abs=1e-12)


def test_dice_is_the_mean_over_random_orders_of_ties(valued, reference):
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(0, 3, (8, 8), generator=generator).double()
    region = box((8, 8), (2, 1), (6, 7))
    slow = reference("dice").dice(values.numpy(), region.numpy(), 24, draws=4000)
    assert float(valued(Dice(), values, region).values) == pytest.approx(slow, abs=0.01)


@FEW
@given(st.integers(0, 10**6), st.sampled_from(RANKS))
def test_overlap_without_ties_is_that_of_two_sets(valued, reference, seed, rank):
    shape = SHAPE[rank]
    n = int(np.prod(shape))
    values = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).double().view(shape)
    region = box(shape, (1,) * rank, (4,) * rank)
    slow = reference("dice").dice(values.numpy(), region.numpy(), int(region.sum()))
    assert float(valued(Dice(), values, region).values) == pytest.approx(slow, abs=1e-12)


@FEW
@given(maps_with_regions(levels=40))
def test_otsu_equals_the_second_implementation(valued, reference, drawn):
    values, region = drawn
    second = reference("iou")
    chosen = second.otsu(values.numpy())
    got = float(valued(IoU("otsu"), values, region).values)
    assert got == pytest.approx(second.iou(chosen, region.numpy()), abs=1e-12)
    dice = reference("dice").dice_of_sets(chosen, region.numpy())
    assert float(valued(Dice("otsu"), values, region).values) == pytest.approx(dice, abs=1e-12)


@FEW
@given(maps_with_regions(levels=2))
def test_hit_equals_the_second_implementation(valued, reference, drawn):
    values, region = drawn
    assert float(valued(HitRate(), values, region).values) == pytest.approx(
        reference("hit_rate").hit_rate(values.numpy(), region.numpy()), abs=1e-12
    )


@FEW
@given(maps_with_regions(levels=2), st.floats(0.5, 6.0))
def test_hit_within_a_radius_equals_the_second_implementation(valued, reference, drawn, radius):
    values, region = drawn
    spacing = (3.0, 0.7, 1.5)[: values.ndim]
    scene = Scene(grids={"image": Grid.regular(tuple(values.shape), spacing, Calibration.PATIENT)})
    slow = reference("hit_rate").hit_rate(values.numpy(), region.numpy(), spacing, radius)
    assert float(valued(HitRate(radius), values, region, scene).values) == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize("shift", range(7))
@pytest.mark.parametrize("rank", RANKS)
def test_shifted_boxes(rank, shift, valued):
    """A box of width 6 moved by s: IoU = (6 - s) / (6 + s), Dice = (6 - s) / 6."""
    shape = (14, 8, 8)[:rank]
    region = box(shape, (1,) * rank, (7,) * rank)
    moved = box(shape, (1 + shift, *(1,) * (rank - 1)), (7 + shift, *(7,) * (rank - 1)))
    for threshold in ("area", "otsu"):
        assert float(valued(IoU(threshold), moved.double(), region).values) == pytest.approx((6 - shift) / (6 + shift))
        assert float(valued(Dice(threshold), moved.double(), region).values) == pytest.approx((6 - shift) / 6)


@pytest.mark.parametrize("radius", [3.0, 6.0, 9.0])
@pytest.mark.parametrize("rank", RANKS)
def test_concentric_discs(rank, radius, valued):
    """A cone's top |G| voxels are the disc itself; Otsu takes another radius, IoU = D / (2 - D) all the same."""
    shape = (24,) * rank
    region = disc(shape, (11.0,) * rank, radius)
    axes = torch.meshgrid(*(torch.arange(24).double() for _ in range(rank)), indexing="ij")
    cone = -sum((a - 11) ** 2 for a in axes)
    assert float(valued(IoU(), cone, region).values) == 1
    assert float(valued(Dice(), cone, region).values) == 1
    overlap, dice = (float(valued(m("otsu"), cone, region).values) for m in (IoU, Dice))
    assert overlap == pytest.approx(dice / (2 - dice))
    assert overlap < 1
    assert float(valued(HitRate(), cone, region).values) == 1


def test_no_overlap_at_all(valued):
    region = box((8, 8), (0, 0), (2, 2))
    away = box((8, 8), (5, 5), (7, 7)).double()
    assert [float(valued(m, away, region).values) for m in EVERY] == [0] * 5


@pytest.mark.parametrize("rank", RANKS)
def test_a_constant_map_hits_by_the_share_of_the_region(rank, valued):
    """Not 1, as where any tied maximum counts."""
    region = box(SHAPE[rank], (1,) * rank, (4,) * rank)
    score = valued(HitRate(), torch.ones(SHAPE[rank]), region)
    assert float(score.values) == pytest.approx(3**rank / np.prod(SHAPE[rank]))
    assert score.detail["chance"] == pytest.approx(float(score.values))


def test_two_tied_maxima_of_which_one_lies_inside(valued):
    values = torch.zeros(6, 6)
    values[1, 1] = values[4, 4] = 5.0
    assert float(valued(HitRate(), values, box((6, 6), (0, 0), (3, 3))).values) == 0.5


def test_a_near_miss_hits_within_the_radius(valued):
    """Two voxels of 1.5 mm outside of the region: 3 mm."""
    values = torch.zeros(10, 10)
    values[5, 8] = 1.0
    region = box((10, 10), (4, 3), (7, 7))
    scene = Scene(grids={"image": Grid.regular((10, 10), (4.0, 1.5), Calibration.DETECTOR)})
    assert [float(valued(HitRate(r), values, region, scene).values) for r in (0.0, 2.9, 3.0)] == [0, 0, 1]


@FEW
@given(maps_with_regions(), st.floats(1e-6, 1e6))
def test_a_positive_factor_changes_nothing(valued, drawn, factor):
    values, region = drawn
    for metric in (IoU(), Dice(), HitRate()):
        assert torch.equal(valued(metric, values, region).values, valued(metric, factor * values, region).values)
    for metric in (IoU("otsu"), Dice("otsu")):
        assert torch.equal(valued(metric, values, region).values, valued(metric, 4 * values, region).values)


@FEW
@given(maps_with_regions(), st.data())
def test_axes_and_voxels_may_be_permuted(valued, drawn, data):
    """No metric of overlap looks at neighbors: any shuffle of voxels, and so of ties, scores the same."""
    values, region = drawn
    order = data.draw(st.permutations(range(values.ndim)))
    shuffle = torch.randperm(values.numel(), generator=torch.Generator().manual_seed(data.draw(st.integers(0, 999))))
    for metric in EVERY:
        plain = valued(metric, values, region).values
        turned = valued(metric, values.permute(order), region.permute(order)).values
        moved = (t.flatten()[shuffle].view(t.shape) for t in (values, region))
        assert torch.allclose(plain, turned, rtol=1e-12)
        assert torch.allclose(plain, valued(metric, *moved).values, rtol=1e-12)


@pytest.mark.parametrize("metric", EVERY, ids=lambda m: str(m)[:18])
def test_batch_and_channels(metric, nets, model_of, scored):
    """A batch scores as its items, a map spread over channels as its sum."""
    maps, region = nets.noise(3, 1, 8, 8), box((8, 8), (2, 3), (6, 7))
    model, x = model_of(nets.linear(8), 2), nets.noise(3, 1, 8, 8)
    together = scored(metric, model, x, maps, region).values
    assert torch.equal(together, scored(metric, model, x, torch.cat([maps / 4, 3 * maps / 4], 1), region).values)
    alone = [scored(metric, model, x[i : i + 1], maps[i : i + 1], region).values for i in range(3)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("metric", EVERY, ids=lambda m: str(m)[:18])
def test_the_more_a_map_is_corrupted_the_worse_it_scores(metric, nets, model_of, scored):
    """Noise of 0, 1/2, 1 and 30 planted into a map that is the region itself; 200 draws."""
    shape, repeat = (16, 16), 200
    region = disc(shape, (7.0, 8.0), 4.0)
    noise = nets.noise(repeat, 1, *shape, seed=5)
    model, x = model_of(nets.linear(16), 2), torch.zeros(repeat, 1, *shape, dtype=torch.float64)
    planted = (region.double() + s * noise for s in (0.0, 0.5, 1.0, 30.0))
    means = [float(scored(metric, model, x, maps, region).values.mean()) for maps in planted]
    assert means[0] == 1
    assert np.all(np.diff(means) <= 0)
    assert means[-1] < means[1] - 0.1
    if metric in (Dice(), HitRate()):  # a random order overlaps by the region's share of the image
        assert means[-1] == pytest.approx(float(region.double().mean()), abs=0.08)


@pytest.mark.parametrize("metric", EVERY, ids=lambda m: str(m)[:18])
@pytest.mark.parametrize(
    ("region", "problem"),
    [
        (torch.zeros(8, 8, dtype=torch.bool), "the region is empty on the network's grid. check that mask and image"),
        (torch.ones(8, 8, dtype=torch.bool), "the region is the whole image on the network's grid. check that mask"),
        (
            torch.ones(8, 9, dtype=torch.bool),
            r"expected a region of shape \(8, 8\), got \(8, 9\). use the input's grid",
        ),
    ],
)
def test_bad_regions_are_refused(metric, region, problem, valued):
    with pytest.raises(BadRegion, match=problem):
        valued(metric, torch.rand(8, 8), region)


def test_options_outside_their_range():
    with pytest.raises(BadOption, match=r"expected threshold 'area', 'otsu', 'fixed' or 'share', got 'median'"):
        IoU("median")
    with pytest.raises(BadOption, match=r"expected a radius of at least 0 mm, got -1.*0 asks for a hit inside"):
        HitRate(-1.0)
