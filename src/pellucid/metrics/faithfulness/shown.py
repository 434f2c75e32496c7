"""How much of the score is left when only what the map marks is shown."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, MetricCard, Property
from pellucid.core.probe import Probe
from pellucid.core.space import per_item
from pellucid.core.units import voxels
from pellucid.metrics.faithfulness.curves import path
from pellucid.metrics.faithfulness.filled import FilledMetric, Plan, Reading, rounding, whole_score
from pellucid.metrics.maps import blank_reasons, ranked

_SHOWN = (1, 2, 4, 10)  # twentieths: 5, 10, 20 and 50 %, masks of InsertionAUC too
_NO_EVIDENCE = "the map has no evidence for the target"
_NOTHING_TO_LOSE = "the image scores no higher than the fill, so there is no share of the score to lose"


@dataclass(frozen=True)
class Sufficiency(FilledMetric):
    """How far the score falls when only the map's top voxels are shown; where they suffice, it hardly falls.

    ``mean over t of S(x) - S(fill with the top t shown)``, t = 5, 10, 20 and 50 % of the voxels. It asks of one case
    and one model; it does not compare the case with others, whose explanations may be alike by chance.

    Returns:
        Score in the target's unit; lower is better. Undefined for a constant map.

    Source:
        deyoung2020eraser. dasgupta2022framework gives the name to another quantity, over pairs of cases.

    Example:
        >>> Sufficiency().card.direction
        'lower'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="how far the score falls when only the map's top voxels are shown",
        caution="what is left is an image no scanner made; depends on the fill, which is named",
        equation=r"\frac{1}{|T|}\sum_{t \in T} (S(x) - S(\mathrm{fill}_{\mathrm{top}\,t \to x}))",
        source="deyoung2020eraser",
        cost_note="four forwards per fill, shared with InsertionAUC",
        direction="lower",
        unit="target's unit",
        interval="any",
        asks=frozenset({Ask.OUTPUT}),
    )

    def _masks(self, probe: Probe) -> int:
        return len(_SHOWN)

    def _plan(self, probe: Probe, maps: Tensor) -> Plan:
        units = voxels(probe.grid.shape)
        order = torch.stack([v.flatten().argsort(descending=True, stable=True) for v in ranked(maps)])
        counts = [round(part * units.count / 20) for part in _SHOWN]

        def read(rows: Tensor) -> Reading:
            falls = whole_score(probe) - rows
            return Reading(falls.mean(0), {"share": [p / 20 for p in _SHOWN], "falls": falls.T.tolist()})

        return Plan(lambda: path(units, order, counts, deleting=False), read)


@dataclass(frozen=True)
class _Weighted(FilledMetric, ABC, abstract=""):
    """The score of the image weighted by the map: what the map calls zero shows the fill."""

    def _masks(self, probe: Probe) -> int:
        return 2

    def _reasons(self, maps: Tensor) -> tuple[str, ...]:
        positive = (maps.flatten(1).amax(1) > 0).tolist()
        return tuple(
            blank or ("" if p else _NO_EVIDENCE) for blank, p in zip(blank_reasons(maps), positive, strict=True)
        )

    def _plan(self, probe: Probe, maps: Tensor) -> Plan:
        above = maps.double().clamp_min(0)
        weights = above / per_item(above.flatten(1).amax(1).clamp_min(1e-300), above)

        def keeps() -> Iterator[Tensor]:
            yield weights
            yield torch.zeros_like(weights, dtype=torch.float32)

        return Plan(keeps, lambda rows: self._read(probe, whole_score(probe), rows))

    @abstractmethod
    def _read(self, probe: Probe, whole: Tensor, rows: Tensor) -> Reading:
        """The scores "2 batch" of the weighted image and of the fill."""


@dataclass(frozen=True)
class AverageDrop(_Weighted):
    """Which share of the score is lost when the image is weighted by the map, so that only what it marks remains.

    ``max(0, S(x) - S(M x + (1 - M) fill)) / (S(x) - S(fill))`` with ``M = A+ / max A+``; the mean over cases is the
    published number. Broad maps lose little, whatever they mark: read it beside a measure of complexity.

    Returns:
        Score, 0 or more, lower is better; undefined where S(x) is not above S(fill), or nothing speaks for the target.

    Source:
        chattopadhay2018gradcampp. Deviation: a share of a softmax has no meaning for a logit, which may be negative;
        here the score counts from that of the fill.

    Example:
        >>> AverageDrop().card.direction
        'lower'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="which share of the score is lost when the image is weighted by the map",
        caution="broad maps lose little, whatever they mark; depends on the fill, which is named",
        equation=r"\max(0, S(x) - S(M x + (1-M) b)) \,/\, (S(x) - S(b)),\quad M = A^+ / \max A^+",
        source="chattopadhay2018gradcampp",
        cost_note="two forwards per fill, shared with AverageIncrease",
        direction="lower",
        interval="0 or more",
        asks=frozenset({Ask.OUTPUT}),
    )

    def _read(self, probe: Probe, whole: Tensor, rows: Tensor) -> Reading:
        span = whole - rows[1]
        low = span <= rounding(probe, torch.stack([whole, *rows]))
        lost = (whole - rows[0]).clamp_min(0) / torch.where(low, 1.0, span)
        reasons = tuple(_NOTHING_TO_LOSE if one else "" for one in low.tolist())
        return Reading(lost, {"score": rows[0].tolist()}, reasons)


@dataclass(frozen=True)
class AverageIncrease(_Weighted):
    """Whether the score rises when the image is weighted by the map: what the map leaves out spoke against the target.

    ``1 if S(M x + (1 - M) fill) > S(x) else 0`` with ``M = A+ / max A+``; the mean over cases is the published share.

    Returns:
        0 or 1, higher is better; undefined for a constant map or where nothing speaks for the target.

    Source:
        chattopadhay2018gradcampp.

    Example:
        >>> AverageIncrease().card.direction
        'higher'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="whether the score rises when the image is weighted by the map",
        caution="yes or no for a case, so it takes many cases; depends on the fill, which is named",
        equation=r"[S(M x + (1-M) b) > S(x)],\quad M = A^+ / \max A^+",
        source="chattopadhay2018gradcampp",
        cost_note="two forwards per fill, shared with AverageDrop",
        direction="higher",
        interval="0 or 1",
        asks=frozenset({Ask.OUTPUT}),
    )

    def _read(self, probe: Probe, whole: Tensor, rows: Tensor) -> Reading:
        risen = rows[0] - whole > rounding(probe, torch.stack([whole, *rows]))
        return Reading(risen.double(), {"score": rows[0].tolist()})
