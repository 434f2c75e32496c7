"""Distances between outlines in mm: shifted boxes, balls, voxels that are no cubes, the library, what is undefined."""

import numpy as np
import pytest
import surface_distance
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from surface_distance.lookup_tables import create_table_neighbour_code_to_surface_area
from torch import nn

from pellucid.core.errors import BadOption, BadRegion
from pellucid.core.grid import Calibration, Grid
from pellucid.core.probe import Scene
from pellucid.metrics.localization.surface import SurfaceDistance, distances

FEW = settings(max_examples=30, deadline=None)
SPACING = {2: (2.0, 0.5), 3: (3.0, 0.7, 1.1)}
WORST, MEAN = SurfaceDistance(), SurfaceDistance(measure="average")


@pytest.fixture(scope="module")
def valued(model_of, scored):
    """``valued(metric, map, region, spacing)``; without spacing the image has no millimeters."""

    def run(metric, values, region, spacing=None):
        values = torch.as_tensor(values)
        model = model_of(nn.Sequential(nn.Flatten(), nn.LazyLinear(1)), values.ndim)
        x = torch.zeros(1, 1, *values.shape)
        model.module(x)
        known = Calibration.NONE if spacing is None else Calibration.PATIENT
        scene = Scene(grids={"image": Grid.regular(tuple(values.shape), spacing, known)})
        return scored(metric, model, x, values[None, None].double(), region, scene)

    return run


def box(shape, low, high):
    out = torch.zeros(shape, dtype=torch.bool)
    out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return out


