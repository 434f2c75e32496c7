"""Several methods on the same items: differences with their tests, and ranks that say how sure they are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pellucid.statistics.bootstrap import STANDARD, Floats, Grouped, Resampling, grouped, interval
from pellucid.statistics.errors import Unfit
from pellucid.statistics.interval import Interval
from pellucid.statistics.proportions import wilson

SIGNS = 9999


@dataclass(frozen=True)
class Comparison:
    """One method against another on the items that both could score.

    Args:
        first: the name of one method.
        second: the name of the other.
        difference: mean of first minus second over items, in the metric's unit.
        ahead: the share of patients where the first scores higher, ties as halves: an effect without a unit.
        p: of no difference; NaN where there is nothing to test.
        adjusted: the same after Holm, over all pairs compared.
        test: how p was found.
    """

    first: str
    second: str
    difference: Interval
    ahead: Interval
    p: float
    adjusted: float
    test: str


@dataclass(frozen=True)
class Ranking:
    """How often each method comes out at each rank when patients are drawn anew.

    Args:
        names: the methods, best mean first.
        means: their mean scores.
        shares: for each method the share of resamples at rank 1, 2, ...; each row and each column adds up to 1.
        count: items that every method could score.
        clusters: patients that these belong to.
        undefined: items left out because some method could not score them.
        how: resamples and seed.
        note: why there are no shares, or what to mistrust; empty if nothing.
    """

    names: tuple[str, ...]
    means: tuple[float, ...]
    shares: tuple[tuple[float, ...], ...]
    count: int
    clusters: int
    undefined: int
    how: str
    note: str = ""


@dataclass(frozen=True)
class CriticalDifference:
    """Mean ranks over patients, and how far two must lie apart to differ.

    Args:
        names: the methods, best mean rank first.
        ranks: their mean ranks, 1 is best.
        difference: mean ranks nearer than this are not told apart; NaN without two patients.
        statistic: of Friedman, corrected for ties.
        p: of no difference among all of them.
        groups: names that are not told apart, as the bars of the usual diagram.
        level: 1 minus the error over all pairs.
        clusters: patients ranked.
        undefined: items left out because some method could not score them.
        note: why something is NaN; empty if nothing.
    """

    names: tuple[str, ...]
    ranks: tuple[float, ...]
    difference: float
    statistic: float
    p: float
    groups: tuple[tuple[str, ...], ...]
    level: float
    clusters: int
    undefined: int
    note: str = ""


def compare(
    scores: ArrayLike,
    names: Sequence[str],
    clusters: ArrayLike | None = None,
    *,
    test: Literal["permutation", "wilcoxon"] = "permutation",
    by: Resampling = STANDARD,
) -> tuple[Comparison, ...]:
    """Every pair of methods: difference, effect and p after Holm, with patients as what varies.

    The permutation test flips the sign of all differences of a patient together (every flip up to 13 patients, else
    9,999 of them); Wilcoxon's ranks the patients' mean differences. Neither sees what a patient's own items vary by.

    Args:
        scores: one row an item, one column a method; NaN where undefined.
        names: of the columns.
        clusters: the patient of each item.
        test: of no difference.
        by: resamples and seed of the intervals, and seed of the flips.

    Raises:
        Unfit: unless there are two methods, each with its column.

    Source: holm1979simple.
    """
    table = _table(scores, names, 2)
    if test not in ("permutation", "wilcoxon"):
        raise Unfit(f"no test {test!r}", "take 'permutation' or 'wilcoxon'")
    pairs = [
        _pair(table[:, [i, j]], (names[i], names[j]), clusters, test, by) for i, j in combinations(range(len(names)), 2)
    ]
    return tuple(replace(c, adjusted=a) for c, a in zip(pairs, holm([c.p for c in pairs]), strict=True))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p of each, by Holm's steps; what has none (NaN) keeps none and does not count.

    Args:
        ps: one for each hypothesis.

    Source: holm1979simple; as statsmodels' ``multipletests``, which stops to collect garbage at every call.
    """
    given = np.asarray(ps, dtype=np.float64)
    # NaN sorts last
    order = np.argsort(given)[: int((~np.isnan(given)).sum())]
    steps = given[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(given), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()


def rank(
    scores: ArrayLike,
    names: Sequence[str],
    clusters: ArrayLike | None = None,
    *,
    higher_is_better: bool = True,
    by: Resampling = STANDARD,
) -> Ranking:
    """The ranks of methods by their mean scores, each with the share of resamples that give it.

    Patients are drawn anew and all methods ranked by the mean over the drawn items; those that tie share their ranks.
    The share is how firm a rank is against other patients like these, not against another metric or model.

    Args:
        scores: one row an item, one column a method; NaN where undefined. Items that any method lacks are left out.
        names: of the columns.
        clusters: the patient of each item.
        higher_is_better: whether high scores are good.
        by: resamples and seed.

    Raises:
        Unfit: unless there are two methods, each with its column.
    """
    table = _table(scores, names, 2)
    data = grouped(table if higher_is_better else -table, clusters)
    how = f"ranks of means in {by.times} resamples of {data.count} patients, seed {by.seed}"
    nan, sign = float("nan"), 1.0 if higher_is_better else -1.0
    if data.count < 2:
        means = sign * data.rows.mean(axis=0) if data.count else np.full(len(names), nan)
        bare = ((nan,) * len(names),) * len(names)
        note = "fewer than two patients with a score of every method: how firm a rank is cannot be said"
        return Ranking(tuple(names), _floats(means), bare, len(data.rows), data.count, data.undefined, how, note)
    shares, means = _shares(_resampled_means(data, by)), data.rows.mean(axis=0)
    order = np.argsort(-means, kind="stable")
    ordered = tuple(_floats(shares[i]) for i in order)
    found = tuple(names[i] for i in order)
    return Ranking(found, _floats(sign * means[order]), ordered, len(data.rows), data.count, data.undefined, how)


def critical_difference(
    scores: ArrayLike,
    names: Sequence[str],
    clusters: ArrayLike | None = None,
    *,
    higher_is_better: bool = True,
    level: float = 0.95,
) -> CriticalDifference:
    """Friedman's test over patients, and Nemenyi's distance that mean ranks must keep to differ.

    CD = q sqrt(k (k + 1) / (6 n)) for k methods on n patients, q of the studentized range over sqrt 2. Ranks forget by
    how much methods differ, and adding a poor method can change who differs: read it beside ``compare``.

    Args:
        scores: one row an item, one column a method; NaN where undefined. Items that any method lacks are left out.
        names: of the columns.
        clusters: the patient of each item; their mean scores are ranked.
        higher_is_better: whether high scores are good.
        level: 1 minus the error over all pairs.

    Raises:
        Unfit: unless there are three methods, each with its column.

    Source: demsar2006statistical.
    """
    table = _table(scores, names, 3)
    data = grouped(table if higher_is_better else -table, clusters)
    nan, k, n = float("nan"), len(names), data.count
    if n < 2:
        note = "fewer than two patients with a score of every method"
        nothing = (nan,) * k
        return CriticalDifference(tuple(names), nothing, nan, nan, nan, (), level, n, data.undefined, note)
    means = _patient_means(data)
    ranks = stats.rankdata(-means, axis=1)
    order = np.argsort(ranks.mean(axis=0), kind="stable")
    mean_ranks, found = ranks.mean(axis=0)[order], tuple(names[i] for i in order)
    distance = float(stats.studentized_range.ppf(level, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n)))
    statistic, p, note = nan, nan, "all methods tie on every patient"
    if np.ptp(ranks) > 0:
        tested = stats.friedmanchisquare(*means.T)
        statistic, p, note = float(tested.statistic), float(tested.pvalue), ""
    groups = tuple(tuple(found[i] for i in g) for g in _groups(mean_ranks, distance))
    return CriticalDifference(
        found, _floats(mean_ranks), distance, statistic, p, groups, level, n, data.undefined, note
    )


