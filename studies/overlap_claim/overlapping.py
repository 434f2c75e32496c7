"""How far a map overlaps a lesion, by every definition and threshold, and what two methods differ by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pellucid.metrics.localization.overlap import IoU, dice, iou
from pellucid.metrics.localization.threshold import Thresholded
from pellucid.statistics.bootstrap import Resampling, paired
from pellucid.statistics.comparing import rank
from pellucid.statistics.interval import Interval

THRESHOLDS: Mapping[str, Thresholded] = {
    "area": IoU(),
    "Otsu": IoU("otsu"),
    "half of max": IoU("fixed", 0.5),
    "top 10%": IoU("share", 0.1),
    "top 20%": IoU("share", 0.2),
}
OVERLAPS = ("IoU", "Dice", "coverage", "precision")
HIT = "hit"
COMBINATIONS = [(o, t) for o in OVERLAPS for t in THRESHOLDS] + [(HIT, "none")]
MARKED = "share marked"
CLAIM, BETTER, WORSE = 0.32, "GradCAMPlusPlus", "GradCAM"
BY = Resampling(times=1000)


def scores(values: Tensor, lesion: Tensor) -> dict[tuple[str, str], float]:
    """Every overlap of one map with one lesion, NaN where nothing is marked; and how much each threshold marks.

    Args:
        values: "row column", of the map.
        lesion: "row column", of the mask.
    """
    values, found = values.double(), {}
    for name, threshold in THRESHOLDS.items():
        marked = threshold.marked(values, int(lesion.sum()))
        if isinstance(marked, str):
            found |= {(what, name): np.nan for what in (*OVERLAPS, MARKED)}
            continue
        common = float(marked[lesion].sum())
        each = (
            iou(marked, lesion),
            dice(marked, lesion),
            common / float(lesion.sum()),
            common / float(marked.sum()),
            float(marked.mean()),
        )
        found |= {(what, name): value for what, value in zip((*OVERLAPS, MARKED), each, strict=True)}
    highest = values == values.max()
    blank = bool(highest.all())
    found[HIT, "none"] = np.nan if blank else float((highest & lesion).sum()) / float(highest.sum())
    return found


@dataclass(frozen=True, eq=False)
class Setting:
    """One network and layer: what every method scored on the same crops.

    Args:
        network: data set and seed.
        layer: of the network.
        tables: by method, the scores of each crop.
        owners: the image of each crop.
    """

    network: str
    layer: str
    tables: Mapping[str, Sequence[Mapping[tuple[str, str], float]]]
    owners: NDArray[np.str_]

    def column(self, method: str, key: tuple[str, str]) -> NDArray[np.float64]:
        """One score of every crop."""
        return np.array([one[key] for one in self.tables[method]])


def told(found: Interval) -> dict[str, float]:
    """Value and bounds, rounded; a bound that cannot be had is None."""
    parts = zip(("value", "low", "high"), (found.value, found.low, found.high), strict=True)
    return {name: round(v, 4) if np.isfinite(v) else None for name, v in parts}


def summary(setting: Setting) -> dict:
    """All combinations of one setting: means, the gap with its interval, and how often each method comes out first."""
    names, rows = list(setting.tables), []
    for key in COMBINATIONS:
        table = np.stack([setting.column(name, key) for name in names], axis=1)
        gap = paired(table[:, names.index(BETTER)], table[:, names.index(WORSE)], setting.owners, by=BY)
        ranking = rank(table, names, setting.owners, by=BY)
        rows.append(
            {
                "overlap": key[0],
                "threshold": key[1],
                "means": {n: _rounded(_mean(c)) for n, c in zip(names, table.T, strict=True)},
                "gap": told(gap),
                "crops": gap.count,
                "images": gap.clusters,
                "first": {n: _rounded(s[0]) for n, s in zip(ranking.names, ranking.shares, strict=True)},
                "blank counts as none": _rounded(_gap_with_zeros(table, names)),
            }
        )
    marked = {n: {t: _rounded(_mean(setting.column(n, (MARKED, t)))) for t in THRESHOLDS} for n in names}
    blank = {n: int(np.isnan(setting.column(n, (HIT, "none"))).sum()) for n in names}
    return {
        "network": setting.network,
        "layer": setting.layer,
        "blank maps": blank,
        "share marked": marked,
        "rows": rows,
    }


def _gap_with_zeros(table: NDArray[np.float64], names: list[str]) -> float:
    """The gap if a blank map has an overlap of 0 instead of being left out."""
    filled = np.nan_to_num(table, nan=0.0)
    return float((filled[:, names.index(BETTER)] - filled[:, names.index(WORSE)]).mean())


def _mean(values: NDArray[np.float64]) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else np.nan


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def tally(settings: Sequence[Mapping]) -> dict:
    """Over all settings and combinations: signs, gaps as large as the claim, and which choice moves the gap most."""
    flat = [
        (one["network"], one["layer"], row["overlap"], row["threshold"], row["gap"], row["means"])
        for one in settings
        for row in one["rows"]
    ]
    gaps = [(f[:4], f[4]) for f in flat if f[4]["value"] is not None]
    sure = [g for _, g in gaps if g["low"] is not None]
    values = np.array([g["value"] for _, g in gaps])
    return {
        "combinations": len(gaps),
        "gap": {"smallest": values.min(), "median": round(float(np.median(values)), 4), "largest": values.max()},
        "above 0": int((values > 0).sum()),
        "above 0, interval too": sum(g["low"] > 0 for g in sure),
        "below 0, interval too": sum(g["high"] < 0 for g in sure),
        "as large as the claim": [list(k) for k, g in gaps if g["value"] >= CLAIM],
        "interval holds the claim": sum(g["low"] <= CLAIM <= g["high"] for g in sure),
        "as large the other way": [list(k) for k, g in gaps if g["value"] <= -CLAIM],
        "first at least .73, second at most .41": [
            list(f[:4]) for f in flat if (f[5][BETTER] or 0) >= 0.73 and (f[5][WORSE] or 1) <= 0.41
        ],
        "each may have its own threshold": _own_thresholds(settings),
        "range when only one choice moves": {
            choice: _ranges(gaps, at)
            for choice, at in {
                "threshold": (3,),
                "overlap": (2,),
                "overlap and threshold": (2, 3),
                "layer": (1,),
            }.items()
        },
    }


def _own_thresholds(settings: Sequence[Mapping]) -> dict:
    """How many pairs of thresholds, one for each method, give a gap as large as the claim."""
    many = pairs = 0
    best = -np.inf
    for one in settings:
        for overlap in OVERLAPS:
            of = {r["threshold"]: r["means"] for r in one["rows"] if r["overlap"] == overlap}
            for first in of.values():
                for second in of.values():
                    if first[BETTER] is None or second[WORSE] is None:
                        continue
                    gap = first[BETTER] - second[WORSE]
                    pairs, many, best = pairs + 1, many + (gap >= CLAIM), max(best, gap)
    return {"pairs": pairs, "as large as the claim": int(many), "largest": round(float(best), 4)}


def _ranges(gaps: Sequence[tuple[tuple[str, ...], Mapping]], moving: tuple[int, ...]) -> dict[str, float | int]:
    """Largest less smallest gap where only some choices change: median and largest over all that is held fixed."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for key, gap in gaps:
        if key[2] != HIT or moving == (1,):
            fixed = tuple(part for at, part in enumerate(key) if at not in moving)
            groups.setdefault(fixed, []).append(gap["value"])
    spans = np.array([max(v) - min(v) for v in groups.values() if len(v) > 1])
    changing = sum(min(v) < 0 < max(v) for v in groups.values())
    if not len(spans):
        return {"median": 0.0, "largest": 0.0, "groups": 0, "change sign": 0}
    return {
        "median": round(float(np.median(spans)), 4),
        "largest": round(float(spans.max()), 4),
        "groups": len(spans),
        "change sign": changing,
    }
