"""The outline of a region as lines of points, for objects that hold drawings and no pixels."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.measure import approximate_polygon, find_contours

from pellucid.show.figure import Sketch
from pellucid.show.rules import Map

Points = NDArray[np.float32]
_SLACK = 0.05  # pixels that a line may be moved to save points: far below what a screen shows
_MOST_POINTS = 4000  # of one line: GraphicData is an FL of at most 65,534 bytes (PS3.5 section 7.1.2)
MOST_LINES = 2000  # of one map: a drawing of more serves nobody, and viewers fail on it


@dataclass(frozen=True, eq=False)
class Traced:
    """Lines around what exceeds the null.

    Args:
        lines: slice, whether it speaks for the target, and points as (column, row) from the upper left corner of the
            upper left pixel, whose center is (0.5, 0.5).
        left_out: lines beyond ``MOST_LINES``, the shortest.
    """

    lines: tuple[tuple[int, bool, Points], ...]
    left_out: int = 0


def trace(one: Sketch) -> Traced:
    """The outlines of the region above the null, and of what speaks against the target, on every slice.

    They run between pixel centers of a smooth map, else around the pixels; nothing is traced without a null or below
    the operating point.

    Args:
        one: of an explanation on its image; axes are (slice, row, column) or (row, column).
    """
    display = one.display
    if not display.shown or display.null is None:
        return Traced(())
    smooth = bool(one.cell) and min(c / s for c, s in zip(one.cell, one.grid.spacing, strict=True)) >= 2
    signs = (1.0, -1.0) if display.signed else (1.0,)
    stack = one.values if one.values.ndim == 3 else one.values[None]
    found = [
        (place, sign > 0, points)
        for sign in signs
        for place in np.flatnonzero((sign * stack > display.null).any((1, 2)))
        for points in _lines(sign * stack[place], display.null, smooth)
    ]
    ranked = sorted(found, key=lambda line: -len(line[2]))[:MOST_LINES]
    kept = tuple((int(place), forward, points) for place, forward, points in ranked)
    return Traced(tuple(sorted(kept, key=lambda line: (line[0], not line[1]))), len(found) - len(kept))


def _lines(strength: Map, null: float, smooth: bool) -> Iterator[Points]:
    """Closed lines, also where the region runs into the border of the picture."""
    height, width = strength.shape
    inside = strength > null
    first = [max(int(np.flatnonzero(inside.any(1 - axis))[0]) - 2, 0) for axis in (0, 1)]
    last = [int(np.flatnonzero(inside.any(1 - axis))[-1]) + 3 for axis in (0, 1)]
    strength = strength[first[0] : last[0], first[1] : last[1]]  # the rest holds no line, and is most of a slice
    if smooth:
        level, values = null, np.pad(strength, 1, mode="edge").astype(np.float64)
        border = np.ones(values.shape, bool)
        border[1:-1, 1:-1] = False
        values[border] = np.minimum(values[border], 2 * null - values[border])
    else:
        level, values = 0.5, np.pad(strength > null, 1).astype(np.float64)
    for line in find_contours(values, level):
        points = approximate_polygon(line, _SLACK) if len(line) > 4 else line
        points = points[:: 1 + len(points) // _MOST_POINTS]
        if not np.array_equal(points[0], points[-1]):
            points = np.vstack([points, points[:1]])
        # the padding moved all by one pixel, and a pixel's center is half in
        placed = points[:, ::-1] - 0.5 + np.asarray(first[::-1])
        yield np.clip(placed, 0, (width, height)).astype(np.float32)
