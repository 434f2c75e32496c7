"""Whether the voxels a map ranks high are those the model uses."""

from abc import ABC
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from pellucid.core.card import Ask, Cost, MetricCard, Property
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.grid import Grid
from pellucid.core.infill import Infill
from pellucid.core.metric import Score
from pellucid.core.probe import Probe
from pellucid.core.sweep import Asking, SweptMetric
from pellucid.core.units import Units, blocks, voxels
from pellucid.metrics.faithfulness.filled import rounding
from pellucid.metrics.faithfulness.order import most_first
from pellucid.metrics.faithfulness.traced import Trace, Tracing
from pellucid.metrics.maps import NO_MAP, blank_reasons, on_grid


@dataclass(frozen=True)
class _Curve(SweptMetric, ABC, abstract=""):
    """A curve of the score while voxels are hidden (or shown) in the order of the map, most relevant first."""

    steps: Annotated[int, "points of the curve after the first"] = 20
    block: Annotated[float | None, "edge of the units in the grid's unit (mm, or px); None: single voxels"] = None
    infill: Annotated[Infill | None, "what hidden voxels show; None: the modality's two, the first is the value"] = None
    random_orders: Annotated[int, "curves in random order, as the reference"] = 2
    tolerance: Annotated[
        float | None, "of the area, as a share of the curve's span: only points that can still move it; None: all"
    ] = None

    def __post_init__(self) -> None:
        if self.steps < 2 or self.random_orders < 0:
            raise BadOption(
                f"expected at least 2 steps and no negative count of orders, got {self.steps} and {self.random_orders}",
                "20 steps and 2 orders are the defaults",
            )
        if self.block is not None and not self.block > 0:
            raise BadOption(
                f"expected blocks with an edge above 0, got {self.block}", "leave block out for single voxels"
            )
        if self.tolerance is not None and not 0 < self.tolerance < 1:
            raise BadOption(
                f"expected a tolerance above 0 and below 1, got {self.tolerance}", "0.005 with 128 steps is usual"
            )

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``; the unperturbed end of each curve is the shared pass."""
        return Cost(self.steps * (1 + self.random_orders) * len(self._fills(probe)))

    def _fills(self, probe: Probe) -> tuple[Infill, ...]:
        return tuple(dict.fromkeys((self.infill,) if self.infill else probe.scene.infills[:2]))

    def _asking(self, probe: Probe, answer: Answer, deleting: bool) -> Asking:
        values = on_grid(answer, probe)
        if values is None:
            return Score.undefined(self, probe.batch, NO_MAP)
        reasons = blank_reasons(values)
        if all(reasons):
            return replace(Score.undefined(self, probe.batch, ""), reasons=reasons)
        units, fills = self._units(probe.grid), self._fills(probe)
        orders = [most_first(units, values), *self._random(units.count, probe, deleting)]
        counts = [round(point * units.count / self.steps) for point in range(self.steps + 1)]
        masks = [partial(_masks, cache(partial(_places, units, order)), deleting=deleting) for order in orders]
        whole = probe.baseline_score.double().cpu()
        found = yield from Tracing(counts, masks, fills, whole, deleting, self.tolerance).run()
        reports = [_report(probe, traces, reasons, deleting) for traces in found]
        area, detail = reports[0]
        by_fill = {fill.words: one.tolist() for fill, (one, _) in zip(fills, reports, strict=True)}
        ends = {
            fill.words: [(curve[0], curve[-1]) for curve in one["curve"]]
            for fill, (_, one) in zip(fills, reports, strict=True)
        }
        drawn = {fill.words: one.get("random", []) for fill, (_, one) in zip(fills, reports, strict=True)}
        shares = [found[0][0].shares(item) for item in range(probe.batch)]
        if self.tolerance is None:
            detail["share"] = shares[0]
        else:
            detail |= {"share": shares, "uncertainty": [found[0][0].doubt(i) for i in range(probe.batch)]}
        detail |= {"infill": fills[0].words, "unit": probe.target.unit, "by fill": by_fill}
        detail |= {"ends by fill": ends, "random by fill": drawn}
        return Score(self.name, area, reasons, self.settings(), detail)

    def _random(self, count: int, probe: Probe, deleting: bool) -> list[Tensor]:
        """The same random orders for every item, so that an item alone equals the item in a batch.

        Showing an order's first units hides the first of its reverse: reversed for insertion, both curves share.
        """
        generator = torch.Generator().manual_seed(probe.scene.seed)
        orders = [torch.randperm(count, generator=generator) for _ in range(self.random_orders)]
        return [(o if deleting else o.flip(0)).expand(probe.batch, -1) for o in orders]

    def _units(self, grid: Grid) -> Units:
        if self.block is None:
            return voxels(grid.shape)
        return blocks(grid.shape, [max(1, round(v)) for v in grid.voxels(self.block)])


def _report(
    probe: Probe, traces: list[Trace], reasons: tuple[str, ...], deleting: bool
) -> tuple[Tensor, dict[str, Any]]:
    """The area under the map's curve, and what stands beside it: the random orders' areas and the lead over them.

    A lead is a share of the score's change; NaN where the fill changes it by rounding only.
    """
    area = torch.where(torch.tensor([bool(r) for r in reasons]), torch.nan, traces[0].areas)
    curves = [traces[0].scores(item) for item in range(len(reasons))]
    nothing = [[torch.nan] * len(curve) for curve in curves]
    shown = [n if r else c for c, n, r in zip(curves, nothing, reasons, strict=True)]
    detail: dict[str, Any] = {"curve": shown}
    if len(traces) > 1:
        random = torch.stack([t.areas for t in traces[1:]]).mean(0)
        ends = [(curve[0], curve[-1]) for curve in curves]
        first, last = torch.tensor(ends, dtype=torch.float64).T
        span = (first - last).abs()
        span[span <= rounding(probe, torch.stack([first, last]))] = torch.nan
        lead = (random - area) if deleting else (area - random)
        detail |= {"random": random.tolist(), "lead over random": (lead / span).tolist()}
        # random order halves a linear score on average: what it does beyond that, the holes do
        detail["departure"] = ((random - (first + last) / 2).abs() / span).tolist()
        between = [
            [np.interp(traces[0].shares(i), t.shares(i), t.scores(i)) for t in traces[1:]] for i in range(len(area))
        ]
        detail["random curve"] = [np.mean(rows, axis=0).tolist() for rows in between]
    return area, detail


@dataclass(frozen=True)
class DeletionAUC(_Curve):
    """Area under the score while the most relevant voxels are hidden first; a faithful map makes it fall fast.

    ``trapezoid of S(x with the top t hidden) over t in [0, 1]``, both endpoints, stable order. Compare maps of the same
    case only; ``lead over random`` in the detail is (random - this) / |S(x) - S(fill)|, above 0 better than chance;
    ``departure`` is how far random order is from the middle of both ends, where a linear score has it: near 0.5 the
    model reacts to the holes, as to an image outside its data; larger blocks lower it.
    With ``tolerance`` only points are asked that can still move the area; what is left open is its ``uncertainty``.

    Returns:
        Score in the target's unit; lower is better. Undefined for a constant map.

    Source:
        petsiuk2018rise. Score in logits, not softmax, so that a saturated output does not hide the fall.

    Example:
        >>> DeletionAUC(steps=10).settings()["random_orders"]
        2
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="how fast the score falls when the map's top voxels are hidden first",
        caution="hidden voxels may leave the data's distribution; depends on the fill, which is named",
        equation=r"\int_0^1 S(x_{\mathrm{top}\,t \to \mathrm{fill}})\,\mathrm{d}t",
        source="petsiuk2018rise",
        cost_note="one forward per step, for the map and for each random order",
        direction="lower",
        unit="target's unit",
        interval="any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def asking(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Asking:
        """See ``SweptMetric``."""
        return self._asking(probe, answer, deleting=True)


