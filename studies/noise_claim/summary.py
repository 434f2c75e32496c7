"""From cases to answers: how much each map changes, which changes exceed 40%, and whether the two named are worst."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from measuring import EDGES, ITSELF, MEASURES, SAME_DICE, SIGMAS
from numpy.typing import NDArray
from tables import Rows

from pellucid.statistics import bootstrap, comparing
from pellucid.statistics.interval import Interval

LRP = "LRP epsilon-plus"
CLAIMED = ("GuidedBackprop", LRP)
CONTROLS = (EDGES, ITSELF)
LIMIT = 0.4  # the review's "more than 40%"
LEVEL = 0.05
BY = bootstrap.Resampling(kind="percentile")  # of means: the correction of BCa is slight, and takes twice as long


def record(rows: Rows) -> dict[str, Any]:
    """Everything that the page says, as JSON types."""
    networks = list(dict.fromkeys(str(row["network"]) for row in rows))
    figures = {n: {f"{s:g}": _cell(_of(rows, n, s)) for s in SIGMAS} for n in networks}
    return {
        "question": "do maps of LRP and GuidedBackprop change by more than 40% under minor noise, most of all methods "
        "(the review's section 3.3.3)?",
        "limit": LIMIT,
        "noise": "Gaussian, standard deviation as a share of the intensity range of the body, nothing clipped",
        "only": f"copies with the same prediction: the same side of an even score, or a mask with Dice {SAME_DICE:g}",
        "intervals": "95%, percentile bootstrap of patients, 2000 draws, seed 0; p by flipping signs of patients, Holm "
        "within network, noise and measure",
        "networks": {n: _cases(rows, n) for n in networks},
        "figures": figures,
        "claim": {n: {f"{s:g}": _claim(_of(rows, n, s)) for s in SIGMAS} for n in networks},
        "all_copies": {n: {f"{s:g}": _cell(_of(rows, n, s), ", all copies", False) for s in SIGMAS} for n in networks},
    }


def _of(rows: Rows, network: str, sigma: float) -> Rows:
    return [row for row in rows if row["network"] == network and row["sigma"] == sigma]


def _cases(rows: Rows, network: str) -> dict[str, Any]:
    """How many, and how many copies were left of them."""
    first = [row for row in rows if row["network"] == network and row["method"] == CLAIMED[0]]
    kept = {f"{s:g}": [r for r in first if r["sigma"] == s] for s in SIGMAS}
    return {
        "cases": len({row["case"] for row in first}),
        "patients": len({row["patient"] for row in first}),
        "copies": int(first[0]["copies"]),  # type: ignore[call-overload]
        "kept_share": {
            s: round(float(np.mean([r["kept"] / r["copies"] for r in some])), 3) for s, some in kept.items()
        },
        "cases_without_a_copy": {s: sum(r["kept"] == 0 for r in some) for s, some in kept.items()},
    }


def _column(rows: Rows, method: str, measure: str) -> tuple[NDArray[np.float64], list[str]]:
    """Values and patients of a method, in the order of the cases."""
    some = sorted((row for row in rows if row["method"] == method), key=lambda row: str(row["case"]))
    return np.array([row[measure] for row in some], dtype=float), [str(row["patient"]) for row in some]


def _cell(rows: Rows, suffix: str = "", bounds: bool = True) -> dict[str, dict[str, Any]]:
    """By method and measure: the mean change over cases, its interval, and where it lies to the limit."""
    found: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        found[method] = {}
        for measure in MEASURES:
            values, patients = _column(rows, method, measure + suffix)
            there = values[np.isfinite(values)]
            if not bounds:
                found[method][measure] = _round(there.mean()) if len(there) else None
                continue
            mean = bootstrap.interval(values, patients, by=BY)
            found[method][measure] = plain(mean) | {
                "median": _round(np.median(there)) if len(there) else None,
                "exceeds": _side(mean),
            }
    return found


def _side(mean: Interval) -> str:
    if not mean.bounded:
        return "unknown"
    return "yes" if mean.low > LIMIT else "no" if mean.high < LIMIT else "open"


def _claim(rows: Rows) -> dict[str, Any]:
    """By measure: what the review names against every other method, and how often each is the most changed."""
    methods = dict.fromkeys(str(row["method"]) for row in rows)
    named = [m for m in methods if m in CLAIMED or m.startswith("LRP")]
    others = [m for m in methods if m not in CONTROLS and m not in named]
    found: dict[str, Any] = {}
    for measure in MEASURES:
        columns = {m: _column(rows, m, measure) for m in (*named, *others)}
        patients = columns[CLAIMED[0]][1]
        pairs = [(one, other) for one in named for other in others]
        tested = [
            comparing.compare(np.stack([columns[a][0], columns[b][0]], 1), (a, b), patients, by=BY)[0] for a, b in pairs
        ]
        adjusted = comparing.holm([one.p for one in tested])
        ranking = comparing.rank(np.stack([c[0] for c in columns.values()], 1), list(columns), patients)
        against: dict[str, dict[str, Any]] = {one: {} for one in named}
        for (one, other), comparison, p in zip(pairs, tested, adjusted, strict=True):
            against[one][other] = plain(comparison.difference) | {"p": _round(p)}
        found[measure] = {
            "over": against,
            "most": {one: _most(list(against[one].values())) for one in named},
            "ranks": {
                name: {"most": _round(shares[0]), "second": _round(shares[1])}
                for name, shares in zip(ranking.names, ranking.shares, strict=True)
            },
        }
    return found


def _most(differences: Sequence[dict[str, Any]]) -> str:
    """Whether a method changes more than all others, or surely less than some."""
    if all(d["p"] is None for d in differences):
        return "unknown"
    if any(d["p"] is not None and d["p"] < LEVEL and d["value"] < 0 for d in differences):
        return "no"
    return "yes" if all(d["p"] is not None and d["p"] < LEVEL and d["value"] > 0 for d in differences) else "open"


def plain(found: Interval) -> dict[str, Any]:
    """Value, bounds and counts, as JSON types."""
    told = {name: _round(v) for name, v in asdict(found).items() if name in ("value", "low", "high")}
    return (
        told | {"patients": found.clusters, "undefined": found.undefined} | ({"note": found.note} if found.note else {})
    )


def _round(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None
