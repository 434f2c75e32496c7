"""Curves of a score along an order: every point of them, or only where the area under them can still move."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pellucid.core.infill import Infill
from pellucid.core.sweep import Hidden

_FIRST = (0, 2, 6, 16, 36, 64)  # of 128, and mirrored: curves bend most where little is hidden, or nearly everything
_AT_ONCE = 4  # segments of a curve that are halved before it is looked at again
_BEND, _FALL, _DIGITS = 0.25, 0.05, 7

Masks = Callable[[Sequence[Tensor]], Iterable[Tensor]]  # of one order: for each "batch" of counts a mask "batch *space"


class _Key(NamedTuple):
    fill: Infill
    order: int


@dataclass(frozen=True, eq=False)
class Trace:
    """What is known of one curve of each item.

    Args:
        share: of the units that are hidden (or shown) at each point, from 0 to 1.
        known: score by point, for each item.
    """

    share: NDArray[np.float64]
    known: tuple[dict[int, float], ...]

    def points(self, item: int) -> list[int]:
        """Those known, in order."""
        return sorted(self.known[item])

    def shares(self, item: int) -> list[float]:
        """Of the points known."""
        return self.share[self.points(item)].tolist()

    def scores(self, item: int) -> list[float]:
        """At the points known."""
        return [self.known[item][p] for p in self.points(item)]

    @property
    def areas(self) -> Float[Tensor, " batch"]:
        """Trapezoids between the points known."""
        found = [np.trapezoid(self.scores(i), self.shares(i)) for i in range(len(self.known))]
        return torch.tensor(found, dtype=torch.float64)

    def doubt(self, item: int) -> float:
        """About how far the area may be from that of all points, as a share of the curve's span."""
        return float(self._doubts(item).sum())

    def wanted(self, item: int, tolerance: float) -> list[int]:
        """Points that halve the segments in most doubt, at most four; none where the area is certain enough."""
        points, doubts, found = self.points(item), self._doubts(item), list[int]()
        rest = doubts.sum()
        for place in np.argsort(-doubts, kind="stable"):
            if rest <= tolerance or len(found) == _AT_ONCE or not doubts[place] > 0:
                break
            found.append(self._middle(points[place], points[place + 1]))
            rest -= doubts[place]
        return found

    def _doubts(self, item: int) -> NDArray[np.float64]:
        """Of each segment: how far its ends lie off their neighbors' line, and how far the score goes along it.

        The factors are the least with which no area of 360 curves of trained networks was further off than their sum.
        Rounded, so that an item alone is refined as in a batch.
        """
        points, scores = self.points(item), np.array(self.scores(item))
        at = self.share[points]
        span, width = np.ptp(scores), np.diff(at)
        if not span > 0:
            return np.zeros(len(width))
        off = np.zeros(len(points))
        along = (at[1:-1] - at[:-2]) / np.maximum(at[2:] - at[:-2], 1e-12)
        off[1:-1] = np.abs(scores[1:-1] - scores[:-2] - along * (scores[2:] - scores[:-2]))
        doubt = (_BEND * np.maximum(off[:-1], off[1:]) + _FALL * np.abs(np.diff(scores))) * width / span
        return np.where(np.diff(points) > 1, doubt, 0.0).round(_DIGITS)

    def _middle(self, low: int, high: int) -> int:
        """Of two points, the one next to the middle of the curve: a curve read backwards is halved at the same."""
        return (low + high + int(low + high < len(self.share) - 1)) // 2


@dataclass(frozen=True, eq=False)
class Tracing:
    """How curves are asked for.

    Args:
        counts: of units hidden (or shown) at each point, from none to all.
        orders: the masks of each.
        fills: under which each order is scored.
        whole: score of the unperturbed image, "batch": the first point where voxels are hidden, else the last.
        deleting: whether voxels are hidden.
        tolerance: of the area, as a share of the curve's span; None: all points are asked at once.
    """

    counts: Sequence[int]
    orders: Sequence[Masks]
    fills: Sequence[Infill]
    whole: Float[Tensor, " batch"]
    deleting: bool
    tolerance: float | None

    def run(self) -> Generator[tuple[Hidden, ...], list[Tensor], list[list[Trace]]]:
        """Ask, and give the curves of each order under each fill."""
        keys = [_Key(fill, order) for fill in self.fills for order in range(len(self.orders))]
        share, end = np.array(self.counts) / self.counts[-1], 0 if self.deleting else self._steps
        traces = {key: Trace(share, tuple({end: w} for w in self.whole.tolist())) for key in keys}
        left = dict.fromkeys(keys, self._steps)
        asked = dict.fromkeys(keys, [[p for p in self._first() if p != end]] * len(self.whole))
        while any(map(any, asked.values())):
            rows = {key: _rows(points, self._steps) for key, points in asked.items()}
            left = {key: left[key] - len(rows[key]) for key in keys}
            fills = [f for f in self.fills if any(len(rows[_Key(f, o)]) for o in range(len(self.orders)))]
            found = yield tuple(self._question(f, rows, left) for f in fills)
            for fill, scores in zip(fills, found, strict=True):
                self._note(fill, scores, rows, traces)
            asked = {key: self._next(traces[key], left[key]) for key in keys}
        return [[traces[_Key(fill, order)] for order in range(len(self.orders))] for fill in self.fills]

    @property
    def _steps(self) -> int:
        return len(self.counts) - 1

    def _first(self) -> list[int]:
        """All points, or those that a curve is first looked at."""
        if self.tolerance is None:
            return list(range(self._steps + 1))
        start = {int(p * self._steps / 128 + 0.5) for p in _FIRST}
        return sorted(start | {self._steps - p for p in start})

    def _next(self, trace: Trace, left: int) -> list[list[int]]:
        """For each item; nothing where all points were asked, or as many rows as there are points."""
        if self.tolerance is None:
            return [[]] * len(trace.known)
        return [trace.wanted(item, self.tolerance)[:left] for item in range(len(trace.known))]

    def _question(self, fill: Infill, rows: dict[_Key, Tensor], left: dict[_Key, int]) -> Hidden:
        counts = torch.tensor(self.counts)
        own = [(masks, counts[rows[_Key(fill, order)]]) for order, masks in enumerate(self.orders)]
        then = 0 if self.tolerance is None else sum(left[_Key(fill, order)] for order in range(len(self.orders)))

        def keeps() -> Iterator[Tensor]:
            return chain.from_iterable(masks(list(each)) for masks, each in own)

        return Hidden(keeps, fill, then)

    def _note(self, fill: Infill, scores: Tensor, rows: dict[_Key, Tensor], traces: dict[_Key, Trace]) -> None:
        parts = scores.split([len(rows[_Key(fill, order)]) for order in range(len(self.orders))])
        for order, part in enumerate(parts):
            key = _Key(fill, order)
            for points, values in zip(rows[key].tolist(), part.tolist(), strict=True):
                for known, point, value in zip(traces[key].known, points, values, strict=True):
                    known.setdefault(point, value)


def _rows(points: list[list[int]], last: int) -> Tensor:
    """Points of each item as "row batch": an item that wants fewer than others is filled up with what it has asked."""
    most = max(map(len, points))
    full = [own + (own or [last])[-1:] * (most - len(own)) for own in points]
    return torch.tensor(full, dtype=torch.long).view(len(points), most).T
