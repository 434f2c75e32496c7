"""Criteria about readers, from a table with one row a read."""

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pellucid.core.errors import BadOption, InputError
from pellucid.guide.protocol import Criterion, Protocol
from pellucid.statistics.bootstrap import Resampling
from pellucid.statistics.crossed import two_way_gap
from pellucid.statistics.decisions import amounts, decisions
from pellucid.statistics.errors import Unfit
from pellucid.statistics.impact import impact
from pellucid.statistics.interval import Interval
from pellucid.statistics.merits import roc
from pellucid.statistics.multireader import analyze
from pellucid.statistics.reads import column, crossed
from pellucid.statistics.reliance import calibration, reliance
from pellucid.study.estimates import fitting, still_needed
from pellucid.study.verdicts import Finding, side_of, verdict_of

Columns = Mapping[str, list[str]]
Arms = tuple[str, str]

READS = "reads."
MAP_ARMS = ("ai+map", "ai+xai", "score+map", "map", "xai")
SCORE_ARMS = ("ai", "aiscore", "score", "aionly")
_KEYS = ("arm", "against")


@dataclass(frozen=True)
class Reads:
    """A table of reads.

    Args:
        columns: text by name.
        arms: with the map, and what it is held against; None: told by their names.
    """

    columns: Columns
    arms: Arms | None = None

    def __call__(self, criterion: Criterion, protocol: Protocol, by: Resampling) -> Finding:
        """A criterion about readers, judged from its interval.

        Args:
            criterion: whose metric is ``reads.NAME``.
            protocol: that asks for readers and patients.
            by: resamples, seed and level.

        Raises:
            InputError: a table that cannot be analyzed; its words say what is missing.
        """
        check_reading(criterion)
        measure, _ = MEASURES[criterion.metric.removeprefix(READS)]
        with fitting():
            found = measure(self.columns, self._arms(criterion), by)
            readers = len(set(column(self.columns, "reader_id").tolist()))
        if criterion.transform != "none":
            found = replace(found, value=1 - found.value, low=1 - found.high, high=1 - found.low)
        return _judged(criterion, protocol, found, readers)

    def _arms(self, criterion: Criterion) -> Arms:
        named = [criterion.parameters.get(key) for key in _KEYS]
        there = sorted(set(column(self.columns, "arm").tolist()))
        told = self.arms or (None, None)
        chosen = [n or t or _known(there, k) for n, t, k in zip(named, told, (MAP_ARMS, SCORE_ARMS), strict=True)]
        missing = [key for key, arm in zip(_KEYS, chosen, strict=True) if arm not in there]
        if missing:
            raise Unfit(
                f"criterion {criterion.id!r} needs two arms, and the one it calls {missing[0]!r} is not among "
                f"{', '.join(there)}",
                "name both with --arms WITH_MAP,WITHOUT, or by arm and against in the criterion's parameters",
            )
        return str(chosen[0]), str(chosen[1])


def check_reading(criterion: Criterion) -> None:
    """See that a criterion about readers is one.

    Args:
        criterion: whose metric is ``reads.NAME``.

    Raises:
        BadOption: no such measure, another unit, a parameter or statistic that it does not take.
    """
    name = criterion.metric.removeprefix(READS)
    what = f"criterion {criterion.id!r}"
    if name not in MEASURES:
        raise BadOption(f"{what}: there is no measure of readers {name!r}", f"there are: {', '.join(MEASURES)}")
    if criterion.unit != MEASURES[name][1]:
        raise BadOption(
            f"{what} has the unit {criterion.unit!r}, and reads.{name} is in {MEASURES[name][1]!r}",
            "write the measure's unit, and a value in that unit",
        )
    odd = [k for k in criterion.parameters if k not in _KEYS]
    if odd or criterion.statistic != "mean":
        wrong = f"no parameter {odd[0]!r}" if odd else f"no statistic {criterion.statistic!r}"
        raise BadOption(f"{what}: reads.{name} has {wrong}", f"parameters: {', '.join(_KEYS)}; leave out statistic")


def read_reads(path: Path, arms: Arms | None = None) -> Reads:
    """A table of reads from a CSV.

    Args:
        path: of the CSV; its columns are those of ``docs/evidence.md``.
        arms: with the map, and what it is held against; None: told by their names.

    Raises:
        InputError: no such table, or rows with more or fewer cells than the header.
    """
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("the table of reads cannot be read as CSV in UTF-8", "save it as CSV UTF-8") from error
    header, rows = [c.strip() for c in (lines or [[]])[0]], [r for r in lines[1:] if any(c.strip() for c in r)]
    if not rows or "reader_id" not in header:
        raise InputError(
            "expected a table with a column reader_id and one row a read, got none", "docs/evidence.md lists columns"
        )
    odd = [n for n, row in enumerate(rows, 1) if len(row) != len(header)]
    if odd or len(set(header)) < len(header):
        what = f"read {odd[0]} has another number of cells than the header" if odd else "a column is there twice"
        raise InputError(f"in the table of reads, {what}", "correct the table")
    return Reads({name: [row[n].strip() for row in rows] for n, name in enumerate(header)}, arms)


