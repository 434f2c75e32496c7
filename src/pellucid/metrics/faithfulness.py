"""Whether the voxels a map ranks high are those the model uses."""

from abc import ABC
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.card import Ask, Cost, MetricCard, Property
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer, Attribution
from pellucid.core.grid import Grid
from pellucid.core.infill import Infill
from pellucid.core.masking import Stream
from pellucid.core.metric import Metric, Score
from pellucid.core.probe import Probe
from pellucid.core.space import per_item
from pellucid.core.units import Units, blocks, voxels

_ROUNDING = 512  # last places of a map's largest value, below which a difference is rounding


@dataclass(frozen=True)
class _Curve(Metric, ABC, abstract=""):
    """A curve of the score while voxels are hidden (or shown) in the order of the map, most relevant first."""

    steps: Annotated[int, "points of the curve after the first"] = 20
    block: Annotated[float | None, "edge of the units in the grid's unit (mm, or px); None: single voxels"] = None
    infill: Annotated[Infill | None, "what hidden voxels show; None: the modality's default"] = None
    random_orders: Annotated[int, "curves in random order, as the reference"] = 2

    def __post_init__(self) -> None:
        if self.steps < 2 or self.random_orders < 0:
            raise BadOption(
                f"expected at least 2 steps and no negative count of orders, got {self.steps} and {self.random_orders}",
                "20 steps and 2 orders are the defaults",
            )

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``; the unperturbed end of each curve is the shared pass."""
        return Cost(self.steps * (1 + self.random_orders))

    def _score(self, probe: Probe, answer: Answer, deleting: bool) -> Score:
        values = _on_grid(answer, probe)
        if values is None:
            return Score.undefined(self, probe.batch, "the answer is not a map on the grid of the input")
        reasons, values = _reasons(values), _ranked(values)
        if all(reasons):
            return replace(Score.undefined(self, probe.batch, ""), reasons=reasons)
        units = self._units(probe.grid)
        stream = Stream(probe, self.infill)
        order = torch.stack([units.means(v).argsort(descending=True, stable=True) for v in values])
        curve = self._curve(stream, units, order, deleting)
        generator = torch.Generator().manual_seed(probe.scene.seed)
        chance = [  # the same random order for every item, so that an item alone equals the item in a batch
            self._curve(
                stream, units, torch.randperm(units.count, generator=generator).expand(probe.batch, -1), deleting
            )
            for _ in range(self.random_orders)
        ]
        share = torch.tensor(self._counts(units), dtype=torch.float64) / units.count
        curve[:, [bool(r) for r in reasons]] = torch.nan
        area = torch.trapezoid(curve, share, dim=0)
        detail = self._detail(curve, share, chance, deleting)
        return Score(
            self.name,
            area,
            reasons,
            self.settings(),
            detail | {"infill": stream.infill.words, "unit": probe.target.unit},
        )

    def _units(self, grid: Grid) -> Units:
        if self.block is None:
            return voxels(grid.shape)
        return blocks(grid.shape, [max(1, round(v)) for v in grid.voxels(self.block)])

    def _counts(self, units: Units) -> list[int]:
        """How many units are hidden (or shown) at each point."""
        return [round(point * units.count / self.steps) for point in range(self.steps + 1)]

    def _curve(self, stream: Stream, units: Units, order: Tensor, deleting: bool) -> Float[Tensor, "point batch"]:
        """Score at each share of hidden (or shown) units, both endpoints included."""
        whole = stream.probe.baseline_score.double().cpu()[None]
        counts = self._counts(units)
        rows = list(stream.scores(_keeps(units, order, counts[1:] if deleting else counts[:-1], deleting)))
        moved = torch.stack(rows).double().cpu()
        return torch.cat([whole, moved]) if deleting else torch.cat([moved, whole])

    def _detail(self, curve: Tensor, share: Tensor, chance: list[Tensor], deleting: bool) -> dict[str, object]:
        detail: dict[str, object] = {"curve": curve.T.tolist(), "share": share.tolist()}
        if chance:
            area = torch.trapezoid(curve, share, dim=0)
            random = torch.stack([torch.trapezoid(c, share, dim=0) for c in chance]).mean(0)
            span = (curve[0] - curve[-1]).abs().clamp_min(1e-12)
            lead = (random - area) if deleting else (area - random)
            detail["random"] = random.tolist()
            detail["lead over random"] = (lead / span).tolist()
        return detail


@dataclass(frozen=True)
class DeletionAUC(_Curve):
    """Area under the score while the most relevant voxels are hidden first; a faithful map makes it fall fast.

    ``trapezoid of S(x with the top t hidden) over t in [0, 1]``, both endpoints, stable order. Compare maps of the same
    case only; ``lead over random`` in the detail is (random - this) / |S(x) - S(fill)|, above 0 better than chance.

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
        equation=r"\int_0^1 S\big(x_{\mathrm{top}\,t \to \mathrm{fill}}\big)\,\mathrm{d}t",
        source="petsiuk2018rise",
        cost_note="one forward per step, for the map and for each random order",
        direction="lower",
        unit="target's unit",
        interval="any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        return self._score(probe, answer, deleting=True)


@dataclass(frozen=True)
class InsertionAUC(_Curve):
    """Area under the score while the most relevant voxels are shown first; a faithful map makes it rise fast.

    ``trapezoid of S(fill with the top t shown) over t in [0, 1]``, both endpoints, stable order. Compare maps of the
    same case only; ``lead over random`` in the detail is (this - random) / |S(x) - S(fill)|.

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
        equation=r"\int_0^1 S\big(\mathrm{fill}_{\mathrm{top}\,t \to x}\big)\,\mathrm{d}t",
        source="petsiuk2018rise",
        cost_note="one forward per step, for the map and for each random order",
        direction="higher",
        unit="target's unit",
        interval="any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        return self._score(probe, answer, deleting=False)


def _on_grid(answer: Answer, probe: Probe) -> Float[Tensor, "batch *space"] | None:
    """The collapsed map on the primary input, or None where there is none."""
    if not isinstance(answer, Attribution):
        return None
    values = answer.collapsed(probe.model.primary).detach().cpu()
    return values if tuple(values.shape[1:]) == probe.grid.shape else None


def _reasons(values: Float[Tensor, "batch *space"]) -> tuple[str, ...]:
    """Why a map ranks nothing; empty where it does."""
    finite = torch.isfinite(values).flatten(1).all(1).tolist()
    constant = (values.flatten(1).amax(1) == values.flatten(1).amin(1)).tolist()
    return tuple(
        "the map is not finite" if not f else "the map is constant: it ranks nothing" if c else ""
        for f, c in zip(finite, constant, strict=True)
    )


def _ranked(values: Float[Tensor, "batch *space"]) -> Float[Tensor, "batch *space"]:
    """Values equal but for rounding count as tied, so that an item alone is ranked as in a batch."""
    values = values.nan_to_num(0.0, 0.0, 0.0)
    largest = values.flatten(1).abs().amax(1).clamp_min(1e-30)
    quantum = per_item(largest, values) * (_ROUNDING * torch.finfo(values.dtype).eps)
    return (values / quantum).round()


def _keeps(units: Units, order: Tensor, counts: list[int], deleting: bool) -> Iterator[Tensor]:
    """Masks with the first ``counts`` of the order hidden (or shown alone): "batch *space"."""
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(units.count).expand_as(order).contiguous())
    place = torch.stack([r[units.labels] for r in ranks])
    for count in counts:
        yield (place >= count if deleting else place < count).float()
