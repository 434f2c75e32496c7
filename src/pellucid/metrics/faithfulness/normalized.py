"""The areas under the curves without a unit, so that cases can be put together."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.card import Ask, Cost, MetricCard, Property
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.infill import Infill
from pellucid.core.metric import Score
from pellucid.core.probe import Probe
from pellucid.core.sweep import Asking, SweptMetric
from pellucid.metrics.faithfulness.curves import DeletionAUC, InsertionAUC

_NO_FALL = "the fill does not change the score"
_HIGHER = "the fill scores higher than the image: a share of its fall means nothing"
_OF_AREAS = ("random", "lead over random")  # in the score's unit, or the value itself: not to stand beside it
_ROUNDING = 1e-6  # of the larger end, below which both ends of the curve are the same


@dataclass(frozen=True)
class _Normalized(SweptMetric, ABC, abstract=""):
    """An area in shares of the score's change from fill to image, counted from random order or from the fill."""

    against: Annotated[
        Literal["random", "ends"],
        "what is 0: the area of random order, or the score of the fill (1 is that of the image)",
    ] = "random"
    steps: Annotated[int, "points of the curve after the first"] = 20
    block: Annotated[float | None, "edge of the units in the grid's unit (mm, or px); None: single voxels"] = None
    infill: Annotated[Infill | None, "what hidden voxels show; None: the modality's two, the first is the value"] = None
    random_orders: Annotated[int, "curves in random order, as the reference"] = 2

    def __post_init__(self) -> None:
        if self.against not in ("random", "ends"):
            raise BadOption(f"expected against random or ends, got {self.against!r}", "choose one of these")
        if self.against == "random" and self.random_orders < 1:
            raise BadOption("expected at least 1 random order to compare with, got none", "2 is the default")
        self._curve()

    @abstractmethod
    def _curve(self) -> DeletionAUC | InsertionAUC:
        """What it is made of."""

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``; shared with the curve of the same settings."""
        return self._curve().cost(probe, explainer)

    def asking(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Asking:
        """See ``SweptMetric``."""
        score = yield from self._curve().asking(probe, answer, explainer, region)
        if "curve" not in score.detail:  # nothing was asked
            return replace(score, metric=self.name, settings=self.settings())
        found = {fill: self._of(score.detail, fill) for fill in score.detail["by fill"]}
        values, why = found[score.detail["infill"]]
        reasons = tuple(r or w for r, w in zip(score.reasons, why, strict=True))
        areas = {"area": score.values.tolist(), "area by fill": score.detail["by fill"]}
        areas |= {"area of random order": score.detail["random"]} if "random" in score.detail else {}
        own = {k: v for k, v in score.detail.items() if k not in _OF_AREAS}
        by_fill = {fill: one.tolist() for fill, (one, _) in found.items()}
        return Score(self.name, values, reasons, self.settings(), own | areas | {"by fill": by_fill})

    def _of(self, detail: Mapping[str, Any], of: str) -> tuple[Float[Tensor, " batch"], list[str]]:
        """The values under one fill, and why an item has none."""
        area, ends = (torch.tensor(detail[k][of], dtype=torch.float64) for k in ("by fill", "ends by fill"))
        image, fill = (ends if isinstance(self._curve(), DeletionAUC) else ends.flip(1)).T
        span = image - fill
        flat = span.abs() <= _ROUNDING * ends.abs().amax(1)
        higher = (span < 0) & (self.against == "ends")
        if self.against == "ends":
            values = (area - fill) / span
        else:  # whichever end is higher, less is a faster fall
            values = (area - torch.tensor(detail["random by fill"][of], dtype=torch.float64)) / span.abs()
        why = [_NO_FALL if f else _HIGHER if h else "" for f, h in zip(flat.tolist(), higher.tolist(), strict=True)]
        return torch.where(flat | higher, torch.nan, values), why


@dataclass(frozen=True)
class NormalizedDeletionAUC(_Normalized):
    """Area under the deletion curve in shares of the score's change, counted from random order.

    ``(AUC - AUC_random) / |S(x) - S(fill)|``: below 0 the map makes the score fall faster than chance does. With
    ``against=ends``, ``(AUC - S(fill)) / (S(x) - S(fill))``: a map that takes everything at once has 0. One number for
    cases of any unit; with few random orders it is noisy on a single case.

    Returns:
        Score without a unit, lower is better; undefined for a constant map, a fill that leaves the score as is,
        and against the ends for one that scores higher than the image.

    Raises:
        BadOption: no random order, fewer than 2 steps, or another reference.

    Source:
        petsiuk2018rise, for the curve.

    Example:
        >>> NormalizedDeletionAUC().settings()["against"]
        'random'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="how much faster the score falls than in random order, as a share of its fall",
        caution="hidden voxels may leave the data's distribution; depends on the fill, which is named",
        equation=r"(\mathrm{AUC} - \mathrm{AUC}_{\mathrm{random}}) \,/\, |S(x) - S(b)|",
        source="petsiuk2018rise",
        cost_note="that of DeletionAUC, and none beside it",
        direction="lower",
        interval="any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def _curve(self) -> DeletionAUC:
        return DeletionAUC(self.steps, self.block, self.infill, self.random_orders)


@dataclass(frozen=True)
class NormalizedInsertionAUC(_Normalized):
    """Area under the insertion curve in shares of the score's change, counted from random order.

    ``(AUC - AUC_random) / |S(x) - S(fill)|``: above 0 the map brings the score back faster than chance does. With
    ``against=ends``, ``(AUC - S(fill)) / (S(x) - S(fill))``: a map that brings all back at once has 1. One number
    for cases of any unit; with few random orders it is noisy on a single case.

    Returns:
        Score without a unit, higher is better; undefined for a constant map, a fill that leaves the score as is,
        and against the ends for one that scores higher than the image.

    Raises:
        BadOption: no random order, fewer than 2 steps, or another reference.

    Source:
        petsiuk2018rise, for the curve.

    Example:
        >>> NormalizedInsertionAUC(against="ends").card.direction
        'higher'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="how much faster the score comes back than in random order, as a share of its rise",
        caution="starts from an image no scanner made; depends on the fill, which is named",
        equation=r"(\mathrm{AUC} - \mathrm{AUC}_{\mathrm{random}}) \,/\, |S(x) - S(b)|",
        source="petsiuk2018rise",
        cost_note="that of InsertionAUC, and none beside it",
        direction="higher",
        interval="any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def _curve(self) -> InsertionAUC:
        return InsertionAUC(self.steps, self.block, self.infill, self.random_orders)