def ball(shape, spacing, radius):
    axes = [(torch.arange(n).double() - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    return sum(a**2 for a in torch.meshgrid(*axes, indexing="ij")) <= radius**2


@st.composite
def two_masks(draw):
    rank = draw(st.sampled_from([2, 3]))
    shape = draw(st.tuples(*[st.integers(2, 7 if rank == 2 else 4)] * rank))
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    masks = [generator.random(shape) < draw(st.floats(0.1, 0.9)) for _ in range(2)]
    assume(all(m.any() for m in masks))
    return masks, tuple(draw(st.floats(0.3, 3)) for _ in range(rank))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize("rank", [2, 3])
def test_a_box_moved_along_an_axis(rank, shift, axis, valued):
    """Two of its faces lie ``shift`` voxels of that axis away; more than a twentieth of the outline is they."""
    if axis >= rank:
        return
    region = box((16,) * rank, (2,) * rank, (9,) * rank)
    score = valued(WORST, region.roll(shift, axis).double(), region, SPACING[rank])
    assert float(score.values) == pytest.approx(shift * SPACING[rank][axis])
    mean = float(valued(MEAN, region.roll(shift, axis).double(), region, SPACING[rank]).values)
    assert (mean == 0) if shift == 0 else (0 < mean < shift * SPACING[rank][axis])
    assert score.detail["average"] == [mean]
    assert score.detail["map to region"] == pytest.approx(score.detail["region to map"])


@pytest.mark.parametrize("rank", [2, 3])
def test_one_ball_inside_another(rank, valued):
    """In voxels of 2 mm by 1 mm: the outlines are 6 mm apart everywhere, to within a voxel."""
    spacing, shape = (2.0, 1.0, 1.0)[:rank], (30, 60, 60)[:rank]
    small, large = ball(shape, spacing, 14.0), ball(shape, spacing, 20.0)
    for marked, region in ((large, small), (small, large)):
        for threshold in (("otsu",), ("fixed", 0.5)):
            mean, worst = (SurfaceDistance(*threshold, measure=m) for m in ("average", "hausdorff95"))
            assert float(valued(mean, marked.double(), region, spacing).values) == pytest.approx(6, abs=0.8)
            assert float(valued(worst, marked.double(), region, spacing).values) == pytest.approx(6, abs=1.2)


@FEW
@given(two_masks())
def test_distances_equal_the_librarys(drawn):
    (marked, region), spacing = drawn
    with pytest.warns(DeprecationWarning, match=r"scipy\.ndimage"):
        theirs = surface_distance.compute_surface_distances(region, marked, spacing)
    there, back = surface_distance.compute_average_surface_distance(theirs)
    ours = distances(marked, region, spacing)
    assert ours["hausdorff95"] == pytest.approx(surface_distance.compute_robust_hausdorff(theirs, 95), abs=1e-9)
    assert (ours["region to map"], ours["map to region"]) == pytest.approx((there, back), abs=1e-9)


@FEW
@given(two_masks())
def test_distances_equal_the_second_implementation(reference, drawn):
    (marked, region), spacing = drawn
    second = reference("surface_distance")
    table = create_table_neighbour_code_to_surface_area(spacing) if marked.ndim == 3 else None

    def area(around, _spacing):
        return float(table[sum(2 ** (7 - i) for i, bit in enumerate(around) if bit)])

    slow = second.surface_distance(marked, region, spacing, second.length if table is None else area)
    assert distances(marked, region, spacing) == pytest.approx(slow, abs=1e-9)


@FEW
@given(two_masks(), st.data())
def test_turning_and_stretching(drawn, data):
    """Axes may be turned and flipped; twice the voxel is twice the distance."""
    (marked, region), spacing = drawn
    order = data.draw(st.permutations(range(marked.ndim)))
    plain = distances(marked, region, spacing)
    turned = [np.flip(m.transpose(order), 0).copy() for m in (marked, region)]
    assert distances(*turned, tuple(spacing[i] for i in order)) == pytest.approx(plain, abs=1e-9)
    doubled = distances(marked, region, tuple(2 * s for s in spacing))
    assert doubled == pytest.approx({k: 2 * v for k, v in plain.items()}, abs=1e-9)


def test_one_stray_peak_counts_in_the_mean_and_not_in_the_95_percent(valued):
    region = box((40, 40), (10, 10), (30, 30))
    values = region.double()
    values[1, 1] = 1.0
    assert float(valued(SurfaceDistance("fixed", 0.5), values, region, (1.0, 1.0)).values) == 0
    stray = valued(SurfaceDistance("fixed", 0.5, measure="average"), values, region, (1.0, 1.0))
    assert float(stray.values) > 0.2


def test_tied_voxels_count_all_or_none(valued):
    """Of a map that is 0 but for 9 voxels, the top 16 are these 9, and not the whole image."""
    values, region = box((20, 20), (4, 4), (7, 7)).double(), box((20, 20), (4, 4), (8, 8))
    assert float(valued(WORST, values, region, (1.0, 1.0)).values) == 1
    assert float(valued(WORST, 1 - values, region, (1.0, 1.0)).values) > 10  # 391 tied at the top: all of them
    assert float(valued(WORST, values, box((20, 20), (4, 4), (7, 6)), (1.0, 1.0)).values) == 1


def test_without_millimeters_there_is_no_distance(valued):
    score = valued(WORST, torch.rand(8, 8), box((8, 8), (1, 1), (4, 4)))
    assert score.reasons == ("the image has no millimeters, so a distance in mm means nothing",)
    assert bool(torch.isnan(score.values).all())


def test_what_is_undefined_says_why(valued):
    region = box((8, 8), (1, 1), (4, 4))
    assert valued(WORST, torch.ones(8, 8), region, (1, 1)).reasons == ("the map is constant: it has no highest part",)
    assert valued(WORST, torch.full((8, 8), torch.nan), region, (1, 1)).reasons == ("the map is not finite",)
    assert valued(WORST, torch.rand(8, 8), None, (1, 1)).reasons == ("no expert or planted region",)
    for bad in (~region & region, region | ~region, region[:5]):
        with pytest.raises(BadRegion):
            valued(WORST, torch.rand(8, 8), bad, (1, 1))
    with pytest.raises(BadOption, match="expected measure hausdorff95 or average, got 'maximum'"):
        SurfaceDistance(measure="maximum")
