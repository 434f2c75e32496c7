"""Voxel indices and positions in the world, there and back, through every way of making one grid from another."""

from dataclasses import dataclass

import nibabel
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pellucid.core.errors import BadOption, ShapeMismatch
from pellucid.core.grid import Calibration, Grid, as_affine

quick = settings(max_examples=60, deadline=None, derandomize=True)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
SAME = {"S": "H", "I": "F"}


@st.composite
def affines(draw, tilt=180.0):
    """Axes permuted and flipped, turned by up to ``tilt`` degrees about any direction, of any spacing."""
    order = draw(st.permutations([0, 1, 2]))
    signs = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    direction = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 3)))
    assume(np.linalg.norm(direction) > 1e-2)
    angle = np.deg2rad(draw(st.floats(0, tilt)))
    turn = Rotation.from_rotvec(direction / np.linalg.norm(direction) * angle).as_matrix()
    spacing = np.array(draw(st.tuples(*[st.floats(0.2, 8)] * 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = (turn @ np.eye(3)[:, order] * np.array(signs)) * spacing
    matrix[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return matrix


@dataclass
class Recipe:
    """What a grid is made of; made outside the strategy, because the checks of types draw random numbers."""

    shape: tuple[int, ...]
    matrix: np.ndarray

    def grid(self):
        return Grid(self.shape, as_affine(self.matrix), Calibration.PATIENT)


@st.composite
def recipes(draw, tilt=180.0, rank=None):
    rank = rank or draw(st.sampled_from([2, 3]))
    shape = draw(st.tuples(*[st.integers(1, 40)] * rank))
    return Recipe(shape, draw(affines(tilt)))


def at(grid, *index):
    """Positions of voxels given as numbers or arrays."""
    return grid.world(np.asarray(index, float).reshape(-1, grid.rank))


def indices(grid, seed=0, count=7):
    return np.random.default_rng(seed).uniform(-2, 1, (count, grid.rank)) + np.array(grid.shape)


@quick
@given(recipes())
def test_index_and_world_are_inverse(recipe) -> None:
    grid = recipe.grid()
    index = indices(grid)
    assert np.allclose(grid.index(grid.world(index)), index, atol=1e-8)


@quick
@given(recipes())
def test_world_is_the_affine(recipe) -> None:
    grid = recipe.grid()
    index = indices(grid)
    whole = np.zeros((len(index), 4))
    whole[:, : grid.rank], whole[:, 3] = index, 1
    assert np.allclose(grid.world(index), (np.array(grid.affine) @ whole.T).T[:, :3])


@quick
@given(recipes())
def test_spacing_is_the_distance_between_neighbors(recipe) -> None:
    grid = recipe.grid()
    origin = at(grid, np.zeros(grid.rank))
    steps = [np.linalg.norm(at(grid, np.eye(grid.rank)[a]) - origin) for a in range(grid.rank)]
    assert np.allclose(grid.spacing, steps)
    assert np.allclose(np.multiply(grid.voxels(12.5), grid.spacing), 12.5)


@quick
@given(recipes(), st.data())
def test_a_crop_keeps_its_voxels_in_place(recipe, data) -> None:
    grid = recipe.grid()
    start = data.draw(st.tuples(*[st.integers(-5, 30)] * grid.rank))
    shape = data.draw(st.tuples(*[st.integers(1, 20)] * grid.rank))
    part = grid.cropped(start, shape)
    index = indices(part)
    assert part.shape == shape
    assert np.allclose(part.world(index), grid.world(index + np.array(start)), atol=1e-8)
    assert (part.calibration, part.letters) == (grid.calibration, grid.letters)


@quick
@given(recipes(), st.data())
def test_resizing_keeps_the_field_of_view(recipe, data) -> None:
    grid = recipe.grid()
    shape = data.draw(st.tuples(*[st.integers(1, 50)] * grid.rank))
    other = grid.resized(shape)
    ones = np.ones(grid.rank)
    assert np.allclose(at(other, -0.5 * ones), at(grid, -0.5 * ones), atol=1e-8)
    assert np.allclose(at(other, shape - 0.5 * ones), at(grid, grid.shape - 0.5 * ones), atol=1e-8)
    assert np.allclose(np.multiply(other.spacing, shape), np.multiply(grid.spacing, grid.shape))
    assert other.resized(grid.shape).same_geometry(grid)


@quick
@given(recipes(), st.data())
def test_centering_keeps_the_center_or_the_voxels(recipe, data) -> None:
    grid = recipe.grid()
    step = np.array(data.draw(st.tuples(*[st.sampled_from([0.4, 0.99, 1.0, 1.5, 3.0])] * grid.rank)))
    shape = np.array(data.draw(st.tuples(*[st.integers(1, 50)] * grid.rank)))
    other = grid.centered(tuple(step), tuple(shape.tolist()))
    assert np.allclose(other.spacing, np.multiply(grid.spacing, step))
    middle = grid.index(at(other, (shape - 1) / 2))[0] - (np.array(grid.shape) - 1) / 2
    assert np.allclose(middle[step != 1], 0, atol=1e-8)
    assert (np.abs(middle) <= 0.5 + 1e-8).all()
    first = grid.index(at(other, np.zeros(grid.rank)))[0][step == 1]
    assert np.allclose(first, np.round(first), atol=1e-7)  # whole voxels: nothing is interpolated


@pytest.mark.parametrize(("old", "new"), [(15, 8), (16, 9), (16, 8), (15, 9), (15, 16), (16, 19), (4, 9), (7, 7)])
def test_whole_voxels_are_cut_and_added_as_monai_does(old, new) -> None:
    from monai.transforms import CenterSpatialCrop, SpatialPad

    first = at(Grid.regular((old, old)).centered((1, 1), (new, new)), 0, 0)[0, 0]
    line = np.arange(1, old + 1, dtype=np.float32)[None]
    theirs = CenterSpatialCrop(new)(line) if new < old else SpatialPad(new)(line)
    ours = np.array([line[0, i] if 0 <= i < old else 0 for i in np.arange(new) + int(first)])
    assert np.array_equal(ours, np.asarray(theirs)[0])


LETTERS = ["RAS", "LPS", "LPH", "ASR", "SPL", "IAR", "PIL", "FLA"]


@quick
@given(recipes(rank=3, tilt=35), st.sampled_from(LETTERS))
def test_reorienting_moves_no_voxel(recipe, letters) -> None:
    grid = recipe.grid()
    other = grid.reoriented(letters)
    assert other.letters == tuple(SAME.get(c, c) for c in letters)
    corner = np.array(list(np.ndindex(2, 2, 2)))
    ours = at(other, corner * (np.array(other.shape) - 1))
    theirs = at(grid, corner * (np.array(grid.shape) - 1))
    distance = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
    assert np.allclose(distance.min(1), 0, atol=1e-7)
    assert np.allclose(distance.min(0), 0, atol=1e-7)
    whole = grid.index(at(other, corner))
    assert np.allclose(whole, np.round(whole), atol=1e-7)  # voxels onto voxels
    assert sorted(other.shape) == sorted(grid.shape)


@quick
@given(recipes(rank=3, tilt=180))
def test_reorienting_there_and_back_is_nothing(recipe) -> None:
    grid = recipe.grid()
    there = grid.reoriented("ASR" if grid.letters != ("A", "H", "R") else "RAS")
    assert there.reoriented("".join(grid.letters)).same_geometry(grid)


@quick
@given(affines(tilt=35))
def test_letters_are_those_of_nibabel(matrix) -> None:
    grid = Grid((4, 5, 6), as_affine(matrix), Calibration.PATIENT)
    ras = np.eye(4)
    ras[:3] = LPS_TO_RAS @ matrix[:3]
    assert grid.letters == tuple(SAME.get(c, c) for c in nibabel.aff2axcodes(ras))


@quick
@given(affines(tilt=180))
def test_letters_name_each_body_axis_once(matrix) -> None:
    letters = Grid((4, 5, 6), as_affine(matrix), Calibration.PATIENT).letters
    assert sorted("RL".find(c) >= 0 or 2 * ("AP".find(c) >= 0) for c in letters) == [0, 1, 2]
    # the letter says toward which side the axis grows
    for axis, letter in enumerate(letters):
        body = "LPH".find(letter) if letter in "LPH" else "RAF".find(letter)
        assert (matrix[body, axis] > 0) == (letter in "LPH")


def test_a_plane_in_the_patient_has_the_letters_of_its_two_axes() -> None:
    sagittal = np.array([[0, 0, 1, 5], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    assert Grid((4, 5), as_affine(sagittal), Calibration.PATIENT).letters == ("P", "F")


@pytest.mark.parametrize("calibration", [c for c in Calibration if c is not Calibration.PATIENT])
def test_there_is_no_left_outside_patient_space(calibration) -> None:
    grid = Grid((4, 5, 6), as_affine(np.eye(4)), calibration)
    assert grid.letters is None
    with pytest.raises(BadOption, match=r"not in patient space.*NIfTI, DICOM"):
        grid.reoriented("RAS")


def test_a_spacing_alone_says_nothing_about_left_and_right() -> None:
    grid = Grid.regular((4, 5, 6), (5.0, 0.5, 0.5))
    assert (grid.letters, grid.unit, grid.calibration) == (None, "mm", Calibration.NOMINAL)
    assert Grid.regular((4, 5)).unit == "px"
    film = Grid.regular((4, 5), (0.1, 0.1), Calibration.DETECTOR, ("F", "L"))
    assert (film.letters, film.cropped((1, 1), (2, 2)).letters) == (("F", "L"), ("F", "L"))


@pytest.mark.parametrize("letters", ["XYZ", "RA", "RASL", "RRS", "RLS", "LPS2", ""])
def test_letters_that_name_no_orientation_are_refused(letters) -> None:
    with pytest.raises(BadOption, match="one letter of each"):
        Grid((4, 5, 6), as_affine(np.eye(4)), Calibration.PATIENT).reoriented(letters)


def test_letters_may_be_written_small() -> None:
    assert Grid((4, 5, 6), as_affine(np.eye(4)), Calibration.PATIENT).reoriented("ras").letters == ("R", "A", "H")


@quick
@given(recipes(), st.floats(0, 9e-4) | st.floats(1.1e-3, 0.4))
def test_same_geometry_tells_a_shift(recipe, part) -> None:
    grid = recipe.grid()
    moved = np.array(grid.affine)
    moved[:3, 3] += np.array([1, 0, 0]) * part * min(grid.spacing)
    other = Grid(grid.shape, as_affine(moved), grid.calibration)
    assert grid.same_geometry(other) == (part <= 1e-3)
    assert grid.same_geometry(other, tolerance=0.41)


def test_same_geometry_tells_shape_turn_and_calibration() -> None:
    grid = Grid.regular((8, 8), (1.0, 1.0))
    assert grid.same_geometry(Grid.regular((8, 8), (1.0, 1.0)))
    assert not grid.same_geometry(Grid.regular((8, 9), (1.0, 1.0)))
    assert not grid.same_geometry(Grid.regular((8, 8)))
    turned = np.eye(4)
    turned[:2, :2], turned[:2, 3] = [[0, -1], [1, 0]], [7, 0]
    assert not grid.same_geometry(Grid((8, 8), as_affine(turned), Calibration.NOMINAL))


@pytest.mark.parametrize("shape", [(4,), (4, 4, 4, 4), (4, 0), (), (0, 4, 4)])
def test_a_shape_that_is_no_grid_is_refused(shape) -> None:
    with pytest.raises(ShapeMismatch, match="2 or 3 axes"):
        Grid(shape, as_affine(np.eye(4)))


@pytest.mark.parametrize(
    "matrix",
    [np.zeros((4, 4)), np.diag([1.0, 1, 0, 1]), np.diag([1.0, np.nan, 1, 1]), np.diag([1.0, np.inf, 1, 1]),
     np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])],
)  # fmt: skip
def test_an_affine_that_cannot_be_inverted_is_refused(matrix) -> None:
    with pytest.raises(BadOption, match=r"invertible.*header"):
        Grid((4, 4, 4), as_affine(matrix))


@pytest.mark.parametrize("scale", [4e-6, 1e-3, 1e4])
def test_voxels_of_any_size_are_voxels(scale) -> None:
    grid = Grid((4, 4, 4), as_affine(np.diag([scale, scale, scale, 1])), Calibration.PATIENT)
    assert np.allclose(grid.spacing, scale)
    assert np.allclose(grid.index(at(grid, 1, 2, 3)), [[1, 2, 3]])


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, np.nan), (1.0, np.inf)])
def test_a_spacing_that_is_no_length_is_refused(spacing) -> None:
    with pytest.raises(BadOption, match="positive spacings"):
        Grid.regular((4, 4), spacing)
