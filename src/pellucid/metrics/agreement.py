"""How alike the maps of several methods are on one case, with an interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from scipy.stats import rankdata
from scipy.stats import t as student

from pellucid.core.card import Family, MetricCard, Property
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer, Attribution
from pellucid.core.metric import PanelMetric, Score
from pellucid.core.probe import Probe
from pellucid.metrics.likeness import (
    Likeness,
    Square,
    Values,
    block_means,
    common_blocks,
    pairwise,
    rank_correlation,
    structure,
    top_overlap,
)
from pellucid.metrics.maps import on_grid

_MEASURES: dict[str, Likeness] = {
    "spearman": rank_correlation,
    "overlap": top_overlap,
    "ssim": lambda one, other: None if np.isnan(found := structure(one, other)) else found,
}
_TILES = 8  # along each axis, that are drawn together: neighbors in a map are no independent places
_DRAWS = 400
_LEVEL = 0.95
_COVERS = (
    "which methods happen to be in the panel (leaving out one at a time, t interval); over places: where in this image "
    "the maps are compared (tiles drawn anew, ranks kept); neither covers other images"
)
Pair = tuple[int, int]


@dataclass(frozen=True)
class MethodAgreement(PanelMetric):
    """How alike the maps of methods that answer the same question are on this case.

    Mean over pairs of Spearman's correlation of the maps' positive parts, over blocks of the coarser native cell of a
    pair. Only pairs that answer one question count: what the score reacts to, what contributes, which region of a
    layer, what is attended to. The interval is the jackknife over methods. Methods may agree and all be wrong.

    Returns:
        Score up to 1, higher is more alike; undefined without two maps that answer the same question.

    Raises:
        BadOption: another measure.

    Source:
        krishna2024disagreement, for rank correlation and top overlap; the interval is ours.

    Example:
        >>> MethodAgreement("ssim").settings()
        {'measure': 'ssim'}
    """

    measure: Annotated[
        Literal["spearman", "overlap", "ssim"],
        "rank correlation, share of the strongest tenth that both have, or structural similarity",
    ] = "spearman"

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.AGREEMENT,
        shows="how alike the maps of methods that answer the same question are",
        caution="methods may agree and all be wrong; methods of one family agree by construction",
        equation=r"\binom{K}{2}^{-1} \sum_{i<j} \rho(A_i,\, A_j)",
        source="krishna2024disagreement",
        cost_note="none",
        direction="higher",
        interval="-1 to 1",
    )

    def __post_init__(self) -> None:
        if self.measure not in _MEASURES:
            raise BadOption(f"expected measure {', '.join(_MEASURES)}, got {self.measure!r}", "spearman is the default")

    def __call__(self, probe: Probe, panel: Sequence[tuple[Explainer, Answer]]) -> Score:
        """See ``PanelMetric``."""
        found = [self._item(probe, panel, i) for i in range(probe.batch)]
        values, reasons, details = zip(*found, strict=True)
        keys = dict.fromkeys(k for d in details for k in d)
        detail = {"covers": _COVERS} | {k: [d.get(k) for d in details] for k in keys}
        return Score(self.name, torch.tensor(values, dtype=torch.float64), reasons, self.settings(), detail)

    def _item(
        self, probe: Probe, panel: Sequence[tuple[Explainer, Answer]], index: int
    ) -> tuple[float, str, dict[str, Any]]:
        """The value of one item, why there is none, and what stands beside it."""
        shown, left_out = _shown(probe, panel, index)
        squares = pairwise([m.positive for m in shown], [m.cell for m in shown], _MEASURES)
        square = squares[self.measure]
        asked = [m.question for m in shown]
        known = [(a, b) for a, b in combinations(range(len(shown)), 2) if square[a][b] is not None]
        pairs = [(a, b) for a, b in known if asked[a] == asked[b]]
        value, low, high = spread(square, pairs)
        detail: dict[str, Any] = {
            "methods": [m.name for m in shown],
            **squares,
            "pairs": len(pairs),
            "interval": [low, high],
            "groups": {
                q: _group(square, [p for p in pairs if asked[p[0]] == q], shown, q) for q in dict.fromkeys(asked)
            },
            "left out": left_out,
        }
        if self.measure == "spearman" and pairs:
            detail["interval over places"] = list(over_places(shown, pairs, probe.scene.seed))
        why = "" if pairs else "fewer than two maps that answer the same question can be compared"
        return value, why, detail


@dataclass(frozen=True, eq=False)
class _Shown:
    """A map that shows something."""

    name: str
    question: str
    positive: Values
    cell: tuple[float, ...]


def _shown(probe: Probe, panel: Sequence[tuple[Explainer, Answer]], index: int) -> tuple[list[_Shown], dict[str, str]]:
    """The maps that can be compared, and why the others cannot."""
    kept: list[_Shown] = []
    left_out: dict[str, str] = {}
    for explainer, answer in panel:
        maps = on_grid(answer, probe)
        if not isinstance(answer, Attribution) or maps is None:
            left_out[explainer.name] = "no map on the grid of the input"
            continue
        values = maps[index].double().numpy()
        if not np.isfinite(values).all():
            left_out[explainer.name] = "not finite"
        elif values.max() <= 0:
            left_out[explainer.name] = "nothing speaks for the target"
        else:
            positive = np.maximum(values, 0)
            kept.append(_Shown(explainer.name, question(explainer, answer, probe), positive, answer.cell))
    return kept, left_out


def question(explainer: Explainer, answer: Attribution, probe: Probe) -> str:
    """What a map answers, in words; maps of different questions need not agree."""
    card = explainer.card
    if card.family is Family.CAM:
        return "which region of a layer speaks for the target"
    if card.family is Family.ATTENTION and not card.signed:
        return "what the model attends to"
    if card.signed and (card.family is not Family.GRADIENT or answer.unit == probe.target.unit):
        return "what contributes to the score"
    return "what the score reacts to"


def spread(square: Square, pairs: Sequence[Pair]) -> tuple[float, float | None, float | None]:
    """The mean over pairs, and its jackknife interval over methods; no interval where a method cannot be left out.

    A mean over pairs is a U-statistic: pairs that share a method are not independent, so the methods are left out one
    by one, and not the pairs.

    Args:
        square: of all maps.
        pairs: of those that count.
    """
    if not pairs:
        return float("nan"), None, None
    of = {pair: float(square[pair[0]][pair[1]] or 0.0) for pair in pairs}
    value, methods = float(np.mean(list(of.values()))), sorted({i for pair in pairs for i in pair})
    without = [[v for pair, v in of.items() if method not in pair] for method in methods]
    if any(not rest for rest in without):
        return value, None, None
    count, means = len(methods), np.array([np.mean(rest) for rest in without])
    error = float(np.sqrt((count - 1) / count * ((means - means.mean()) ** 2).sum()))
    reach = float(student.ppf((1 + _LEVEL) / 2, count - 1)) * error
    return value, max(-1.0, value - reach), min(1.0, value + reach)


def over_places(shown: Sequence[_Shown], pairs: Sequence[Pair], seed: int) -> tuple[float, float]:
    """Interval of the mean rank correlation when tiles of the image are drawn anew, the same for every pair."""
    shapes = [common_blocks(shown[a].positive.shape, (shown[a].cell, shown[b].cell)) for a, b in pairs]
    tiles = tuple(min(_TILES, *(s[axis] for s in shapes)) for axis in range(len(shapes[0])))
    count = int(np.prod(tiles))
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=_DRAWS).astype(float)
    found = np.zeros(_DRAWS)
    for (a, b), shape in zip(pairs, shapes, strict=True):
        one, other = (rankdata(block_means(shown[i].positive, shape)).reshape(shape) for i in (a, b))
        found += _drawn(one - one.mean(), other - other.mean(), tiles, draws) / len(pairs)
    low, high = np.nanquantile(found, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _drawn(one: Values, other: Values, tiles: tuple[int, ...], draws: Values) -> Values:
    """Correlation of two lists of ranks in each draw of tiles."""
    at = np.zeros(one.shape, dtype=int)
    for axis, count in enumerate(tiles):
        line = np.arange(one.shape[axis]) * count // one.shape[axis]
        at = at * count + line.reshape([-1 if a == axis else 1 for a in range(one.ndim)])
    sums = [
        np.bincount(at.ravel(), weights=v.ravel(), minlength=draws.shape[1])
        for v in (np.ones_like(one), one, other, one**2, other**2, one * other)
    ]
    n, a, b, aa, bb, ab = (draws @ s for s in sums)
    size = np.maximum((aa - a * a / n) * (bb - b * b / n), 1e-30)
    return np.clip((ab - a * b / n) / np.sqrt(size), -1, 1)


def _group(square: Square, pairs: Sequence[Pair], shown: Sequence[_Shown], asked: str) -> dict[str, Any]:
    """One question: who answers it, and how alike."""
    value, low, high = spread(square, pairs)
    return {
        "methods": [m.name for m in shown if m.question == asked],
        "mean": value if pairs else None,
        "interval": [low, high],
    }