@dataclass(frozen=True)
class InsertionAUC(_Curve):
    """Area under the score while the most relevant voxels are shown first; a faithful map makes it rise fast.

    ``trapezoid of S(fill with the top t shown) over t in [0, 1]``, both endpoints, stable order. Compare maps of the
    same case only; ``lead over random`` in the detail is (this - random) / |S(x) - S(fill)|.
    With ``tolerance`` only points are asked that can still move the area; what is left open is its ``uncertainty``.

    Returns:
        Score in the target's unit; higher is better. Undefined for a constant map.

    Source:
        petsiuk2018rise. Score in logits.

    Example:
        >>> InsertionAUC(steps=10, random_orders=0).settings()["steps"]
        10
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="how fast the score rises when the map's top voxels are shown first",
        caution="starts from an image no scanner made; depends on the fill, which is named",
        equation=r"\int_0^1 S(\mathrm{fill}_{\mathrm{top}\,t \to x})\,\mathrm{d}t",
        source="petsiuk2018rise",
        cost_note="one forward per step, for the map and for each random order",
        direction="higher",
        unit="target's unit",
        interval="any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def asking(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Asking:
        """See ``SweptMetric``."""
        return self._asking(probe, answer, deleting=False)


def path(units: Units, order: Tensor, counts: Sequence[int], deleting: bool) -> Iterator[Tensor]:
    """Masks with the first ``counts`` units of an order hidden (or shown alone): "batch *space".

    Args:
        units: of the image.
        order: "batch unit", most relevant first.
        counts: how many units, for each mask.
        deleting: hide them, or hide all but them.
    """
    place = _places(units, order)
    for count in counts:
        yield (place >= count if deleting else place < count).float()


def _masks(places: Callable[[], Tensor], counts: Sequence[Tensor], deleting: bool) -> Iterator[Tensor]:
    """As ``path``, with a count for each item."""
    place = places()
    for count in counts:
        each = count.view(-1, *(1,) * (place.ndim - 1))
        yield (place >= each if deleting else place < each).float()


def _places(units: Units, order: Tensor) -> Tensor:
    """Of each voxel's unit in the order of each item, "batch *space"."""
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(units.count).expand_as(order).contiguous())
    return torch.stack([r[units.labels] for r in ranks])
