"""Intervals of readings, where readers and patients are both a sample: the two-way bootstrap."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pellucid.statistics.bootstrap import STANDARD, Floats, Resampling, Statistic, labels, numbers, tails
from pellucid.statistics.errors import Unfit
from pellucid.statistics.interval import Interval

FEW_READERS = 5
# from how often each reader and each patient was drawn ("resample reader", "resample patient") to what came out
Asked = Callable[[NDArray[Any], NDArray[Any]], Floats]


@dataclass(frozen=True)
class Cells:
    """Defined reads with the numbers of their readers and patients.

    Args:
        rows: the values.
        reader: the number of each read's reader.
        patient: the number of each read's patient.
        readers: how many.
        patients: how many.
        undefined: reads left out because they are NaN.
    """

    rows: Floats
    reader: NDArray[np.intp]
    patient: NDArray[np.intp]
    readers: int
    patients: int
    undefined: int


def two_way(
    values: ArrayLike,
    readers: ArrayLike,
    patients: ArrayLike,
    statistic: Statistic | None = None,
    *,
    within: tuple[float, float] | None = None,
    by: Resampling = STANDARD,
) -> Interval:
    """An interval of a statistic of reads, for other readers on other patients: both are drawn anew, on their own.

    A read counts as often as its reader was drawn times as often as its patient was (the pigeonhole bootstrap). That
    alone counts three times what a read varies by itself, and is too narrow with few readers; so drawing only readers
    and only patients parts the variance, and the percentiles are stretched to V_r + V_p - V_own and to the tails of t
    with Satterthwaite's degrees of freedom. With fewer than five readers it is very wide, and the note says so.

    Args:
        values: one number, or one row of numbers, a read; NaN where undefined.
        readers: the reader of each read.
        patients: the patient of each read.
        statistic: from the rows to one number, NaN where it has none; None: the mean over reads.
        within: what the value cannot leave, such as 0 and 1, where bounds are cut.
        by: resamples, seed and level (the kind is as said).

    Raises:
        Unfit: if lengths differ, a label is missing or a value is infinite.

    Source: owen2007pigeonhole; the stretching is ours, checked by simulation.
    """
    cells, _ = _cells(values, readers, patients)
    if statistic is None and cells.rows.ndim != 1:
        raise Unfit("the mean of rows with several numbers is no single number", "pass a statistic of the rows")
    found = _interval(cells, _means(cells, slice(None)) if statistic is None else _any(cells, statistic), by)
    return _cut(found, within)


def two_way_gap(
    values: ArrayLike,
    readers: ArrayLike,
    patients: ArrayLike,
    first: ArrayLike,
    *,
    within: tuple[float, float] | None = None,
    by: Resampling = STANDARD,
) -> Interval:
    """An interval of the mean over some reads minus the mean over the others, both drawn together.

    For arms whose reads are no pairs: a reader or a patient with reads on both sides still counts on both at once.

    Args:
        values: one number a read; NaN where undefined.
        readers: the reader of each read.
        patients: the patient of each read.
        first: which reads (True) are those of the first mean.
        within: what the value cannot leave, such as -1 and 1, where bounds are cut.
        by: resamples, seed and level.

    Raises:
        Unfit: as of ``two_way``.
    """
    cells, defined = _cells(values, readers, patients)
    side = labels(first, len(defined), "sides").astype(bool)[defined]
    if cells.rows.ndim != 1:
        raise Unfit("the mean of rows with several numbers is no single number", "give one number a read")
    one, two = _means(cells, side), _means(cells, ~side)
    return _cut(_interval(cells, lambda r, p: one(r, p) - two(r, p), by), within)


def _cells(values: ArrayLike, readers: ArrayLike, patients: ArrayLike) -> tuple[Cells, NDArray[np.bool_]]:
    """Reads as numbers, and which are defined."""
    rows, defined = numbers(values)
    who, whose = labels(readers, len(rows), "readers"), labels(patients, len(rows), "patients")
    reader_names, reader = np.unique(who[defined], return_inverse=True)
    patient_names, patient = np.unique(whose[defined], return_inverse=True)
    lost = int((~defined).sum())
    return Cells(rows[defined], reader, patient, len(reader_names), len(patient_names), lost), defined


def _means(cells: Cells, chosen: NDArray[np.bool_] | slice) -> Asked:
    """The mean over chosen reads, of all resamples at once."""
    totals, sizes = np.zeros((2, cells.readers, cells.patients))
    where = cells.reader[chosen], cells.patient[chosen]
    np.add.at(totals, where, cells.rows[chosen])
    np.add.at(sizes, where, 1.0)

    def asked(by_reader: NDArray[Any], by_patient: NDArray[Any]) -> Floats:
        above, below = (((by_reader @ table) * by_patient).sum(axis=1) for table in (totals, sizes))
        return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)

    return asked


def _any(cells: Cells, statistic: Statistic) -> Asked:
    """Any statistic, asked once for each resample."""

    def asked(by_reader: NDArray[Any], by_patient: NDArray[Any]) -> Floats:
        often = (r[cells.reader] * p[cells.patient] for r, p in zip(by_reader, by_patient, strict=True))
        drawn = (np.repeat(cells.rows, n, axis=0) for n in often)
        return np.array([statistic(d) if len(d) else np.nan for d in drawn], dtype=np.float64)

    return asked


def _interval(cells: Cells, asked: Asked, by: Resampling) -> Interval:
    """Draw, and say in words where that gives nothing."""
    readers, patients, nan = cells.readers, cells.patients, float("nan")
    how = f"two-way bootstrap, B={by.times}, seed {by.seed}, {readers} readers x {patients} patients"

    def found(value: float, low: float, high: float, note: str) -> Interval:
        return Interval(value, low, high, by.level, len(cells.rows), patients, cells.undefined, how, note)

    if not len(cells.rows):
        return found(nan, nan, nan, "no read is defined" if cells.undefined else "there are no reads")
    value = float(asked(np.ones((1, readers), dtype=int), np.ones((1, patients), dtype=int))[0])
    if np.isnan(value):
        return found(value, nan, nan, "the statistic is undefined on these reads")
    if readers < 2 or patients < 2:
        what = "reader" if readers < 2 else "patient"
        return found(value, nan, nan, f"one {what}: nothing is known of how much {what}s differ")
    rng = np.random.default_rng(by.seed)
    often = tuple(rng.multinomial(n, np.full(n, 1 / n), size=by.times) for n in (readers, patients))
    drawn = asked(*often)
    kept = drawn[~np.isnan(drawn)]
    lost = len(drawn) - len(kept)
    if 2 * lost > len(drawn):
        return found(value, nan, nan, f"the statistic is undefined in {lost} of {len(drawn)} resamples")
    if np.ptp(kept) <= 1e-12 * np.abs(kept).max():
        return found(value, nan, nan, "every resample gives the same: a bootstrap cannot say how uncertain this is")
    stretch = _stretch(float(kept.var()), asked, often, by.level)
    low, high = (value + stretch * (end - value) for end in tails(kept, by.level))
    notes = [
        f"undefined in {lost} of {len(drawn)} resamples, which are left out" if lost else "",
        f"only {readers} readers: their spread is hardly known" if readers < FEW_READERS else "",
    ]
    return found(value, low, high, "; ".join(filter(None, notes)))


def _stretch(both: float, asked: Asked, often: tuple[NDArray[Any], NDArray[Any]], level: float) -> float:
    """By how much percentiles of drawing both must be stretched to be those of new readers on new patients."""
    by_reader, by_patient = often
    readers, patients = by_reader.shape[1] - 1, by_patient.shape[1] - 1
    of_reader = float(np.nanvar(asked(by_reader, np.ones_like(by_patient))))
    of_patient = float(np.nanvar(asked(np.ones_like(by_reader), by_patient)))
    own = max(both - of_reader - of_patient, 0.0) * (1 + 1 / readers) * (1 + 1 / patients)
    of_reader, of_patient = of_reader * (1 + 1 / readers), of_patient * (1 + 1 / patients)
    whole = max(of_reader + of_patient - own, own)
    df = whole**2 / (of_reader**2 / readers + of_patient**2 / patients + own**2 / (readers * patients))
    upper = (1 + level) / 2
    return math.sqrt(whole / both) * float(special.stdtrit(df, upper) / special.ndtri(upper))


def _cut(found: Interval, within: tuple[float, float] | None) -> Interval:
    """The interval, its known bounds cut to what there can be."""
    if within is None or not found.bounded:
        return found
    return replace(found, low=max(found.low, within[0]), high=min(found.high, within[1]))