def _table(scores: ArrayLike, names: Sequence[str], least: int) -> Floats:
    """Scores as a table with a named column for each method."""
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(names) or len(set(names)) != len(names):
        raise Unfit(
            f"scores of shape {table.shape} and the methods {', '.join(names)}",
            "give one row an item, one column a method, and a name of its own for each column",
        )
    if len(names) < least:
        mend = "score another method on the same items" if least == 2 else "compare two by ``compare``"
        raise Unfit(f"{len(names)} methods where {least} or more are compared", mend)
    return table


def _pair(pair: Floats, names: tuple[str, str], clusters: ArrayLike | None, test: str, by: Resampling) -> Comparison:
    """Two methods; p is adjusted later."""
    gaps = pair[:, 0] - pair[:, 1]
    difference, data = interval(gaps, clusters, by=by), grouped(gaps, clusters)
    sums = np.add.reduceat(data.rows, data.starts[:-1]) if data.count else data.rows
    ahead = wilson(float(((np.sign(sums) + 1) / 2).sum()), data.count, by.level)
    ahead = replace(ahead, undefined=data.undefined)
    p = float("nan")
    if data.count >= 2:
        p = _flipped(sums, by.seed) if test == "permutation" else _signed_ranks(sums / np.diff(data.starts))
    return Comparison(*names, difference, ahead, p, float("nan"), f"{test} over {data.count} patients")


