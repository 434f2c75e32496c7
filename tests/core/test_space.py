"""Resampling through the world, blurs and boxes, each against a closed form or a second implementation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pellucid.core import space
from pellucid.core.errors import ShapeMismatch
from pellucid.core.grid import Calibration, Grid, as_affine
from pellucid.core.space import blur, box_mean, resample, resize, starts

quick = settings(max_examples=40, deadline=None, derandomize=True)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def turned(shape, angles, spacing, center):
    """A grid turned about a point of the world that is its own middle."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * np.array(spacing)
    matrix[:3, 3] = center - matrix[:3, : len(shape)] @ (np.array(shape) - 1) / 2
    return Grid(shape, as_affine(matrix), Calibration.PATIENT)


ANGLES = st.tuples(*[st.floats(-180, 180)] * 3)
SHAPES = {2: (17, 23), 3: (11, 14, 9)}


@pytest.mark.parametrize("rank", [2, 3])
def test_onto_itself_nothing_changes(rank) -> None:
    x, grid = numbers(2, 3, *SHAPES[rank]), Grid.regular(SHAPES[rank], (0.7,) * rank)
    for mode in ("linear", "nearest"):
        assert torch.equal(resample(x, grid, grid, mode), x)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_a_shift_by_whole_voxels_is_exact(rank, mode) -> None:
    shape = SHAPES[rank]
    x, grid = numbers(1, 2, *shape), Grid.regular(shape, (1.3, 0.4, 2.0)[:rank])
    part = grid.cropped((2,) * rank, (5,) * rank)
    assert torch.equal(resample(x, grid, part, mode), x[(..., *[slice(2, 7)] * rank)])
    wide = resample(x, grid, grid.cropped((-3,) * rank, tuple(n + 6 for n in shape)), mode, outside=-9.0)
    assert torch.equal(wide[(..., *[slice(3, -3)] * rank)], x)
    frame = torch.ones(wide.shape[2:], dtype=torch.bool)
    frame[(slice(3, -3),) * rank] = False
    assert bool((wide[:, :, frame] == -9).all())


def test_beyond_the_image_the_edge_goes_on_when_asked() -> None:
    x, grid = numbers(1, 1, 6, 6), Grid.regular((6, 6))
    wide = resample(x, grid, grid.cropped((-2, 0), (10, 6)), outside=None)
    assert torch.equal(wide[0, 0, :2], x[0, 0, :1].expand(2, 6))
    assert torch.equal(wide[0, 0, -2:], x[0, 0, -1:].expand(2, 6))
    half = resample(x, grid, Grid.regular((6, 6)).resized((12, 12)).cropped((-3, 0), (18, 12)), outside=None)
    assert torch.allclose(half[0, 0, :3], half[0, 0, 3:4].expand(3, 12), atol=1e-5)


