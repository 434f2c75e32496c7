"""The number that a criterion is about, with the interval that its verdict is read from."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from scipy import stats

from pellucid.core.errors import InputError
from pellucid.guide.protocol import Statistic
from pellucid.statistics.bootstrap import Floats, Resampling, interval, paired
from pellucid.statistics.errors import Unfit
from pellucid.statistics.interval import Interval
from pellucid.statistics.proportions import clustered, needed

_QUANTILES = {"median": 0.5, "p95": 0.95}


@contextmanager
def fitting() -> Iterator[None]:
    """Numbers that cannot be analyzed are an input that cannot be used.

    Raises:
        InputError: in the words of the statistics.
    """
    try:
        yield
    except Unfit as error:
        raise InputError(error.problem, error.mend) from error


def estimate(
    values: Floats, units: Sequence[str], statistic: Statistic, by: Resampling, shares: bool = False
) -> Interval:
    """A statistic over the cases with its interval.

    The mean by drawing patients anew; a share by Wilson's, patients with several answers counting for what they are
    worth; a quantile by order statistics, which know that the largest value of a few cases is not the largest there is
    (where patients have several cases, by drawing patients anew, and the note says what that cannot).

    Args:
        values: one for each item; NaN where undefined.
        units: the patient of each.
        statistic: over the items.
        by: resamples, seed and level.
        shares: whether values lie between 0 and 1: then the mean of zeros and ones is a share.

    Raises:
        InputError: a share of values that are neither 0 nor 1.

    Source:
        efron1979bootstrap, wilson1927probable.
    """
    with fitting():
        if statistic == "mean" and shares and np.isin(values[~np.isnan(values)], (0.0, 1.0)).all():
            statistic = "share"  # hits of every patient: a bootstrap is mute there, and Wilson is not
        if statistic == "mean":
            return interval(values, list(units), by=by)
        if statistic == "share":
            return clustered(values, list(units), by.level)
        return _quantile(values, units, _QUANTILES[statistic], by)


def change(first: Floats, second: Floats, units: Sequence[str], statistic: Statistic, by: Resampling) -> Interval:
    """The statistic of the first less that of the second, over items that both could score.

    Args:
        first: one for each item; NaN where undefined.
        second: of the same items, in the same order.
        units: the patient of each.
        statistic: over the items.
        by: resamples, seed and level.
    """
    with fitting():
        if statistic in ("mean", "share"):
            return paired(first, second, list(units), by=by)
        of = _quantile_of(_QUANTILES[statistic])
        both = np.stack([first, second], axis=1)
        by = replace(by, kind="percentile")
        return interval(both, list(units), lambda rows: of(rows[:, 0]) - of(rows[:, 1]), by=by)


def still_needed(found: Interval, limit: float, statistic: Statistic, least: int) -> int | None:
    """Patients that are still needed before the verdict falls, if the estimate stays; None: that cannot be said.

    Args:
        found: the interval so far.
        limit: of the criterion.
        statistic: of the criterion.
        least: patients that the protocol asks for.
    """
    total = found.clusters_needed(limit)
    if statistic == "share" and found.clusters == found.count and 0 < limit < 1 and found.count:
        total = needed(found.value, limit, found.level)
    share = _QUANTILES.get(statistic)
    if share is not None and found.clusters and not found.bounded:
        # below this number no case is large enough to bound the quantile
        total = math.ceil(math.log((1 - found.level) / 2) / math.log(max(share, 1 - share)))
    if found.clusters == 0 or math.isnan(total):
        return least - found.clusters if least > found.clusters else None
    return None if math.isinf(total) else max(1, int(total) - found.clusters, least - found.clusters)


def _quantile(values: Floats, units: Sequence[str], share: float, by: Resampling) -> Interval:
    kept = values[~np.isnan(values)]
    clusters = len({u for u, v in zip(units, values, strict=True) if not math.isnan(v)})
    if clusters != len(kept):
        found = interval(values, list(units), _quantile_of(share), by=replace(by, kind="percentile"))
        note = "patients have several cases: no bound lies beyond the values found"
        return replace(found, note="; ".join(filter(None, [found.note, note])))
    how, lost = "order statistics", len(values) - len(kept)
    if not len(kept):
        nothing = (math.nan,) * 3
        return Interval(*nothing, by.level, 0, 0, lost, how, "no item is defined" if lost else "there are no items")
    ends = stats.quantile_test(kept, q=0.0, p=share).confidence_interval(by.level)
    low, high = float(ends.low), float(ends.high)
    open_ended = not (math.isfinite(low) and math.isfinite(high))
    note = f"{len(kept)} patients are too few to bound this quantile" if open_ended else ""
    return Interval(_quantile_of(share)(kept), low, high, by.level, len(kept), clusters, lost, how, note)


def _quantile_of(share: float) -> Callable[[Floats], float]:
    return lambda rows: float(np.quantile(rows, share))
