"""How much of a map a reader has to take in: concentrated on little, or spread over everything."""

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.card import Ask, Cost, MetricCard, Property
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.infill import Infill
from pellucid.core.metric import Metric, Score
from pellucid.core.probe import Probe
from pellucid.core.sweep import Asking, Hidden, SweptMetric
from pellucid.metrics.faithfulness.filled import rounding
from pellucid.metrics.maps import NO_MAP, blank_reasons, on_grid, ranked

_EMPTY = "the map is zero everywhere"
_ROUNDS, _FINER = 2, 6  # of narrowing down the number of voxels that is enough


@dataclass(frozen=True)
class _Spread(Metric, ABC, abstract=""):
    """A number of how the map's magnitude is spread over the voxels."""

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        maps = on_grid(answer, probe)
        if maps is None:
            return Score.undefined(self, probe.batch, NO_MAP)
        sizes = maps.double().abs().flatten(1)
        reasons = tuple(
            "the map is not finite" if not bool(torch.isfinite(s).all()) else _EMPTY if not bool(s.any()) else ""
            for s in sizes
        )
        values = [torch.nan if r else self._one(s / s.sum()) for s, r in zip(sizes, reasons, strict=True)]
        return Score(self.name, torch.tensor(values, dtype=torch.float64), reasons, self.settings())

    @abstractmethod
    def _one(self, shares: Tensor) -> float:
        """Of a map's shares, which are not negative and sum to 1."""


@dataclass(frozen=True)
class Sparseness(_Spread):
    """How far the map is concentrated on few voxels: the Gini coefficient of its magnitude.

    ``sum (2 i - d - 1) |A|_(i) / (d sum |A|)`` in ascending order: 0 where it is spread evenly, 1 - 1/d where a single
    voxel holds everything. It rewards small maps, whether or not they are right.

    Returns:
        Score from 0 to 1; undefined for a map of zeros.

    Source:
        chalasani2020concise.

    Example:
        >>> Sparseness().card.direction
        'higher'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.COMPLEXITY,
        shows="how far the map is concentrated on few voxels",
        caution="says nothing about being right: one wrong voxel is as sparse as one right voxel",
        equation=r"\sum_i (2i-d-1)\,|A|_{(i)} \,/\, (d \sum |A|)",
        source="chalasani2020concise",
        cost_note="none",
        direction="higher",
    )

    def _one(self, shares: Tensor) -> float:
        count = len(shares)
        rank = torch.arange(1, count + 1, dtype=torch.float64)
        return float(((2 * rank - count - 1) * shares.sort().values).sum() / count)


@dataclass(frozen=True)
class Entropy(_Spread):
    """How evenly the map's magnitude is spread: the entropy of the voxels' shares.

    ``- sum p ln p`` with ``p = |A| / sum |A|``: 0 where a single voxel holds everything, ln d where all hold the same.
    It grows with the number of voxels, so compare maps of one grid only.

    Returns:
        Score in nat, lower is simpler; undefined for a map of zeros.

    Source:
        bhatt2020evaluating.

    Example:
        >>> Entropy().card.unit
        'nat'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.COMPLEXITY,
        shows="how evenly the map's magnitude is spread over the voxels",
        caution="says nothing about being right, and grows with the number of voxels",
        equation=r"-\sum_i p_i \ln p_i,\quad p_i = |A_i| \,/\, \sum |A|",
        source="bhatt2020evaluating",
        cost_note="none",
        direction="lower",
        unit="nat",
        interval="0 to ln(number of voxels)",
    )

    def _one(self, shares: Tensor) -> float:
        return float(torch.special.entr(shares).sum())


