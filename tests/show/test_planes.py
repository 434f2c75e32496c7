"""Slices the right way round: a marker in the patient must land where a radiologist looks for it."""

import itertools

import numpy as np
import pytest
import torch

from pellucid.core.errors import BadOption
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image, Modality
from pellucid.show.planes import planes
from pellucid.show.scenery import Framing, make_scenery

CODES = ["LPS", "RAS", "LAS", "RPI", "SRA", "PSL", "AIR", "ILP"]


def marked(grid: Grid, at: tuple[float, float, float], radius: float = 5.0) -> torch.Tensor:
    """1 near a place in LPS mm, 0.2 elsewhere."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1).reshape(-1, 3)
    near = np.linalg.norm(grid.world(index.astype(float)) - np.asarray(at), axis=1) < radius
    return torch.from_numpy(np.where(near, 1.0, 0.2).astype(np.float32).reshape(grid.shape))


def where(pane) -> tuple[float, float]:
    """Center of what is bright, from the pane's center: (down, right), in halves of the pane."""
    bright = np.argwhere(pane.base[..., 0] > 0.6)
    size = np.asarray(pane.base.shape[:2])
    return tuple(2 * (bright.mean(0) + 0.5) / size - 1)


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("tilt", [0.0, 12.0, 25.0])
def test_patient_left_is_image_right_and_the_head_is_up(coded, codes, tilt):
    spacing = {"L": 1.0, "R": 1.0, "P": 1.5, "A": 1.5, "S": 2.5, "I": 2.5}
    count = {"L": 61, "R": 61, "P": 41, "A": 41, "S": 25, "I": 25}
    grid = coded(tuple(count[c] for c in codes), codes, tuple(spacing[c] for c in codes), tilt)
    place = np.asarray((15.0, -10.0, 15.0))  # left, front, head
    image = Image(marked(grid, place)[None], grid, Modality.CT, "[0,1]")
    at = tuple(round(i) for i in grid.index(place[None])[0])
    panes = {p.plane.name: p for p in make_scenery(image, None, grid, Framing(), at, 3).panes}
    assert list(panes) == ["axial", "coronal", "sagittal"]
    down, right = where(panes["axial"])
    assert right > 0.2
    assert down < -0.1
    down, right = where(panes["coronal"])
    assert right > 0.2
    assert down < -0.2
    down, right = where(panes["sagittal"])
    assert right < -0.1  # the front is at image left
    assert down < -0.2
    sides = {n: (p.plane.sides.top[0], p.plane.sides.bottom[0], p.plane.sides.left[0], p.plane.sides.right[0])
             for n, p in panes.items()}  # fmt: skip
    assert sides == {
        "axial": ("A", "P", "R", "L"),
        "coronal": ("H", "F", "R", "L"),
        "sagittal": ("H", "F", "A", "P"),
    }


def test_an_oblique_side_is_named_by_two_letters(coded):
    straight = planes(coded((5, 5, 5), "LPS", (1.0, 1.0, 1.0), 10.0))[0].sides
    oblique = planes(coded((5, 5, 5), "LPS", (1.0, 1.0, 1.0), 25.0))[0].sides
    assert (straight.left, straight.right) == ("R", "L")
    assert (oblique.left, oblique.right, oblique.top, oblique.bottom) == ("RA", "LP", "AL", "PR")


def test_a_flat_image_is_drawn_as_stored_with_the_letters_it_states():
    grid = Grid.regular((4, 6), (1.0, 1.0), Calibration.DETECTOR, letters=("F", "L"))
    (plane,) = planes(grid)
    assert (plane.sides.top, plane.sides.bottom, plane.sides.left, plane.sides.right) == ("H", "F", "R", "L")
    values = np.arange(24).reshape(4, 6)
    assert (plane.cut(values, (0, 0)) == values).all()


def test_an_image_without_orientation_gets_no_letters():
    assert all(p.sides is None for shape in ((4, 6), (4, 5, 6)) for p in planes(Grid.regular(shape)))
    assert [p.name for p in planes(Grid.regular((4, 5, 6)))] == ["axis 0", "axis 1", "axis 2"]


@pytest.mark.parametrize("codes", ["LPS", "RAI"])
def test_a_voxel_is_where_its_point_says(coded, codes):
    grid = coded((5, 6, 7), codes, (1.0, 1.0, 1.0))
    values = np.zeros(grid.shape)
    at = (1, 4, 2)
    values[at] = 1
    for plane in planes(grid):
        picture = plane.cut(values, at)
        assert picture[plane.point(at, grid.shape)] == 1


def test_thick_slices_keep_their_proportions(coded):
    grid = coded((60, 40, 10), "LPS", (1.0, 1.0, 6.0))
    image = Image(torch.rand(1, *grid.shape), grid, Modality.MRI, "[0,1]")
    panes = make_scenery(image, None, grid, Framing(), (30, 20, 5), 3).panes
    for pane, (height, width) in zip(panes, ((40, 60), (60, 60), (60, 40)), strict=True):
        assert pane.base.shape[0] / pane.base.shape[1] == pytest.approx(height / width, rel=0.01)
    assert len({round(p.scale, 6) for p in panes}) == 1  # one ruler serves all three


def test_slices_are_counted_and_placed(coded):
    grid = coded((61, 41, 25), "RAS", (1.0, 1.0, 2.0))
    image = Image(torch.rand(1, *grid.shape), grid, Modality.CT, "[0,1]")
    names = [p.name for p in make_scenery(image, None, grid, Framing(), (10, 20, 20), 3).panes]
    assert names == [
        "axial 21/25 \u00b7 H 16 mm",
        "coronal 21/41 \u00b7 P 0 mm",
        "sagittal 11/61 \u00b7 L 20 mm",
    ]


def test_a_place_outside_the_image_is_refused():
    grid = Grid.regular((4, 5, 6))
    for at in ((4, 0, 0), (-1, 0, 0), (0, 0)):
        with pytest.raises(BadOption, match="voxel inside"):
            make_scenery(None, None, grid, Framing(), at, 3)


def test_all_code_orders_give_the_same_panes(coded):
    """The same patient stored in 48 ways looks the same."""
    first = None
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((0, 1), repeat=3):
            codes = "".join("LPS"[a] if not signs[a] else "RAI"[a] for a in axes)
            grid = coded(tuple((11, 13, 9)[a] for a in axes), codes, (2.0, 2.0, 2.0))
            image = Image(marked(grid, (4.0, -6.0, 4.0), 3.5)[None], grid, Modality.CT, "[0,1]")
            at = tuple(round(i) for i in grid.index(np.asarray([[4.0, -6.0, 4.0]]))[0])
            bases = [p.base for p in make_scenery(image, None, grid, Framing(width=150), at, 3).panes]
            first = first or bases
            assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(first, bases, strict=True)), codes