def _flipped(sums: Floats, seed: int) -> float:
    """Two-sided p of the sum of differences, the sign of each patient being as likely the other."""
    patients = len(sums)
    if 2**patients <= SIGNS:
        flips = 1 - 2 * (np.arange(2**patients)[:, None] >> np.arange(patients) & 1)
    else:
        # the signs that were found are one of the flips: p is never 0
        drawn = 1 - 2 * np.random.default_rng(seed).integers(0, 2, size=(SIGNS, patients), dtype=np.int8)
        flips = np.concatenate([np.ones((1, patients), dtype=np.int8), drawn])
    found = np.abs(flips @ sums)
    return float((found >= abs(sums.sum()) * (1 - 1e-12)).mean())


def _signed_ranks(means: Floats) -> float:
    """Two-sided p of Wilcoxon's test; patients without a difference count half on either side."""
    return float(stats.wilcoxon(means, zero_method="zsplit").pvalue) if means.any() else 1.0


def _patient_means(data: Grouped) -> Floats:
    """One row a patient."""
    return np.add.reduceat(data.rows, data.starts[:-1], axis=0) / np.diff(data.starts)[:, None]


def _resampled_means(data: Grouped, by: Resampling) -> Floats:
    """The mean over items of every method in each resample: "resample method"."""
    rng = np.random.default_rng(by.seed)
    often = rng.multinomial(data.count, np.full(data.count, 1 / data.count), size=by.times).astype(np.float64)
    sums = np.add.reduceat(data.rows, data.starts[:-1], axis=0)
    return (often @ sums) / (often @ np.diff(data.starts))[:, None]


def _shares(means: Floats) -> Floats:
    """For each method the share of resamples at each rank; ties share theirs."""
    # sums of the same scores in another order must still tie
    rounded = np.round(-means, 12)
    first, last = (stats.rankdata(rounded, method=m, axis=1) for m in ("min", "max"))
    places = np.arange(1, means.shape[1] + 1)
    held = (first[..., None] <= places) & (places <= last[..., None])
    return (held / (last - first + 1)[..., None]).mean(axis=0)


def _groups(ranks: NDArray[Any], distance: float) -> list[range]:
    """The longest runs of sorted mean ranks that lie within the distance."""
    runs: list[range] = []
    for start in range(len(ranks)):
        end = int(np.searchsorted(ranks, ranks[start] + distance + 1e-12, side="right"))
        if end - start > 1 and (not runs or end > runs[-1].stop):
            runs.append(range(start, end))
    return runs


def _floats(values: Floats) -> tuple[float, ...]:
    """As numbers that compare and that JSON knows."""
    return tuple(float(v) for v in values)
