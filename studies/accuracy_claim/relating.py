"""How the quality of explanations goes with a network's AUC and with its size, over networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pellucid.statistics.bootstrap import Resampling, interval

BY = Resampling(kind="percentile")
QUALITIES = {  # what counts as better: 1 where a higher value does
    "NormalizedDeletionAUC": -1,
    "NormalizedInsertionAUC": 1,
    "ModelParameterRandomization": -1,
    "AverageSensitivity": -1,
    "Sparseness": 1,
    "Repeatability": 1,
}


@dataclass(frozen=True)
class Point:
    """One network.

    Args:
        design: its name, the same for all seeds.
        parameters: how many.
        auc: on held-out films.
        values: by method and measure, the median over films.
    """

    design: str
    parameters: int
    auc: float
    values: Mapping[str, Mapping[str, float]]


def rank_correlation(rows: NDArray[np.float64]) -> float:
    """Spearman's of two columns; NaN where one is constant, which a resample of few designs may be."""
    if min(np.ptp(rows[:, 0]), np.ptp(rows[:, 1])) == 0:
        return np.nan
    return float(np.corrcoef(stats.rankdata(rows, axis=0).T)[0, 1])


def related(points: Sequence[Point], method: str, by: str) -> dict[str, dict]:
    """The rank correlation of each measure, turned so that higher is better, with AUC or with the size.

    Designs are drawn anew, each with all its seeds: seeds of one design are no networks of their own.

    Args:
        points: the networks.
        method: whose maps.
        by: ``auc`` or ``parameters``.
    """
    designs = np.array([one.design for one in points])
    against = np.array([getattr(one, by) for one in points], dtype=np.float64)
    found = {}
    for measure, sign in QUALITIES.items():
        values = sign * np.array([one.values[method][measure] for one in points])
        given = interval(np.stack([against, values], axis=1), designs, rank_correlation, by=BY)
        ends = zip(("value", "low", "high"), (given.value, given.low, given.high), strict=True)
        found[measure] = {
            **{name: round(float(v), 3) if np.isfinite(v) else None for name, v in ends},
            "networks": given.count,
            "designs": given.clusters,
        }
    return found
