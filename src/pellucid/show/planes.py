"""Which slices are drawn and which way round: radiological convention where the patient's sides are known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pellucid.core.grid import Calibration, Grid

_BODY = {"L": 0, "R": 0, "P": 1, "A": 1, "H": 2, "F": 2}
_OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "H": "F", "F": "H"}
_POSITIVE, _NEGATIVE = "LPH", "RAF"
_OBLIQUE = 0.26  # sine of 15 degrees: beyond it a side is named by two letters

# name, body axis of the normal, letter at the top, letter at the left (a reader faces the patient)
_VIEWS = (("axial", 2, "A", "R"), ("coronal", 1, "H", "R"), ("sagittal", 0, "H", "A"))


@dataclass(frozen=True)
class Sides:
    """Letters at the four sides of a pane: top, bottom, left and right of the screen."""

    top: str
    bottom: str
    left: str
    right: str


@dataclass(frozen=True)
class Plane:
    """A picture cut out of a grid.

    Args:
        name: ``axial``, ``coronal``, ``sagittal``, ``image``, or ``axis 0`` where the patient's sides are unknown.
        rows: tensor axis that runs down the picture.
        columns: tensor axis that runs across the picture.
        normal: tensor axis that is cut; None in 2-D.
        flip: whether rows and columns are drawn backward.
        spacing: distance between rows and between columns, in the grid's unit.
        sides: orientation letters; None where the grid states none.
    """

    name: str
    rows: int
    columns: int
    normal: int | None
    flip: tuple[bool, bool]
    spacing: tuple[float, float]
    sides: Sides | None

    def cut(self, values: NDArray[np.generic], at: Sequence[int]) -> NDArray[np.generic]:
        """The picture through voxel ``at`` of "*space" values, rows first."""
        flat = values if self.normal is None else np.take(values, at[self.normal], axis=self.normal)
        turned = flat if self.rows < self.columns else flat.T
        return turned[:: -1 if self.flip[0] else 1, :: -1 if self.flip[1] else 1]

    def point(self, at: Sequence[float], shape: Sequence[int]) -> tuple[float, float]:
        """Where voxel ``at`` of a grid of this shape falls in the picture (row, column)."""
        row, column = at[self.rows], at[self.columns]
        return (
            shape[self.rows] - 1 - row if self.flip[0] else row,
            shape[self.columns] - 1 - column if self.flip[1] else column,
        )

    def extent(self, shape: Sequence[int]) -> tuple[float, float]:
        """Height and width of the picture, in the grid's unit."""
        return shape[self.rows] * self.spacing[0], shape[self.columns] * self.spacing[1]


def planes(grid: Grid) -> tuple[Plane, ...]:
    """The pictures of a grid: one in 2-D, as stored; three in 3-D, patient right on image left, head up."""
    if grid.rank == 2:
        return (_plane(grid, "image", (0, 1), None, (False, False)),)
    if grid.letters is None:
        pairs = ((1, 2), (0, 2), (0, 1))
        return tuple(_plane(grid, f"axis {n}", pairs[n], n, (False, False)) for n in range(3))
    return tuple(_anatomical(grid, *view) for view in _VIEWS)


def side_letters(grid: Grid, axis: int, forward: bool) -> str:
    """The letters toward which an axis grows (``forward``) or from which it comes; two where it runs obliquely.

    Example:
        >>> side_letters(Grid.regular((4, 4), (1.0, 1.0), letters=("F", "L")), 1, forward=False)
        'R'
    """
    if grid.letters is None:
        return ""
    first = grid.letters[axis] if forward else _OPPOSITE[grid.letters[axis]]
    if grid.calibration is not Calibration.PATIENT:
        return first
    direction = grid.matrix[:3, axis] / np.linalg.norm(grid.matrix[:3, axis]) * (1 if forward else -1)
    others = [b for b in np.argsort(-np.abs(direction)) if b != _BODY[first] and abs(direction[b]) > _OBLIQUE]
    return first + "".join((_POSITIVE if direction[b] > 0 else _NEGATIVE)[b] for b in others[:1])


def body_axis(grid: Grid, axis: int) -> int:
    """0 left-right, 1 front-back or 2 head-feet: what a tensor axis of a grid with letters follows."""
    return _BODY[grid.letters[axis]] if grid.letters is not None else -1


def _anatomical(grid: Grid, name: str, normal: int, top: str, left: str) -> Plane:
    found = {body_axis(grid, a): a for a in range(3)}
    rows, columns = found[_BODY[top]], found[_BODY[left]]
    letters = grid.letters or ()
    return _plane(grid, name, (rows, columns), found[normal], (letters[rows] == top, letters[columns] == left))


def _plane(grid: Grid, name: str, axes: tuple[int, int], normal: int | None, flip: tuple[bool, bool]) -> Plane:
    rows, columns = axes
    sides = None
    if grid.letters is not None:
        sides = Sides(
            side_letters(grid, rows, forward=flip[0]),
            side_letters(grid, rows, forward=not flip[0]),
            side_letters(grid, columns, forward=flip[1]),
            side_letters(grid, columns, forward=not flip[1]),
        )
    return Plane(name, rows, columns, normal, flip, (grid.spacing[rows], grid.spacing[columns]), sides)