def _judged(criterion: Criterion, protocol: Protocol, found: Interval, readers: int) -> Finding:
    asked, state = protocol.population, verdict_of(found, criterion)
    words = [f"{found.count} reads of {readers} readers and {found.clusters} patients"]
    words += [f"{found.undefined} reads undefined"] if found.undefined else []
    words += [found.note] if found.note else []
    if not found.count:
        return Finding(criterion, "NOT MEASURED", "; ".join(words), found)
    for there, wanted, what in ((found.clusters, asked.min_units, "patients"), (readers, asked.readers, "readers")):
        if state == "PASS" and there < wanted:
            state = "INCONCLUSIVE"
            words.append(f"the protocol asks for {wanted} {what}")
    if state != "INCONCLUSIVE":
        return Finding(criterion, state, "; ".join(words), found)
    more = still_needed(found, criterion.value, "mean", asked.min_units)
    return Finding(criterion, state, "; ".join(words), found, more, side_of(found, criterion))


def _known(there: list[str], names: tuple[str, ...]) -> str | None:
    plain = {a.lower().replace(" ", "").replace("_", ""): a for a in there}
    return next((plain[n] for n in names if n in plain), None)


def _paired(columns: Columns, arms: Arms) -> bool:
    """Whether some reader read some case in both arms: else each patient belongs to one arm."""
    arm, who, case = (column(columns, c).tolist() for c in ("arm", "reader_id", "case_id"))
    one, two = ({(r, c) for a, r, c in zip(arm, who, case, strict=True) if a == name} for name in arms)
    return bool(one & two)


def _impact(name: str) -> Callable[[Columns, Arms, Resampling], Interval]:
    return lambda columns, arms, by: getattr(impact(columns, *arms, paired=_paired(columns, arms), by=by), name)


def _in_arm(name: str) -> Callable[[Columns, Arms, Resampling], Interval]:
    return lambda columns, arms, by: getattr(reliance(columns, by=by)[arms[0]], name)


def _calibrated(name: str) -> Callable[[Columns, Arms, Resampling], Interval]:
    return lambda columns, arms, by: getattr(calibration(columns, by=by)[arms[0]], name)


def _followed(over: bool) -> Callable[[Columns, Arms, Resampling], Interval]:
    """How much more often readers follow a wrong machine (or leave a right one) with the map than without."""

    def gap(columns: Columns, arms: Arms, by: Resampling) -> Interval:
        reads = decisions(columns)
        first, machine = (0, 1) if over else (1, 0)
        among = (reads.machine_right == first) & (reads.first_right == machine) & np.isin(reads.arm, arms)
        event = (reads.follows if over else 1 - reads.follows)[among]
        side = reads.arm[among] == arms[0]
        if not side.any() or side.all():
            nothing = (float("nan"),) * 3
            note = "in one arm no first decision could be led astray" if over else "in one arm none could be helped"
            return Interval(*nothing, by.level, 0, 0, int(np.isin(reads.arm, arms).sum()), "", note)
        return two_way_gap(event, reads.reader[among], reads.patient[among], side, within=(-1, 1), by=by)

    return gap


def _auc(columns: Columns, arms: Arms, by: Resampling) -> Interval:
    """The area under the ROC curve with the map less that without, after Obuchowski, Rockette and Hillis."""
    here = np.isin(column(columns, "arm"), arms)
    kept = {name: column(columns, name)[here] for name in columns}
    laid = crossed(kept, incomplete="leave out")
    ratings, truth = laid.spread(amounts(kept, "final_rating")), laid.of_case(amounts(kept, "truth"), "truth")
    whose = laid.of_case(column(kept, "patient_id"), "patient_id") if "patient_id" in kept else None
    found = analyze(roc(ratings, truth, whose), laid.arms, level=by.level).rrrc.differences[0]
    gap = replace(found.difference, undefined=found.difference.undefined + laid.left_out)
    return gap if found.first == arms[0] else replace(gap, value=-gap.value, low=-gap.high, high=-gap.low)


MEASURES: Mapping[str, tuple[Callable[[Columns, Arms, Resampling], Interval], str]] = {
    "accuracy": (_impact("accuracy"), "1"),
    "accuracy_where_wrong": (_impact("where_wrong"), "1"),
    "accuracy_where_right": (_impact("where_right"), "1"),
    "seconds": (_impact("seconds"), "s"),
    "sureness": (_impact("sureness"), "points"),
    "over_reliance": (_followed(over=True), "1"),
    "under_reliance": (_followed(over=False), "1"),
    "over_reliance_with_map": (_in_arm("over"), "1"),
    "under_reliance_with_map": (_in_arm("under"), "1"),
    "rair": (_in_arm("rair"), "1"),
    "rsr": (_in_arm("rsr"), "1"),
    "trust": (_calibrated("trust"), "1"),
    "brier": (_calibrated("brier"), "1"),
    "ece": (_calibrated("ece"), "1"),
    "auc": (_auc, "1"),
}
