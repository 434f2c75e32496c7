"""Outlines run along the edges of pixels: their signed areas and their insides are the region's."""

import numpy as np
import pytest
from matplotlib.path import Path as Shape

from pellucid.io.objects.outlines import slices_of, trace


def _area(line: np.ndarray) -> float:
    row, column = line.T
    return float(0.5 * np.sum(column[:-1] * row[1:] - row[:-1] * column[1:]))


@pytest.mark.parametrize("seed", range(20))
def test_any_region_is_its_outlines(seed: int) -> None:
    draw = np.random.default_rng(seed)
    inside = draw.random(draw.integers(1, 12, 2)) > 0.5
    lines = trace(inside)
    assert sum(_area(line) for line in lines) == inside.sum()  # holes count against
    middles = (np.argwhere(np.ones(inside.shape)) + 0.5)[:, ::-1]
    around = sum(Shape(line[:, ::-1]).contains_points(middles).astype(int) for line in lines)
    assert np.array_equal(np.broadcast_to(around % 2 == 1, inside.size).reshape(inside.shape), inside)
    for line in lines:
        assert np.array_equal(line[0], line[-1])
        turns = np.diff(line, axis=0)
        assert ((turns != 0).sum(1) == 1).all()  # along one axis each, and no corner that is none
        assert (np.diff((turns != 0).argmax(1)) != 0).all()


def test_pixels_that_touch_at_a_corner_have_a_line_each_and_the_longest_comes_first() -> None:
    inside = np.array([[1, 0, 0], [0, 1, 1]], bool)
    assert [line.tolist() for line in trace(inside)] == [
        [[1, 1], [1, 3], [2, 3], [2, 1], [1, 1]],
        [[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]],
    ]
    assert trace(np.zeros((3, 3), bool)) == []


def test_a_volume_is_traced_slice_by_slice() -> None:
    inside = np.zeros((4, 5, 6), bool)
    inside[1, 2, 2], inside[3, 1:4, 1:4] = True, True
    assert [(place, _area(line)) for place, line in slices_of(inside)] == [(3, 9.0), (1, 1.0)]
