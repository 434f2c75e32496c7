"""Intervals by resampling patients: items of one patient stay together, undefined items are counted.

scipy draws and corrects (percentile, BCa); what is ours is what it must be told: clusters, strata, undefined values.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from pellucid.statistics.errors import Unfit
from pellucid.statistics.interval import Interval, checked_level

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], float]

FEW = 10
MOST_INDICES = 2_000_000


@dataclass(frozen=True)
class Resampling:
    """How often and by which chance patients are drawn anew.

    Args:
        times: resamples; 2,000 put the bounds of a 95% interval within about a tenth of its width of where they settle.
        seed: the same seed gives the same interval.
        level: of the interval, such as 0.95.
        kind: ``BCa`` corrects bias and skewness; ``percentile`` needs less of the statistic.
    """

    times: int = 2000
    seed: int = 0
    level: float = 0.95
    kind: Literal["BCa", "percentile"] = "BCa"

    def __post_init__(self) -> None:
        checked_level(self.level)
        if self.times < 100:
            raise Unfit(f"{self.times} resamples give no bound of an interval", "take 2000, or 100 for a rough look")
        if self.kind not in ("BCa", "percentile"):
            raise Unfit(f"no bootstrap of kind {self.kind!r}", "take 'BCa' or 'percentile'")

    @property
    def words(self) -> str:
        """Kind, resamples and seed as a reader reads them."""
        return f"{self.kind} bootstrap, B={self.times}, seed {self.seed}"


STANDARD = Resampling()


@dataclass(frozen=True)
class Grouped:
    """Defined items in the order of their clusters, ready to be drawn.

    Args:
        rows: the values, one row an item.
        starts: where each cluster begins, and the end of the last.
        strata: for each stratum the numbers of its clusters.
        undefined: items left out because they are NaN.
    """

    rows: Floats
    starts: NDArray[np.intp]
    strata: tuple[NDArray[np.intp], ...]
    undefined: int

    @property
    def count(self) -> int:
        """Clusters with at least one defined item."""
        return len(self.starts) - 1

    def drawn(self, clusters: NDArray[np.intp]) -> Floats:
        """The items of these clusters, as often as each was drawn.

        Args:
            clusters: numbers of clusters, repeated ones allowed.
        """
        chosen = clusters.astype(np.intp)
        sizes = np.diff(self.starts)[chosen]
        offsets = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self.rows[np.repeat(self.starts[:-1][chosen], sizes) + offsets]


def numbers(values: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """The rows of a table, and which of them are defined.

    Args:
        values: one number, or one row of numbers, an item; NaN where undefined.

    Raises:
        Unfit: if there are more axes, or a value is infinite.
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim not in (1, 2):
        raise Unfit(f"values have {rows.ndim} axes", "give one number or one row of numbers for each item")
    if np.isinf(rows).any():
        raise Unfit("a value is infinite", "mark what could not be scored as NaN: it is counted and left out")
    missing = np.isnan(rows)
    return rows, ~(missing if rows.ndim == 1 else missing.any(axis=1))


def labels(given: ArrayLike | None, count: int, what: str) -> NDArray[Any]:
    """One label an item; without labels each item stands alone.

    Args:
        given: the labels, or None.
        count: of the items.
        what: a word for the error, such as "clusters".

    Raises:
        Unfit: if the lengths differ or a label is missing.
    """
    if given is None:
        return np.arange(count)
    found = np.asarray(given)
    if found.shape != (count,):
        raise Unfit(f"{count} items and {what} of shape {found.shape}", f"give one of the {what} for each item")
    holes = int(blank(found).sum())
    if holes:
        raise Unfit(f"{holes} of {count} items have no label among the {what}", f"complete the {what}")
    # names of several types have no order
    return found.astype(str) if found.dtype == object else found


