"""What metrics that hide parts of the image have in common: the fills they are scored under, and how that is told."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.card import Cost
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.infill import Infill
from pellucid.core.metric import Score
from pellucid.core.probe import Probe
from pellucid.core.sweep import Asking, Hidden, SweptMetric
from pellucid.metrics.maps import NO_MAP, blank_reasons, on_grid

UNMOVED = "the score is the same whatever is hidden or changed"
_ROUNDING = 64  # last places of the largest score, within which scores are the same


@dataclass(frozen=True, eq=False)
class Reading:
    """What a metric makes of the scores under one fill.

    Args:
        values: "batch".
        detail: curves and by-products, JSON types.
        reasons: why an item has no value, empty where it has one; none at all where every item has one.
    """

    values: Float[Tensor, " batch"]
    detail: Mapping[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Plan:
    """Which masks to score, and what their scores say.

    Args:
        keeps: makes the masks anew at each call, as ``Hidden`` takes them.
        read: the scores "mask batch" under one fill -> value and detail.
    """

    keeps: Callable[[], Iterable[Tensor]]
    read: Callable[[Tensor], Reading]


@dataclass(frozen=True)
class FilledMetric(SweptMetric, ABC, abstract=""):
    """A metric of scores with parts hidden, under the modality's two fills unless one is given."""

    infill: Annotated[Infill | None, "what hidden voxels show; None: the modality's two, the first is the value"] = (
        field(default=None, kw_only=True)
    )

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``; the unperturbed image is the shared pass."""
        return Cost(self._masks(probe) * len(self._fills(probe)))

    @abstractmethod
    def _masks(self, probe: Probe) -> int:
        """How many there are at most."""

    @abstractmethod
    def _plan(self, probe: Probe, maps: Tensor) -> Plan:
        """The masks for maps "batch *space"; those without a value hold zeros."""

    def _reasons(self, maps: Tensor) -> tuple[str, ...]:
        """Why a map has no value, by item."""
        return blank_reasons(maps)

    def _fills(self, probe: Probe) -> tuple[Infill, ...]:
        return tuple(dict.fromkeys((self.infill,) if self.infill else probe.scene.infills[:2]))

    def asking(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Asking:
        """See ``SweptMetric``."""
        maps = on_grid(answer, probe)
        if maps is None:
            return Score.undefined(self, probe.batch, NO_MAP)
        reasons = self._reasons(maps)
        if all(reasons):
            return replace(Score.undefined(self, probe.batch, ""), reasons=reasons)
        plan, fills = self._plan(probe, without(maps, reasons)), self._fills(probe)
        found = yield tuple(Hidden(plan.keeps, fill) for fill in fills)
        scores = [self._score(plan.read(rows), reasons) for rows in found]
        by_fill = {fill.words: s.values.tolist() for fill, s in zip(fills, scores, strict=True)}
        named = {"infill": fills[0].words, "unit": probe.target.unit, "by fill": by_fill}
        return replace(scores[0], detail={**scores[0].detail, **named})

    def _score(self, reading: Reading, reasons: tuple[str, ...]) -> Score:
        """With NaN wherever there is a reason."""
        own = reading.reasons or ("",) * len(reasons)
        said = tuple(blank or why for blank, why in zip(reasons, own, strict=True))
        values = reading.values.double().clone()
        values[[bool(r) for r in said]] = torch.nan
        return Score(self.name, values, said, self.settings(), reading.detail)


def without(maps: Float[Tensor, "batch *space"], reasons: tuple[str, ...]) -> Float[Tensor, "batch *space"]:
    """Zeros in place of the maps that have no value, so that they cannot spoil the others."""
    out = maps.clone()
    out[[bool(r) for r in reasons]] = 0
    return out


def whole_score(probe: Probe) -> Float[Tensor, " batch"]:
    """The score of the unperturbed image, as answers of a sweep are given."""
    return probe.baseline_score.double().cpu()


def rounding(probe: Probe, scores: Float[Tensor, "mask batch"]) -> Float[Tensor, " batch"]:
    """Differences of scores below this are rounding."""
    x = probe.inputs[probe.model.primary]
    return scores.abs().amax(0).clamp_min(1e-30) * (_ROUNDING * torch.finfo(x.dtype).eps)