@pytest.mark.parametrize("letters", ["RAS", "LPS", "ASR", "SPL", "IRP"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_flips_and_permutations_of_axes_are_exact(letters, mode) -> None:
    grid = turned(SHAPES[3], (0, 0, 0), (0.8, 1.1, 2.5), np.array([3.0, -20, 55]))
    x, other = numbers(1, 1, *grid.shape), grid.reoriented(letters)
    order = ["LPS".find({"R": "L", "A": "P", "I": "S"}.get(c, c)) for c in letters]
    expected = x[0, 0].permute(order).flip([i for i, c in enumerate(letters) if c in "RAI"])
    moved = resample(x, grid, other, mode)
    assert torch.equal(moved[0, 0], expected)
    assert torch.equal(resample(moved, other, grid, mode), x)


def ramp(grid, slope):
    index = (
        np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
        .reshape(-1, grid.rank)
        .astype(float)
    )
    return torch.from_numpy(grid.world(index) @ slope + 3.0).float().view(1, 1, *grid.shape)


@quick
@given(ANGLES, ANGLES, st.floats(0.5, 1.0), st.floats(0, 1))
def test_linear_ramps_are_reproduced_through_any_affine(first, second, finer, tilt) -> None:
    source = turned((30, 26, 28), first, (1.0, 1.0, 1.0), np.array([5.0, -3, 40]))
    # small enough to lie inside the source however it is turned, and never coarser
    target = turned((9, 8, 10), second, (finer, 1.0, finer), np.array([5.0 + tilt, -3, 40]))
    slope = np.array([0.3, -0.7, 0.2])
    assert torch.allclose(resample(ramp(source, slope), source, target), ramp(target, slope), atol=2e-4)


@quick
@given(st.floats(1.0, 3.0), st.floats(-180, 180))
def test_linear_ramps_survive_a_coarser_grid_away_from_the_border(step, angle) -> None:
    source = turned((80, 80), (0, 0, 0), (1.0, 1.0, 1.0), np.zeros(3))
    target = turned((9, 9), (0, 0, angle), (step, step, 1.0), np.zeros(3))
    slope = np.array([0.3, -0.7, 0.0])
    assert torch.allclose(resample(ramp(source, slope), source, target), ramp(target, slope), atol=2e-3)


@quick
@given(ANGLES, st.integers(0, 99))
def test_without_shrinking_it_is_plain_trilinear_interpolation(angles, seed) -> None:
    source = turned((12, 15, 13), (10, 20, 30), (1.0, 1.0, 1.0), np.zeros(3))
    target = turned((8, 7, 9), angles, (0.9, 0.6, 1.0), np.zeros(3))
    x = numbers(1, 1, *source.shape, seed=seed)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in target.shape), indexing="ij"), -1).reshape(-1, 3).astype(float)
    where = source.index(target.world(index)).T
    expected = ndimage.map_coordinates(x[0, 0].double().numpy(), where, order=1, mode="nearest")
    found = resample(x, source, target, outside=None)[0, 0].numpy().ravel()
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("factor", [2, 3, 4, 7])
def test_a_checkerboard_becomes_gray(factor) -> None:
    n = 12 * factor
    board = (torch.arange(n)[:, None] + torch.arange(n)) % 2 * 1.0
    grid = Grid.regular((n, n))
    small = resample(board[None, None], grid, grid.resized((12, 12)))
    assert float((small - 0.5).abs().max()) < 0.03
    plain = board[factor // 2 :: factor, factor // 2 :: factor]
    assert float((plain - 0.5).abs().max()) == 0.5  # what picking voxels would give


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("factor", [1.5, 2, 4])
def test_shrinking_keeps_the_mean_of_a_smooth_image(rank, factor) -> None:
    shape = (48,) * rank
    x = blur(numbers(1, 1, *shape), (4.0,) * rank) + 2
    grid = Grid.regular(shape)
    small = resample(x, grid, grid.resized(tuple(round(n / factor) for n in shape)))
    assert float(small.mean()) == pytest.approx(float(x.mean()), rel=0.01)


def test_only_the_axes_that_shrink_are_blurred() -> None:
    x, grid = numbers(1, 1, 40, 12), Grid.regular((40, 12))
    small = resample(x, grid, grid.resized((10, 12)))
    lines = [grid.cropped((0, i), (40, 1)) for i in range(12)]
    columns = torch.cat([resample(x[..., [i]], line, line.resized((10, 1))) for i, line in enumerate(lines)], 3)
    assert torch.allclose(small, columns, atol=1e-5)


@quick
@given(ANGLES, st.floats(0.4, 3.0), st.integers(0, 99))
def test_nearest_invents_no_label(angles, step, seed) -> None:
    labels = torch.randint(0, 5, (1, 1, 12, 15, 13), generator=torch.Generator().manual_seed(seed)) * 7.0
    source = turned((12, 15, 13), (5, -20, 70), (1.0, 2.0, 0.7), np.zeros(3))
    target = turned((8, 7, 9), angles, (step, 1.0, 2.0), np.zeros(3))
    moved = resample(labels, source, target, "nearest", outside=-1.0)
    assert set(moved.unique().tolist()) <= {-1.0, 0.0, 7.0, 14.0, 21.0, 28.0}


@pytest.mark.parametrize("rank", [2, 3])
def test_nearest_enlarges_by_repeating(rank) -> None:
    shape = (5, 4, 6)[:rank]
    x, grid = numbers(1, 1, *shape), Grid.regular(shape)
    expected = x
    for axis in range(2, 2 + rank):
        expected = expected.repeat_interleave(3, axis)
    assert torch.equal(resample(x, grid, grid.resized(tuple(3 * n for n in shape)), "nearest"), expected)


@pytest.mark.parametrize("letters", ["LPS", "ASR"])
@pytest.mark.parametrize("outside", [0.0, None])
def test_rearranging_is_what_interpolation_gives(monkeypatch, letters, outside) -> None:
    grid = turned(SHAPES[3], (10, 20, 30), (0.8, 1.1, 2.5), np.array([3.0, -20, 55]))
    x, other = numbers(1, 1, *grid.shape), grid.reoriented(letters).cropped((-2, 3, 1), (9, 12, 14))
    exact = resample(x, grid, other, outside=outside)
    monkeypatch.setattr(space, "_keeps_voxels", lambda _matrix, _shape: False)
    assert torch.allclose(resample(x, grid, other, outside=outside), exact, atol=1e-4)


@pytest.mark.parametrize("rank", [2, 3])
def test_enlarging_is_torchs_interpolation(rank) -> None:
    shape, larger = (5, 4, 6)[:rank], (11, 9, 8)[:rank]
    x, grid = numbers(2, 3, *shape), Grid.regular(shape, (2.0, 1.0, 0.5)[:rank])
    assert torch.allclose(resample(x, grid, grid.resized(larger), outside=None), resize(x, larger), atol=1e-5)
    assert resize(x, shape) is x


def test_a_plane_is_moved_within_itself_wherever_it_lies_in_the_world() -> None:
    plane = turned((9, 12), (35, 50, -20), (0.5, 0.7, 1.0), np.array([10.0, -80, 33]))
    x = numbers(1, 1, 9, 12)
    part = plane.cropped((2, 3), (4, 5))
    assert torch.equal(resample(x, plane, part), x[..., 2:6, 3:8])
    finer = resample(x, plane, plane.resized((18, 24)), outside=None)
    assert torch.allclose(finer, resize(x, (18, 24)), atol=1e-4)


def test_large_images_are_sampled_in_slabs(monkeypatch) -> None:
    source = turned((12, 15, 13), (10, 20, 30), (1.0, 1.0, 1.0), np.zeros(3))
    target = turned((20, 7, 9), (0, 0, 0), (0.5, 1.0, 1.0), np.zeros(3))
    x = numbers(1, 2, *source.shape)
    whole = resample(x, source, target)
    monkeypatch.setattr(space, "_SLAB_VOXELS", 63 * 3)
    assert torch.equal(resample(x, source, target), whole)


def test_two_ranks_are_refused() -> None:
    with pytest.raises(ShapeMismatch, match="2-D and 3-D"):
        resample(numbers(1, 1, 4, 4), Grid.regular((4, 4)), Grid.regular((4, 4, 4)))


@pytest.mark.parametrize("rank", [2, 3])
def test_blur_is_scipys(rank) -> None:
    x, sigma = numbers(1, 1, *(40, 36, 30)[:rank]), (1.2, 2.5, 0.8)
    ours = blur(x, sigma[:rank])[0, 0].numpy()
    theirs = ndimage.gaussian_filter(x[0, 0].double().numpy(), sigma[:rank], mode="mirror", radius=[4, 8, 3][:rank])
    assert np.allclose(ours, theirs, atol=1e-5)


def test_blur_spreads_a_point_by_its_sigma() -> None:
    x = torch.zeros(1, 1, 61, 61)
    x[0, 0, 30, 30] = 1
    done = blur(x, (3.0, 5.0))[0, 0]
    t = torch.arange(61.0) - 30
    assert float(done.sum()) == pytest.approx(1, abs=1e-5)
    assert float((done.sum(1) * t**2).sum()) == pytest.approx(9, rel=0.03)
    assert float((done.sum(0) * t**2).sum()) == pytest.approx(25, rel=0.03)


def test_blur_of_a_constant_and_of_thin_axes_is_the_constant() -> None:
    assert torch.allclose(blur(torch.full((1, 1, 2, 30, 1), 4.0), (5.0, 5.0, 5.0)), torch.tensor(4.0))
    x = numbers(1, 1, 8, 8)
    assert torch.equal(blur(x, (0.0, 0.0)), x)


@pytest.mark.parametrize("rank", [2, 3])
def test_box_mean_is_the_mean_of_the_box(rank) -> None:
    x, size = numbers(1, 1, *(9, 8, 10)[:rank]), (3, 5, 1)[:rank]
    ours = box_mean(x, size)[0, 0].numpy()
    theirs = ndimage.uniform_filter(x[0, 0].double().numpy(), size, mode="mirror")
    assert np.allclose(ours, theirs, atol=1e-5)


@quick
@given(st.integers(1, 80), st.integers(1, 30), st.integers(1, 30))
def test_windows_cover_the_axis(length, window, stride) -> None:
    first = starts(length, window, stride)
    assert first[0] == 0
    assert np.all(np.diff(first) == stride)
    assert first[-1] + window >= length
    assert len(first) == 1 or first[-2] + window < length  # none too many