def blank(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where nothing is written: None, NaN, the NA of pandas, or an empty text.

    Args:
        values: labels or decisions.
    """
    if values.dtype.kind in "iub":
        return np.zeros(len(values), dtype=bool)
    return np.array([v is None or str(v) in ("nan", "NaN", "<NA>", "NaT", "") for v in values.tolist()], dtype=bool)


def grouped(values: ArrayLike, clusters: ArrayLike | None = None, strata: ArrayLike | None = None) -> Grouped:
    """Items by cluster, those with a NaN counted and left out.

    Args:
        values: one number, or one row of numbers, an item; NaN where undefined.
        clusters: the patient of each item; None if each item is a patient of its own.
        strata: what is drawn apart (site, device); the same for all items of a cluster.

    Raises:
        Unfit: if lengths differ, a value is infinite or a cluster lies in two strata.
    """
    rows, defined = numbers(values)
    who, where = labels(clusters, len(rows), "clusters"), labels(strata, len(rows), "strata")
    names, number = np.unique(who[defined], return_inverse=True)
    order = np.argsort(number, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(number, minlength=len(names)))]).astype(np.intp)
    parts = (np.arange(len(names), dtype=np.intp),) if strata is None else _parts(where[defined][order], starts)
    return Grouped(rows[defined][order], starts, parts, int((~defined).sum()))


def _parts(where: NDArray[Any], starts: NDArray[np.intp]) -> tuple[NDArray[np.intp], ...]:
    """The clusters of each stratum."""
    first = where[starts[:-1]]
    if (where != np.repeat(first, np.diff(starts))).any():
        raise Unfit("a cluster lies in two strata", "stratify by what a patient has once, such as the site")
    return tuple(np.flatnonzero(first == name).astype(np.intp) for name in np.unique(first))


def interval(
    values: ArrayLike,
    clusters: ArrayLike | None = None,
    statistic: Statistic | None = None,
    *,
    strata: ArrayLike | None = None,
    by: Resampling = STANDARD,
) -> Interval:
    """An interval of a statistic of items, by drawing patients anew.

    All items of a drawn patient come along, so that many images of one patient do not count as many patients. The
    percentiles are widened as t is wider than a normal; below 10 patients they are too narrow still, and the note says
    so. Where every resample gives the same the bounds are NaN, for a bootstrap has nothing to
    say there (of a proportion, ask ``proportions``).

    Args:
        values: one number, or one row of numbers, an item; NaN where undefined.
        clusters: the patient of each item; None if each item is a patient of its own.
        statistic: from the rows to one number, NaN where it has none; None: the mean over items.
        strata: what is drawn apart (site, device); the same for all items of a patient.
        by: resamples, seed, level and kind.

    Raises:
        Unfit: for lengths that differ, infinite values, a patient in two strata.

    Source: efron1987better, hesterberg2015teachers for the widening.
    """
    data = grouped(values, clusters, strata)
    return _bounds(data, _mean_of(data) if statistic is None else _any_of(data, statistic), by)


def paired(
    first: ArrayLike, second: ArrayLike, clusters: ArrayLike | None = None, *, by: Resampling = STANDARD
) -> Interval:
    """An interval of the mean of first minus second over the items that both could score.

    Args:
        first: scores of one method, one an item; NaN where undefined.
        second: scores of the other on the same items, in the same order.
        clusters: the patient of each item.
        by: resamples, seed, level and kind.

    Returns:
        The difference; ``undefined`` counts items that either method could not score.

    Raises:
        Unfit: if the scores are not of the same items.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != two.shape:
        raise Unfit(f"paired scores have shapes {one.shape} and {two.shape}", "give one score of each method an item")
    return interval(one - two, clusters, by=by)


def by_stratum(
    values: ArrayLike,
    strata: ArrayLike,
    clusters: ArrayLike | None = None,
    statistic: Statistic | None = None,
    *,
    by: Resampling = STANDARD,
) -> dict[str, Interval]:
    """An interval for each stratum (site, device, right or wrong prediction), in the order of their names.

    A patient may have items in several strata here: within each, patients are drawn anew.

    Args:
        values: one number, or one row of numbers, an item; NaN where undefined.
        strata: the stratum of each item.
        clusters: the patient of each item.
        statistic: from the rows to one number; None: the mean over items.
        by: resamples, seed, level and kind.

    Raises:
        Unfit: as of ``interval``.
    """
    rows = np.asarray(values, dtype=np.float64)
    where, who = labels(strata, len(rows), "strata"), labels(clusters, len(rows), "clusters")
    return {str(name): interval(rows[where == name], who[where == name], statistic, by=by) for name in np.unique(where)}


def _mean_of(data: Grouped) -> Callable[..., Floats]:
    """The mean over items from the sums of each cluster, for many resamples at once."""
    if data.rows.ndim != 1:
        raise Unfit("the mean of rows with several numbers is no single number", "pass a statistic of the rows")
    totals = np.add.reduceat(data.rows, data.starts[:-1]) if data.count else data.rows
    sizes = np.diff(data.starts).astype(np.float64)

    def mean(*parts: NDArray[np.intp], axis: int = -1) -> Floats:
        chosen = [p.astype(np.intp) for p in parts]
        above = sum(totals[c].sum(axis=axis) for c in chosen)
        return np.asarray(above / sum(sizes[c].sum(axis=axis) for c in chosen))

    return mean


def _any_of(data: Grouped, statistic: Statistic) -> Callable[..., Floats]:
    """Any statistic, asked once for each resample."""

    def asked(*parts: NDArray[np.intp], axis: int = -1) -> Floats:  # noqa: ARG001  scipy names the axis, the last
        lead = np.broadcast_shapes(*(p.shape[:-1] for p in parts))
        whole = np.concatenate([np.broadcast_to(p, (*lead, p.shape[-1])) for p in parts], axis=-1)
        flat = whole.reshape(-1, whole.shape[-1])
        return np.array([statistic(data.drawn(c)) for c in flat], dtype=np.float64).reshape(whole.shape[:-1])

    return asked


def _bounds(data: Grouped, statistic: Callable[..., Floats], by: Resampling) -> Interval:
    """Resample with scipy, and say in words where that gives nothing."""
    strata = len(data.strata)
    how = f"{by.words}, {data.count} clusters" + (f" in {strata} strata" if strata > 1 else "")

    def found(value: float, low: float, high: float, note: str) -> Interval:
        return Interval(value, low, high, by.level, len(data.rows), data.count, data.undefined, how, note)

    nan = float("nan")
    if not data.count:
        return found(nan, nan, nan, "no item is defined" if data.undefined else "there are no items")
    value = float(statistic(*data.strata))
    if np.isnan(value):
        return found(nan, nan, nan, "the statistic is undefined on these items")
    if min(len(s) for s in data.strata) < 2:
        whom = "one patient" if strata == 1 else "a stratum of one patient"
        return found(value, nan, nan, f"{whom}: nothing is known of how much patients differ")
    (low, high), note = _resampled(data.strata, statistic, replace(by, level=_expanded(by.level, data.count, strata)))
    few = f"only {data.count} patients: the interval is too narrow" if data.count < FEW else ""
    return found(value, low, high, "; ".join(filter(None, [note, few])))


def _expanded(level: float, clusters: int, strata: int) -> float:
    """The level whose percentiles reach as far as t does: those of few clusters are too narrow (Hesterberg)."""
    free = clusters - strata
    reach = math.sqrt(clusters / free) * float(special.stdtrit(free, (1 + level) / 2))
    return min(2 * float(special.ndtr(reach)) - 1, 1 - 1e-9)


def _resampled(
    strata: tuple[NDArray[np.intp], ...], statistic: Callable[..., Floats], by: Resampling
) -> tuple[tuple[float, float], str]:
    """The bounds, and what is wrong with them."""
    drawn = _by_scipy(strata, statistic, by, None)
    every = np.asarray(drawn.bootstrap_distribution)
    kept = every[~np.isnan(every)]
    lost = len(every) - len(kept)
    nothing = (float("nan"), float("nan"))
    if 2 * lost > len(every):
        return nothing, f"the statistic is undefined in {lost} of {len(every)} resamples"
    if np.ptp(kept) <= 1e-12 * np.abs(kept).max():
        return nothing, "every resample gives the same: a bootstrap cannot say how uncertain this is"
    note = f"undefined in {lost} of {len(every)} resamples, which are left out" if lost else ""
    if by.kind == "BCa":
        ends = _by_scipy(strata, statistic, by, replace(drawn, bootstrap_distribution=kept)).confidence_interval
        if np.isfinite(ends.low) and np.isfinite(ends.high):
            return (float(ends.low), float(ends.high)), note
        note = "; ".join(filter(None, [note, "BCa is undefined here: percentiles instead"]))
    return tails(kept, by.level), note


def _by_scipy(
    strata: tuple[NDArray[np.intp], ...], statistic: Callable[..., Floats], by: Resampling, drawn: Any
) -> Any:
    """Draw clusters of each stratum, or, once drawn, correct what they gave."""
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        # an undefined bound comes back as NaN, and the caller says why
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        return stats.bootstrap(
            strata,
            statistic,
            vectorized=True,
            axis=-1,
            n_resamples=by.times if drawn is None else 0,
            batch=max(1, MOST_INDICES // sum(len(s) for s in strata)),
            method="percentile" if drawn is None else "BCa",
            confidence_level=by.level,
            bootstrap_result=drawn,
            rng=np.random.default_rng(by.seed),
        )


def tails(drawn: Floats, level: float) -> tuple[float, float]:
    """The bounds that leave the same share of resamples on either side.

    Args:
        drawn: what the resamples gave.
        level: of the interval.
    """
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