@dataclass(frozen=True)
class EffectiveComplexity(SweptMetric):
    """How many of the map's strongest voxels are enough to give the model its score back.

    ``min k with |S(fill with the top k shown) - S(x)| <= tolerance |S(x) - S(fill)|``: ``steps`` numbers of voxels from
    1 to all in equal ratios, then two finer rounds below the first that is enough. What remains hidden shows the fill,
    so the answer is relative to it; the score may come near by chance before it stays near, and the first time counts.

    Returns:
        Score as the number of voxels, lower is simpler; undefined for a constant map or a score the fill leaves as is.

    Raises:
        BadOption: fewer than two steps or a tolerance outside (0, 1).

    Source:
        nguyen2020quantitative.

    Example:
        >>> EffectiveComplexity(steps=8).settings()["tolerance"]
        0.1
    """

    steps: Annotated[int, "numbers of voxels that are tried"] = 16
    tolerance: Annotated[float, "of the score's change from the fill to the image"] = 0.1
    infill: Annotated[Infill | None, "what hidden voxels show; None: the modality's default"] = None

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.COMPLEXITY,
        shows="how many of the map's strongest voxels are enough to give the model its score back",
        caution="starts from an image no scanner made; depends on the fill, which is named",
        equation=r"\min k:\; |S(b_{\mathrm{top}\,k \to x}) - S(x)| \leq \varepsilon\,|S(x)-S(b)|",
        source="nguyen2020quantitative",
        cost_note="one forward per step, one of the fill, and twelve to narrow the number down",
        direction="lower",
        unit="voxels",
        interval="1 to the number of voxels",
        asks=frozenset({Ask.OUTPUT}),
    )

    def __post_init__(self) -> None:
        if self.steps < 2 or not 0 < self.tolerance < 1:
            raise BadOption(
                f"expected at least 2 steps and a tolerance within (0, 1), got {self.steps} and {self.tolerance}",
                "16 and 0.1 are the defaults",
            )

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``."""
        return Cost(self.steps + _ROUNDS * _FINER)

    def asking(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Asking:
        """See ``SweptMetric``."""
        maps = on_grid(answer, probe)
        if maps is None:
            return Score.undefined(self, probe.batch, NO_MAP)
        reasons = blank_reasons(maps)
        if all(reasons):
            return replace(Score.undefined(self, probe.batch, ""), reasons=reasons)
        fill, whole = self.infill or probe.scene.infills[0], probe.baseline_score.double().cpu()
        counts, none = yield from self._search(ranked(maps), whole, fill)
        still = ((whole - none).abs() <= rounding(probe, torch.stack([whole, none]))).tolist()
        reasons = tuple(
            r or ("the fill does not change the score" if s else "") for r, s in zip(reasons, still, strict=True)
        )
        found = counts.double()
        found[[bool(r) for r in reasons]] = torch.nan
        detail = {"share": (found / maps[0].numel()).tolist(), "infill": fill.words}
        return Score(self.name, found, reasons, self.settings(), detail)

    def _search(
        self, maps: Float[Tensor, "batch *space"], whole: Float[Tensor, " batch"], fill: Infill
    ) -> Generator[tuple[Hidden], list[Tensor], tuple[Tensor, Tensor]]:
        """The least number that is enough, and the score with nothing shown, by item."""
        count = maps[0].numel()
        order = torch.stack([v.flatten().argsort(descending=True, stable=True) for v in maps])
        place = torch.empty_like(order).scatter_(1, order, torch.arange(count).expand_as(order).contiguous())

        def shown(counts: Tensor, rounds: int) -> Hidden:
            """The top of each item's map alone; counts "try batch", and how many rounds may follow."""
            return Hidden(
                lambda: ((place < row[:, None]).view(maps.shape).float() for row in counts), fill, rounds * _FINER
            )

        steps = np.unique(np.geomspace(1, count, self.steps).round().astype(int))
        tried = torch.tensor(steps)[:, None].expand(-1, len(maps))
        (rows,) = yield (shown(torch.cat([torch.zeros_like(tried[:1]), tried[:-1]]), _ROUNDS),)
        none, rows = rows[0], rows[1:]
        limit = self.tolerance * (whole - none).abs()
        least, below = _first_enough(tried, (rows - whole).abs() <= limit)
        for left in reversed(range(_ROUNDS)):
            share = torch.arange(1, _FINER + 1)[:, None] / (_FINER + 1)
            tried = torch.cat([(below + share * (least - below)).ceil().long(), least[None]])
            (rows,) = yield (shown(tried[:-1], left),)
            least, nearest = _first_enough(tried, (rows - whole).abs() <= limit)
            below = torch.maximum(below, nearest)
        return least, none


def _first_enough(tried: Tensor, enough: Tensor) -> tuple[Tensor, Tensor]:
    """The least number that is enough, and the one tried before it (0: none), by item; the last is always enough."""
    first = torch.cat([enough, torch.ones_like(enough[:1])]).double().argmax(0, keepdim=True)
    before = torch.cat([torch.zeros_like(tried[:1]), tried]).gather(0, first)[0]
    return tried.gather(0, first)[0], before
