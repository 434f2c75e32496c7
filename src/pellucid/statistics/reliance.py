"""Whether readers follow the machine where it is right and not where it is wrong, and whether their trust knows which.

From a table of reads as ``decisions`` describes it. Intervals draw readers and patients anew.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pellucid.statistics.bootstrap import STANDARD, Floats, Resampling
from pellucid.statistics.crossed import two_way
from pellucid.statistics.decisions import Decisions, amounts, decisions
from pellucid.statistics.errors import Unfit
from pellucid.statistics.interval import Interval
from pellucid.statistics.proportions import wilson

if TYPE_CHECKING:
    from pellucid.statistics.reads import Table

BINS = 10


@dataclass(frozen=True)
class Reliance:
    """How readers follow the machine in one arm.

    Args:
        over: the final decision is the machine's, among reads where it was wrong and the reader at first right.
        under: the final decision is not the machine's, among reads where it was right and the reader at first wrong.
        rair: relative reliance on the machine: finally right, among the reads of ``under``.
        rsr: relative reliance on oneself: finally right, among the reads of ``over``.
    """

    over: Interval
    under: Interval
    rair: Interval
    rsr: Interval


@dataclass(frozen=True)
class Calibration:
    """Whether trust goes to the machine where it is right, and sureness to decisions that are right.

    Args:
        trust: area under the ROC curve of trust for the machine being right; 0.5 is blind trust.
        brier: mean squared distance of sureness (0 to 1) from being right (0 or 1); 0 is best.
        ece: mean distance of sureness from the share that is right, over ten bins; 0 is best.
    """

    trust: Interval
    brier: Interval
    ece: Interval


def reliance(table: "Table", *, by: Resampling = STANDARD) -> dict[str, Reliance]:
    """Over- and under-reliance in each arm, from decisions before and after the machine was shown.

    With two classes RSR is 1 - over and RAIR 1 - under; with more, a reader may end at a third. Reads without a first
    decision or a machine (an unaided arm) are undefined and counted. Where none or all follow, the bootstrap is mute,
    and Wilson's interval counts each reader (or patient, if fewer) as one answer.

    Args:
        table: of reads, with ``initial_decision`` and ``ai_label``.
        by: resamples, seed and level.

    Raises:
        Unfit: as of ``decisions``.

    Source: schemmer2023appropriate.
    """
    reads = decisions(table)
    known = ~np.isnan(reads.machine_right + reads.first_right + reads.follows)
    misled = known & (reads.machine_right == 0) & (reads.first_right == 1)
    helped = known & (reads.machine_right == 1) & (reads.first_right == 0)
    found = {}
    for arm in reads.arms:
        here = reads.arm == arm
        lost = int((here & ~known).sum())
        over, rsr = (_share(reads, e, here & misled, lost, by) for e in (reads.follows, reads.final_right))
        under, rair = (_share(reads, e, here & helped, lost, by) for e in (1 - reads.follows, reads.final_right))
        none_misled = "no read has the machine wrong and the first decision right"
        none_helped = "no read has the machine right and the first decision wrong"
        found[arm] = Reliance(
            _why(over, none_misled), _why(under, none_helped), _why(rair, none_helped), _why(rsr, none_misled)
        )
    return found


def calibration(
    table: "Table", *, scale: tuple[float, float] = (0.0, 100.0), by: Resampling = STANDARD
) -> dict[str, Calibration]:
    """How well trust and sureness of each arm's readers go with being right.

    Reads are pooled: readers who use the scale of trust differently blur its area. ECE is never negative, so that it
    is above 0 also for readers without fault, the more the fewer reads there are.

    Args:
        table: of reads, with ``trust`` and ``ai_label``, or ``final_confidence``, or both; a missing column leaves
            its figures undefined.
        scale: least and greatest value of ``final_confidence``.
        by: resamples, seed and level.

    Raises:
        Unfit: as of ``decisions``; for values outside the scale.
    """
    reads, trust, sure = decisions(table), amounts(table, "trust"), amounts(table, "final_confidence")
    low, high = scale
    if not low < high or (sure < low).any() or (sure > high).any():
        raise Unfit(
            f"final_confidence from {np.nanmin(sure):g} to {np.nanmax(sure):g} on a scale of {low:g} to {high:g}",
            "give the ends of the scale that readers saw",
        )
    trusted = np.column_stack([trust, reads.machine_right])
    sured = np.column_stack([(sure - low) / (high - low), reads.final_right])
    found = {}
    for arm in reads.arms:
        here = reads.arm == arm
        who, whose = reads.reader[here], reads.patient[here]
        trust_area = two_way(trusted[here], who, whose, _area, within=(0, 1), by=by)
        if np.isnan(trust_area.value) and trust_area.count:
            trust_area = replace(trust_area, note="the machine is always right, or always wrong, in these reads")
        misses = np.square(sured[here, 0] - sured[here, 1])
        brier = two_way(misses, who, whose, within=(0, 1), by=by)
        found[arm] = Calibration(trust_area, brier, two_way(sured[here], who, whose, _ece, within=(0, 1), by=by))
    return found


def _share(reads: Decisions, event: Floats, among: NDArray[np.bool_], lost: int, by: Resampling) -> Interval:
    """How often it happens among these reads."""
    found = two_way(event[among], reads.reader[among], reads.patient[among], within=(0, 1), by=by)
    found = replace(found, undefined=found.undefined + lost)
    readers, patients = (len(np.unique(x[among])) for x in (reads.reader, reads.patient))
    if found.value in (0.0, 1.0) and min(readers, patients) > 1:
        worth = min(readers, patients)
        ends = wilson(found.value * worth, worth, by.level)
        how = f"Wilson, each {'reader' if readers <= patients else 'patient'} as one answer"
        return replace(found, low=ends.low, high=ends.high, how=how, note="all reads alike: no bootstrap")
    return found


def _why(found: Interval, note: str) -> Interval:
    """The interval, with a reason in the reader's words where no read counts."""
    return found if found.count else replace(found, note=note)


def _area(rows: Floats) -> float:
    """How often trust is higher where the machine is right, ties half; NaN if it always is, or never."""
    right = rows[:, 1] == 1
    yes, no = int(right.sum()), int((~right).sum())
    if not yes or not no:
        return float("nan")
    ranks = stats.rankdata(rows[:, 0])
    return float((ranks[right].sum() - yes * (yes + 1) / 2) / (yes * no))


def _ece(rows: Floats) -> float:
    """Mean distance of sureness from the share that is right, over bins of equal width."""
    bins = np.minimum((rows[:, 0] * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, rows[:, 0] - rows[:, 1], BINS)
    return float(np.abs(gaps).sum() / len(rows))
