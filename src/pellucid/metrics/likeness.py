"""How alike two maps of one image are: ranks, strongest parts, structure."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import combinations
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from skimage.metrics import structural_similarity

TOP = 0.1  # of the area: what counts as the strongest part of a map
_MOST_BLOCKS = 65_536  # ranks of more values than this take seconds, and say no more
_FEWEST_RANKS, _FEWEST_TOP = 20, 5  # blocks below which one block more or less changes the picture
_WINDOW, _LEAST_WINDOW = 7, 3  # voxels along each axis over which structure is compared: the library's usual, and least
Values = NDArray[np.float64]
Likeness = Callable[[Values, Values], float | None]
Square = list[list[float | None]]  # of every pair, the same both ways; None: undefined


def common_blocks(shape: Sequence[int], cells: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """How many blocks along each axis: of the coarsest cell, and few enough to rank."""
    edges = [max([1.0, *(cell[axis] for cell in cells if cell)]) for axis in range(len(shape))]
    counts = [max(1, round(n / e)) for n, e in zip(shape, edges, strict=True)]
    shrink = min(1.0, (_MOST_BLOCKS / prod(counts)) ** (1 / len(counts)))
    return tuple(max(1, int(c * shrink)) for c in counts)


def block_means(values: Values, counts: Sequence[int]) -> Values:
    """Means over ``counts`` nearly equal blocks along each axis."""
    for axis, count in enumerate(counts):
        size = values.shape[axis]
        starts = np.arange(count) * size // count
        lengths = np.diff([*starts, size]).astype(float)
        shape = [-1 if a == axis else 1 for a in range(values.ndim)]
        values = np.add.reduceat(values, starts, axis) / lengths.reshape(shape)
    return values


def pairwise(
    positive: Sequence[Values], cells: Sequence[Sequence[float]], measures: Mapping[str, Likeness]
) -> dict[str, Square]:
    """Compare every pair of maps, averaged over blocks of the coarser native cell of the two.

    Args:
        positive: parts of maps of one grid that are not negative, so that signed and unsigned ones can be compared.
        cells: edge of the smallest region each map can speak of, in voxels.
        measures: of two maps of blocks, by name; 1 for a map and itself.
    """
    count = len(positive)
    found: dict[str, Square] = {
        name: [[1.0 if a == b else None for b in range(count)] for a in range(count)] for name in measures
    }

    @cache
    def blocks(index: int, shape: tuple[int, ...]) -> Values:
        return block_means(positive[index], shape)

    for a, b in combinations(range(count), 2):
        shape = common_blocks(positive[a].shape, (cells[a], cells[b]))
        for name, measure in measures.items():
            found[name][a][b] = found[name][b][a] = measure(blocks(a, shape), blocks(b, shape))
    return found


def unit_ranks(values: Values) -> Values:
    """Ranks (ties at their mean), centered and of length 1: the product of two is their correlation.

    NaN for a map that is constant or not finite, whose ranks mean nothing.
    """
    centered = rankdata(values).reshape(values.shape) - (values.size + 1) / 2
    length = np.sqrt((centered**2).sum())
    usable = bool(np.isfinite(values).all()) and length > 0
    return centered / length if usable else np.full(values.shape, np.nan)


def spearman(one: Values, other: Values) -> float:
    """Spearman correlation, 1 exactly where the ranks are the same; NaN where a list is constant or not finite."""
    first, second = unit_ranks(one), unit_ranks(other)
    return 1.0 if np.array_equal(first, second) else float(np.clip((first * second).sum(), -1, 1))


def rank_correlation(one: Values, other: Values) -> float | None:
    """Spearman correlation of two lists of values; None where one is constant or there are too few."""
    if one.size < _FEWEST_RANKS or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return spearman(one.ravel(), other.ravel())


def top_overlap(one: Values, other: Values) -> float | None:
    """Share of the strongest tenth that both have; None where there are too few values.

    Values tied with the weakest of the tenth belong to it, zeros never do, and the larger of the two sets is the whole.
    """
    most = round(TOP * one.size)
    if most < _FEWEST_TOP:
        return None
    top = [strongest(v, most) for v in (one, other)]
    whole = max(int(t.sum()) for t in top)
    return float((top[0] & top[1]).sum() / whole) if whole else None


def strongest(values: Values, count: int) -> NDArray[np.bool_]:
    """Where the ``count`` largest values lie; those tied with the last belong to it, zeros never do."""
    return values >= max(np.partition(values.ravel(), -count)[-count], np.nextafter(0, 1))


def top_part(values: Values, count: int) -> Values:
    """How much each value belongs to the ``count`` largest; those tied at the end share what is left."""
    level = np.partition(values, -count)[-count]
    above, tied = values > level, values == level
    return above + tied * ((count - above.sum()) / tied.sum())


def kept_part(one: Values, other: Values) -> float:
    """Share of the top part ``one`` that is in ``other``, two of equal size."""
    return float(np.minimum(one, other).sum() / one.sum())


def part_iou(one: Values, other: Values) -> float:
    """Intersection over union of two top parts."""
    return float(np.minimum(one, other).sum() / np.maximum(one, other).sum())


def structure(one: Values, other: Values) -> float:
    """Structural similarity of two maps on their own axes, each brought to 0 to 1; NaN for a constant or thin map.

    What is compared here may have any unit and offset. ``randomization.alike`` divides by the magnitude instead: there
    the sign means something, and so does a zero.
    """
    if min(one.shape) < _LEAST_WINDOW or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    rim = (window(one) - 1) // 2  # where windows reach beyond the map, which the mean leaves out
    return float(local_structure(one, other)[(slice(rim, -rim),) * one.ndim].mean())


def local_structure(one: Values, other: Values) -> Values:
    """Structural similarity around each voxel of two maps that are neither constant nor thin."""
    scaled = [(v - v.min()) / np.ptp(v) for v in (one, other)]
    found: Any = structural_similarity(*scaled, win_size=window(one), data_range=1.0, full=True)
    return found[1]


def window(values: Values) -> int:
    """Voxels along each axis over which structure is compared: odd, and no more than the thinnest axis has."""
    smallest = min(values.shape)
    return min(_WINDOW, smallest - 1 + smallest % 2)
