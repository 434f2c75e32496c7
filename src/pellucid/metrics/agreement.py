"""How alike the maps of several methods are on one case, with an interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from scipy.stats import t as student

from pellucid.core.card import Family, MetricCard, Property
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer, Attribution
from pellucid.core.metric import PanelMetric, Score
from pellucid.core.probe import Probe
from pellucid.metrics.likeness import (
    TOP,
    Likeness,
    Square,
    Values,
    block_means,
    common_blocks,
    local_structure,
    pairwise,
    rank_correlation,
    strongest,
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
_FEWEST = 3  # methods of a question, of which one can be left out
_COVERS = (
    "interval: where in this image the maps are compared (tiles drawn anew, ranks kept); over methods: which methods "
    "happen to answer a question (one left out at a time, t interval), none where a question has two; "
    "neither covers other images"
)
Pair = tuple[int, int]


@dataclass(frozen=True)
class MethodAgreement(PanelMetric):
    """How alike the maps of methods that answer the same question are on this case.

    Mean over pairs of Spearman's correlation of the maps' positive parts, over blocks of the coarser native cell of a
    pair. Only pairs that answer one question count: what the score reacts to, what contributes, which region of a
    layer, what is attended to. The interval is over places of this image; beside it, where every question has three
    methods, the jackknife over methods. Methods may agree and all be wrong.

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
        groups = [[p for p in pairs if asked[p[0]] == q] for q in dict.fromkeys(asked)]
        value, *over_methods = spread(square, groups)
        tiles = over_places(shown, pairs, self.measure, probe.scene.seed) if pairs else (None, None)
        detail: dict[str, Any] = {
            "methods": [m.name for m in shown],
            **squares,
            "pairs": len(pairs),
            "interval": list(tiles),
            "interval over methods": over_methods,
            "groups": {
                q: _group(square, [p for p in pairs if asked[p[0]] == q], shown, q) for q in dict.fromkeys(asked)
            },
            "left out": left_out,
        }
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


def spread(square: Square, groups: Sequence[Sequence[Pair]]) -> tuple[float, float | None, float | None]:
    """The mean over the pairs of all groups, and its jackknife interval over methods.

    A mean over pairs is a U-statistic: pairs that share a method are not independent, so methods are left out one by
    one, and not pairs. Groups are strata: each keeps its weight. Without an interval where a group has two methods.

    Args:
        square: of all maps.
        groups: pairs that count, by the question that is answered.
    """
    groups = [g for g in groups if g]
    if not groups:
        return float("nan"), None, None
    total, known = sum(map(len, groups)), [_jackknife(square, g) for g in groups]
    value = sum(mean * len(g) for (mean, _, _), g in zip(known, groups, strict=True)) / total
    freedom = sum(count - 1 for _, _, count in known)
    if any(count < _FEWEST for _, _, count in known):
        return value, None, None
    variance = sum((len(g) / total) ** 2 * v for (_, v, _), g in zip(known, groups, strict=True))
    reach = float(student.ppf((1 + _LEVEL) / 2, freedom) * np.sqrt(variance))
    return value, max(-1.0, value - reach), min(1.0, value + reach)


def _jackknife(square: Square, pairs: Sequence[Pair]) -> tuple[float, float, int]:
    """Mean of a group, its variance (NaN where a method cannot be left out), and how many methods it has."""
    of = {(a, b): float(square[a][b] or 0.0) for a, b in pairs}
    methods = sorted({i for pair in pairs for i in pair})
    without = [[v for pair, v in of.items() if method not in pair] for method in methods]
    mean = float(np.mean(list(of.values())))
    if any(not rest for rest in without):
        return mean, float("nan"), 2
    means = np.array([np.mean(rest) for rest in without])
    count = len(methods)
    return mean, float((count - 1) / count * ((means - means.mean()) ** 2).sum()), count


def over_places(shown: Sequence[_Shown], pairs: Sequence[Pair], measure: str, seed: int) -> tuple[float, float]:
    """Interval of the mean over pairs when tiles of the image are drawn anew, the same for every pair.

    What is drawn are the voxels' ranks, their place in the strongest tenth, or their structural similarity, as they
    are in the whole image.

    Args:
        shown: the maps.
        pairs: that count, at least one.
        measure: of ``MethodAgreement``.
        seed: of the draws.
    """
    shapes = [common_blocks(shown[a].positive.shape, (shown[a].cell, shown[b].cell)) for a, b in pairs]
    tiles = tuple(min(_TILES, *(s[axis] for s in shapes)) for axis in range(len(shapes[0])))
    count = int(np.prod(tiles))
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=_DRAWS).astype(float)
    found = np.zeros(_DRAWS)
    for (a, b), shape in zip(pairs, shapes, strict=True):
        one, other = (block_means(shown[i].positive, shape) for i in (a, b))
        parts, joined = _PARTS[measure](one, other)
        at = _tile_of(shape, tiles)
        sums = [np.bincount(at, weights=v.ravel(), minlength=count) for v in parts]
        found += joined(*(draws @ total for total in sums)) / len(pairs)
    low, high = np.nanquantile(found, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _tile_of(shape: Sequence[int], tiles: Sequence[int]) -> NDArray[np.int_]:
    """The number of the tile of each voxel, in the voxels' order."""
    at = np.zeros(shape, dtype=int)
    for axis, count in enumerate(tiles):
        line = np.arange(shape[axis]) * count // shape[axis]
        at = at * count + line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return at.ravel()


Joined = Callable[..., Values]  # of the sums over the tiles drawn


def _rank_parts(one: Values, other: Values) -> tuple[list[Values], Joined]:
    ranks = [rankdata(v) - (v.size + 1) / 2 for v in (one, other)]
    a, b = ranks
    return [np.ones(a.size), a, b, a**2, b**2, a * b], _correlated


def _correlated(n: Values, a: Values, b: Values, aa: Values, bb: Values, ab: Values) -> Values:
    size = np.maximum((aa - a * a / n) * (bb - b * b / n), 1e-30)
    return np.clip((ab - a * b / n) / np.sqrt(size), -1, 1)


def _top_parts(one: Values, other: Values) -> tuple[list[Values], Joined]:
    first, second = (strongest(v, round(TOP * v.size)) for v in (one, other))
    return [v.astype(np.float64) for v in (first & second, first, second)], _overlapping


def _overlapping(both: Values, a: Values, b: Values) -> Values:
    return both / np.maximum(np.maximum(a, b), 1e-30)


def _structure_parts(one: Values, other: Values) -> tuple[list[Values], Joined]:
    local = local_structure(one, other)
    return [np.ones(one.size), local], _mean


def _mean(n: Values, total: Values) -> Values:
    return total / n


_PARTS = {"spearman": _rank_parts, "overlap": _top_parts, "ssim": _structure_parts}


def _group(square: Square, pairs: Sequence[Pair], shown: Sequence[_Shown], asked: str) -> dict[str, Any]:
    """One question: who answers it, and how alike."""
    value, low, high = spread(square, [pairs])
    return {
        "methods": [m.name for m in shown if m.question == asked],
        "mean": value if pairs else None,
        "interval over methods": [low, high],
    }
