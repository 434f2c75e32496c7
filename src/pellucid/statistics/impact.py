"""What one arm of a reader study does to decisions that another does not: right, sure, fast.

From a table of reads as ``decisions`` describes it. Intervals draw readers and patients anew.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pellucid.statistics.bootstrap import STANDARD, Floats, Resampling
from pellucid.statistics.crossed import two_way, two_way_gap
from pellucid.statistics.decisions import Decisions, amounts, decisions
from pellucid.statistics.errors import Unfit
from pellucid.statistics.interval import Interval

if TYPE_CHECKING:
    from pellucid.statistics.reads import Table


@dataclass(frozen=True)
class Impact:
    """One arm minus another.

    Args:
        first: an arm.
        second: another.
        where_wrong: share of right final decisions, on cases where the machine is wrong: look here first.
        where_right: the same on cases where the machine is right.
        accuracy: the same on all cases: it can hide harm.
        sureness: of the final decision, in the table's unit.
        seconds: from first view to final decision.
    """

    first: str
    second: str
    where_wrong: Interval
    where_right: Interval
    accuracy: Interval
    sureness: Interval
    seconds: Interval


def impact(table: "Table", first: str, second: str, *, paired: bool = True, by: Resampling = STANDARD) -> Impact:
    """Decisions of one arm against those of another: what is right, how sure, how fast.

    Paired, each reader's read of a case in one arm is held against the same reader's of the same case in the other,
    and one without its partner is undefined and counted. Not paired, each patient belongs to one arm. Order and
    learning are not taken out: randomize them.

    Args:
        table: of reads; ``final_confidence``, ``t_first_view`` and ``t_final`` (seconds) where they were taken.
        first: an arm.
        second: the arm it is held against, such as the machine's score without a map.
        paired: whether readers read the same cases in both arms.
        by: resamples, seed and level.

    Raises:
        Unfit: as of ``decisions``; for an arm that is not there, or patients in both arms if not paired.
    """
    reads = decisions(table)
    for arm in (first, second):
        if arm not in reads.arms or first == second:
            raise Unfit(f"cannot hold {first!r} against {second!r}", f"name two of the arms {', '.join(reads.arms)}")
    here = np.isin(reads.arm, (first, second))
    if not paired:
        _apart(reads, first, second)
    seconds = amounts(table, "t_final") - amounts(table, "t_first_view")
    if (seconds < 0).any():
        raise Unfit(
            f"{int((seconds < 0).sum())} reads end before they begin", "take both times from one clock, in seconds"
        )

    def gap(values: Floats, among: NDArray[np.bool_] = here, most: float = np.inf) -> Interval:
        found = (_pairs if paired else _groups)(reads, values, among & here, (first, second), by)
        return replace(found, low=max(found.low, -most), high=min(found.high, most)) if found.bounded else found

    right = reads.final_right
    wrong_machine, right_machine = (
        _why(gap(right, reads.machine_right == x, 1.0), f"no case of both arms where the machine is {word}")
        for x, word in ((0, "wrong"), (1, "right"))
    )
    sure = _why(gap(amounts(table, "final_confidence")), "final_confidence was not taken in both arms")
    fast = _why(gap(seconds), "t_first_view and t_final were not taken in both arms")
    accuracy = _why(gap(right, here, 1.0), "no read has a decision and a truth in both arms")
    return Impact(first, second, wrong_machine, right_machine, accuracy, sure, fast)


def _pairs(
    reads: Decisions, values: Floats, among: NDArray[np.bool_], arms: tuple[str, str], by: Resampling
) -> Interval:
    """The mean difference over reader and case, where both arms have the read."""
    key = reads.reader[among] * (reads.case.max() + 1) + reads.case[among]
    names, place = np.unique(key, return_inverse=True)
    table = np.full((2, len(names)), np.nan)
    side = (reads.arm[among] == arms[1]).astype(int)
    table[side, place] = values[among]
    reader, patient = np.zeros((2, len(names)), dtype=int)
    reader[place], patient[place] = reads.reader[among], reads.patient[among]
    return two_way(table[0] - table[1], reader, patient, by=by)


def _groups(
    reads: Decisions, values: Floats, among: NDArray[np.bool_], arms: tuple[str, str], by: Resampling
) -> Interval:
    """The difference of means of two arms that share no patient."""
    side = reads.arm[among] == arms[0]
    return two_way_gap(values[among], reads.reader[among], reads.patient[among], side, by=by)


def _apart(reads: Decisions, first: str, second: str) -> None:
    """Every patient belongs to one arm."""
    both = np.intersect1d(*(reads.patient[reads.arm == a] for a in (first, second)))
    if len(both):
        raise Unfit(
            f"{len(both)} patients are read in both {first} and {second}, in a study whose arms are not paired",
            "leave their reads out of one arm, or compare pairs (paired=True) if each reader read each case in both",
        )


def _why(found: Interval, note: str) -> Interval:
    """The interval, with a reason in the reader's words where nothing is defined."""
    return found if found.count else replace(found, note=note)
