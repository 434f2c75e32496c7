"""The border of a region as closed lines along the edges of its pixels, exactly: nothing is smoothed or filled."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Line = NDArray[np.float64]
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # right along an upper edge, down, left, up: the region on the right hand


def trace(inside: NDArray[np.bool_]) -> list[Line]:
    """Every border of a flat region, the longest first; holes have borders of their own.

    Args:
        inside: "row column".

    Returns:
        Corners "point (row, column)" of each line, the first repeated at the end. Pixel (0, 0) reaches from corner
        (0, 0) to (1, 1).

    Example:
        >>> [line.tolist() for line in trace(np.eye(1, dtype=bool))]
        [[[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]]
    """
    leaving, lines = _edges(inside), []
    for start in sorted(leaving):  # the upper left corner of a border comes before its others
        while start in leaving:
            lines.append(_walk(leaving, start))
    return sorted(lines, key=_length, reverse=True)


def _edges(inside: NDArray[np.bool_]) -> dict[tuple[int, int], list[int]]:
    """Directions of the border's edges by the corner they leave."""
    wide = np.pad(inside, 1)
    core = wide[1:-1, 1:-1]
    outside = (wide[:-2, 1:-1], wide[1:-1, 2:], wide[2:, 1:-1], wide[1:-1, :-2])  # above, right, below, left
    first = ((0, 0), (0, 1), (1, 1), (1, 0))  # the corner of the pixel at which that edge begins
    found: dict[tuple[int, int], list[int]] = {}
    for way, (beside, (down, across)) in enumerate(zip(outside, first, strict=True)):
        for row, column in np.argwhere(core & ~beside):
            found.setdefault((int(row) + down, int(column) + across), []).append(way)
    return found


def _walk(leaving: dict[tuple[int, int], list[int]], start: tuple[int, int]) -> Line:
    """Follow edges until the start, taking them away; where two pixels touch at a corner, each keeps its own line."""
    corners, at, way = [start], start, -1
    while True:
        ways, right = leaving[at], (way + 1) % 4
        turn = right if right in ways else ways[0]
        ways.remove(turn)
        if not ways:
            del leaving[at]
        if turn == way:
            corners.pop()
        at, way = (at[0] + _STEPS[turn][0], at[1] + _STEPS[turn][1]), turn
        corners.append(at)
        if at == start:
            return np.asarray(corners, float)


def _length(line: Line) -> float:
    return float(np.abs(np.diff(line, axis=0)).sum())


def slices_of(inside: NDArray[np.bool_]) -> Sequence[tuple[int, Line]]:
    """The borders of a volume's region, slice by slice along its first axis, the longest first."""
    lines = [(place, line) for place in np.flatnonzero(inside.any((1, 2))) for line in trace(inside[place])]
    return sorted(((int(place), line) for place, line in lines), key=lambda found: -_length(found[1]))
