"""Intervals of readings, where readers and patients are both a sample: the two-way bootstrap."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pellucid.statistics.bootstrap import STANDARD, Floats, Resampling, Statistic, labels, numbers, tails
from pellucid.statistics.errors import Unfit
from pellucid.statistics.interval import Interval

FEW_READERS = 5


def two_way(
    values: ArrayLike,
    readers: ArrayLike,
    patients: ArrayLike,
    statistic: Statistic | None = None,
    *,
    by: Resampling = STANDARD,
) -> Interval:
    """An interval of a statistic of reads, by drawing readers and patients anew, each on their own.

    A read counts as often as its reader was drawn times as often as its patient was (the pigeonhole bootstrap), so
    that it says how other readers would do on other patients. It errs to the wide side: what a read varies by itself
    is counted about three times, which is little where each reader reads many patients. With fewer than five readers
    their spread is hardly known, and the note says so. The bounds are percentiles: BCa has no two-way form.

    Args:
        values: one number, or one row of numbers, a read; NaN where undefined.
        readers: the reader of each read.
        patients: the patient of each read.
        statistic: from the rows to one number, NaN where it has none; None: the mean over reads.
        by: resamples, seed and level.

    Raises:
        Unfit: if lengths differ, a label is missing or a value is infinite.

    Source: owen2007pigeonhole.
    """
    rows, defined = numbers(values)
    who, whose = labels(readers, len(rows), "readers"), labels(patients, len(rows), "patients")
    kept = rows[defined]
    reader_names, reader = np.unique(who[defined], return_inverse=True)
    patient_names, patient = np.unique(whose[defined], return_inverse=True)
    how = (
        f"two-way percentile bootstrap, B={by.times}, seed {by.seed}, "
        f"{len(reader_names)} readers x {len(patient_names)} patients"
    )
    lost = int((~defined).sum())

    def found(value: float, ends: tuple[float, float], note: str) -> Interval:
        return Interval(value, *ends, by.level, len(kept), len(patient_names), lost, how, note)

    nothing = (float("nan"), float("nan"))
    if not len(kept):
        return found(float("nan"), nothing, "no read is defined" if lost else "there are no reads")
    value = float((statistic or _mean)(kept))
    if np.isnan(value):
        return found(value, nothing, "the statistic is undefined on these reads")
    short = _too_few(len(reader_names), len(patient_names))
    if short:
        return found(value, nothing, short)
    drawn = _drawn(kept, reader, patient, statistic, by)
    return found(value, *_ends(drawn, len(reader_names), by.level))


def _mean(rows: Floats) -> float:
    """The mean, of rows of one number."""
    if rows.ndim != 1:
        raise Unfit("the mean of rows with several numbers is no single number", "pass a statistic of the rows")
    return float(rows.mean())


def _too_few(readers: int, patients: int) -> str:
    """Why nothing is known of how much readers or patients differ, if so."""
    if readers < 2:
        return "one reader: nothing is known of how much readers differ"
    return "one patient: nothing is known of how much patients differ" if patients < 2 else ""


def _drawn(
    rows: Floats, reader: NDArray[Any], patient: NDArray[Any], statistic: Statistic | None, by: Resampling
) -> Floats:
    """What each resample gave."""
    rng = np.random.default_rng(by.seed)
    readers, patients = int(reader.max()) + 1, int(patient.max()) + 1
    by_reader = rng.multinomial(readers, np.full(readers, 1 / readers), size=by.times)
    by_patient = rng.multinomial(patients, np.full(patients, 1 / patients), size=by.times)
    if statistic is None:
        totals, sizes = np.zeros((readers, patients)), np.zeros((readers, patients))
        np.add.at(totals, (reader, patient), rows)
        np.add.at(sizes, (reader, patient), 1.0)
        above = ((by_reader @ totals) * by_patient).sum(axis=1)
        below = ((by_reader @ sizes) * by_patient).sum(axis=1)
        return np.divide(above, below, out=np.full(by.times, np.nan), where=below > 0)
    given = []
    for r, p in zip(by_reader, by_patient, strict=True):
        resample = np.repeat(rows, r[reader] * p[patient], axis=0)
        given.append(statistic(resample) if len(resample) else float("nan"))
    return np.array(given, dtype=np.float64)


def _ends(drawn: Floats, readers: int, level: float) -> tuple[tuple[float, float], str]:
    """The bounds, and what is wrong with them."""
    kept = drawn[~np.isnan(drawn)]
    lost, nothing = len(drawn) - len(kept), (float("nan"), float("nan"))
    if 2 * lost > len(drawn):
        return nothing, f"the statistic is undefined in {lost} of {len(drawn)} resamples"
    if np.ptp(kept) <= 1e-12 * np.abs(kept).max():
        return nothing, "every resample gives the same: a bootstrap cannot say how uncertain this is"
    notes = [
        f"undefined in {lost} of {len(drawn)} resamples, which are left out" if lost else "",
        f"only {readers} readers: their spread is hardly known" if readers < FEW_READERS else "",
    ]
    return tails(kept, level), "; ".join(filter(None, notes))
