"""From cases to verdicts: which methods keep more of their map than chance shares when the weights are fresh."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tables import Rows
from trials import VIEWS

from pellucid.statistics import bootstrap, proportions
from pellucid.statistics.interval import Interval

CONTROL = "edges of the image (no network)"
BY = bootstrap.Resampling(kind="percentile")


def record(rows: Rows) -> dict[str, Any]:
    """Everything that the page says, as JSON types."""
    networks = list(dict.fromkeys(str(row["network"]) for row in rows))
    figures = {n: _network([row for row in rows if row["network"] == n]) for n in networks}
    return {
        "question": "which methods fail randomization (the review's section 6.2)?",
        "test": "rank correlation of the map and the map of fresh weights (ModelParameterRandomization, one level)",
        "chance": "97.5% of all shifts of the second map around the grid give less",
        "fails": "the mean over cases of similarity less that end of chance lies above 0 with its whole interval; "
        "passes: below 0; open: neither",
        "intervals": "95%: percentile bootstrap of patients, 2000 draws, seed 0; Wilson for shares",
        "networks": {n: _cases([row for row in rows if row["network"] == n]) for n in networks},
        "refused": {n: _refused([row for row in rows if row["network"] == n]) for n in networks},
        "figures": figures,
        "fails_on": {view: _tally(figures, view) for view in VIEWS},
    }


def _cases(rows: Rows) -> dict[str, int]:
    return {"cases": len({row["case"] for row in rows}), "patients": len({row["patient"] for row in rows})}


def _refused(rows: Rows) -> dict[str, str]:
    """Methods that answered on no case, with the reason of the first."""
    worked = {row["method"] for row in rows if not row["reason"]}
    return {str(row["method"]): str(row["reason"]) for row in reversed(rows) if row["method"] not in worked}


def _network(rows: Rows) -> dict[str, dict[str, Any]]:
    """By method: each view with its verdict, and what else was measured."""
    refused, found = _refused(rows), {}
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        if method not in refused:
            some = [row for row in rows if row["method"] == method]
            patients = [str(row["patient"]) for row in some]
            extra = {name: _interval(_column(some, name), patients) for name in ("rise of entropy", "similar to edges")}
            found[method] = {view: _view(some, view, patients) for view in (*VIEWS, "other class")} | extra
    return found


def _view(rows: Rows, view: str, patients: list[str]) -> dict[str, Any]:
    """The mean similarity, what it has over chance, the verdict, and the share of cases that fail."""
    values = _column(rows, view)
    over = values - _column(rows, f"{view}, chance up to")
    failing = np.where(np.isfinite(over), over > 0, np.nan)
    count = int(np.isfinite(over).sum())
    # one case a patient here; several would have to be clustered
    share = proportions.wilson(float(np.nansum(failing)), count)
    excess = bootstrap.interval(over, patients, by=BY)
    return {
        "similarity": _interval(values, patients),
        "over_chance": _plain(excess),
        "verdict": _verdict(excess),
        "cases_failing": _plain(share),
        "undefined": len(values) - count,
    }


def _verdict(excess: Interval) -> str:
    """Bounds of a mean that never varies are unknown: its value then decides, and the case count is told."""
    if math.isnan(excess.value):
        return "undefined"
    low, high = (excess.low, excess.high) if excess.bounded else (excess.value, excess.value)
    if excess.clusters < 2:
        return "open"
    return "fails" if low > 0 else "passes" if high < 0 else "open"


def _tally(figures: dict[str, dict[str, Any]], view: str) -> dict[str, dict[str, list[str]]]:
    """By method the networks on which it fails, passes, is open or undefined."""
    methods = dict.fromkeys(method for found in figures.values() for method in found)
    return {
        method: {
            verdict: [
                n for n, found in figures.items() if method in found and found[method][view]["verdict"] == verdict
            ]
            for verdict in ("fails", "open", "passes", "undefined")
        }
        for method in methods
    }


def _column(rows: Rows, name: str) -> NDArray[np.float64]:
    return np.array([row[name] for row in rows], dtype=float)


def _interval(values: NDArray[np.float64], patients: list[str]) -> dict[str, Any]:
    return _plain(bootstrap.interval(values, patients, by=BY))


def _plain(found: Interval) -> dict[str, Any]:
    told: dict[str, Any] = {name: _round(v) for name, v in zip(("value", "low", "high"), _ends(found), strict=True)}
    return (
        told | {"patients": found.clusters, "undefined": found.undefined} | ({"note": found.note} if found.note else {})
    )


def _ends(found: Interval) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def _round(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None
