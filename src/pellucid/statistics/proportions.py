"""Proportions with their interval, also where one patient gave many answers, and how many are needed for a verdict."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pellucid.statistics.bootstrap import Grouped, grouped
from pellucid.statistics.errors import Unfit
from pellucid.statistics.interval import Interval, checked_level


def wilson(hits: float, count: int, level: float = 0.95) -> Interval:
    """The share of hits with Wilson's interval, for answers that do not depend on each other.

    The share that is just not rejected by the score test; it stays within 0 and 1 and has a width also at 0 and 1.
    With several answers of one patient it is too narrow: then ``clustered``.

    Args:
        hits: how many were right, from 0 to the count; half a hit is a tie.
        count: how many there were; none gives NaN.
        level: of the interval.

    Raises:
        Unfit: if there are more hits than answers, or less than none.

    Source: wilson1927probable.
    """
    if not 0 <= hits <= count:
        raise Unfit(f"{hits} hits of {count}", "give hits between 0 and the number of answers")
    return _share(hits, count, count, count, level)


def clustered(hits: ArrayLike, clusters: ArrayLike, level: float = 0.95) -> Interval:
    """The share of hits with Wilson's interval for as many answers as those of the patients are worth.

    The variance of the share between patients (the ratio estimator's) over the binomial one is the design effect; the
    count is divided by it, never multiplied, and shrunk once more for the few degrees of freedom: (z / t)^2. Where all
    hit, or none, the design effect is unknown, and each patient counts as one answer: wide, but not wrong.

    Args:
        hits: 1 or 0 (or True, False) for each answer; NaN where undefined.
        clusters: the patient of each answer.
        level: of the interval.

    Raises:
        Unfit: if an answer is neither 0, 1 nor NaN, or lengths differ.

    Source: raoscott1992simple, korn1998confidence for the degrees of freedom.
    """
    checked_level(level)
    given = np.asarray(hits, dtype=np.float64)
    if given.ndim != 1 or not np.isin(given[~np.isnan(given)], (0.0, 1.0)).all():
        raise Unfit("an answer is neither 0 nor 1", "give 1 for a hit, 0 for a miss, NaN where undefined")
    data = grouped(given, clusters)
    count = len(data.rows)
    plain = _share(int(data.rows.sum()), count, count, data.count, level, data.undefined)
    if data.count < 2:
        note = "one patient: nothing is known of how much patients differ" if data.count else "no answer is defined"
        return replace(plain, low=math.nan, high=math.nan, how="Wilson, clustered", note=note)
    worth, effect = _worth(data, level)
    how = f"Wilson, clustered: {count} answers of {data.count} patients are worth {worth:.1f}"
    if math.isnan(effect):
        how += " (all alike: each patient counts as one)"
    found = _share(plain.value * worth, worth, count, data.count, level, data.undefined)
    return replace(plain, low=found.low, high=found.high, how=how)


def _worth(data: Grouped, level: float) -> tuple[float, float]:
    """Independent answers that those of the patients are worth, and the design effect."""
    sizes = np.diff(data.starts).astype(np.float64)
    count, patients, share = sizes.sum(), data.count, data.rows.mean()
    if share in (0.0, 1.0):
        return float(patients), math.nan
    residues = np.add.reduceat(data.rows, data.starts[:-1]) - share * sizes
    effect = patients / (patients - 1) * (residues**2).sum() / (count * share * (1 - share))
    upper = (1 + level) / 2
    shrunk = (stats.norm.ppf(upper) / stats.t.ppf(upper, patients - 1)) ** 2
    return float(count / max(effect, 1.0) * shrunk), float(effect)


def _share(hits: float, worth: float, count: int, clusters: int, level: float, undefined: int = 0) -> Interval:
    """Wilson's interval for so many answers, which need be no whole number."""
    from statsmodels.stats.proportion import proportion_confint  # loads pandas: only where it is used

    checked_level(level)
    if not worth:
        nan = math.nan
        return Interval(nan, nan, nan, level, 0, 0, undefined, "Wilson", "there are no answers")
    low, high = proportion_confint(hits, worth, alpha=1 - level, method="wilson")
    # the bounds there are 0 and 1, and rounding must not say otherwise
    ends = 0.0 if hits <= 0 else float(low), 1.0 if hits >= worth else float(high)
    return Interval(hits / worth, *ends, level, count, clusters, undefined, "Wilson")


def needed(share: float, threshold: float, level: float = 0.95, decimals: int | None = None) -> float:
    """Independent answers whose Wilson interval just leaves the threshold, if the share stays as it is.

    n = z^2 t (1 - t) / (share - t)^2: with so many the verdict falls about every other time, so plan for more, and
    multiply by the design effect where patients give several answers.

    Args:
        share: the true share, or the one found so far; 0 to 1.
        threshold: that the interval must leave, on whichever side the share lies; strictly between 0 and 1.
        level: of the interval.
        decimals: compare bounds as they are printed with so many; None: exactly.

    Returns:
        The least number; infinite where the share is the threshold.

    Raises:
        Unfit: for shares outside 0 to 1.
    """
    checked_level(level)
    if not 0 <= share <= 1 or not 0 < threshold < 1:
        raise Unfit(f"a share of {share} against a threshold of {threshold}", "give both between 0 and 1")
    slack = 0.0 if decimals is None else 0.5 * 10.0**-decimals
    nearest = threshold - slack if share > threshold else threshold + slack
    if share == threshold or not 0 < nearest < 1:
        return math.inf if share == threshold else 1.0
    z = float(stats.norm.ppf((1 + level) / 2))
    return float(math.ceil(z**2 * nearest * (1 - nearest) / (share - nearest) ** 2 - 1e-9))
