"""What the table of a study comes to: means with intervals, methods compared, and how firm their ranks are."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pellucid.statistics.bootstrap import STANDARD, Floats, Resampling
from pellucid.statistics.comparing import Comparison, CriticalDifference, Ranking, compare, critical_difference, rank
from pellucid.statistics.interval import Interval
from pellucid.study.estimates import estimate
from pellucid.study.table import STRATA, Row, between_0_and_1, groups_of, lost, values_of

_AXES = ("model", "target", "method", "metric")
_FEWEST_METHODS = 2


@dataclass(frozen=True)
class Line:
    """One metric of one method over the cases.

    Args:
        model: short name.
        target: as the study names it.
        method: with its parameters.
        metric: with its parameters.
        unit: of the value.
        direction: which way is better.
        mean: over items, patients drawn anew.
        reasons: why items are undefined, with how many.
        strata: by column and level.
    """

    model: str
    target: str
    method: str
    metric: str
    unit: str
    direction: str
    mean: Interval
    reasons: Mapping[str, int]
    strata: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)


@dataclass(frozen=True)
class Match:
    """The methods against each other, by one metric.

    Args:
        model: short name.
        target: as the study names it.
        metric: with its parameters.
        comparisons: every pair, p after Holm over the pairs of this metric.
        ranking: with the share of resamples at each rank; None: neither way is better.
        critical: mean ranks over patients; None: fewer than three methods, or neither way is better.
    """

    model: str
    target: str
    metric: str
    comparisons: tuple[Comparison, ...]
    ranking: Ranking | None
    critical: CriticalDifference | None = None


@dataclass(frozen=True)
class Summary:
    """What a study comes to.

    Args:
        lines: means.
        matches: comparisons, where there are several methods.
        failures: (case, model, reason) of those that came to nothing.
        skipped: (method, model, reason) of those that do not fit.
    """

    lines: tuple[Line, ...]
    matches: tuple[Match, ...]
    failures: tuple[tuple[str, str, str], ...]
    skipped: tuple[tuple[str, str, str], ...]

    def plain(self) -> dict[str, object]:
        """As JSON types; what is not finite is null."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def by_metric(summary: Summary) -> dict[tuple[str, str, str], list[Line]]:
    """The methods under each other: lines by model, target and metric.

    Args:
        summary: of a study.
    """
    found: dict[tuple[str, str, str], list[Line]] = {}
    for line in summary.lines:
        found.setdefault((line.model, line.target, line.metric), []).append(line)
    return found


def summarize(rows: Sequence[Row], by: Resampling = STANDARD) -> Summary:
    """Means, comparisons and ranks of a table.

    Args:
        rows: of a study.
        by: resamples, seed and level of every interval.
    """
    lines = tuple(_line(found, rows, by) for found in groups_of(rows, *_AXES).values())
    several = groups_of(rows, "model", "target", "metric")
    matches = [_match(found, by) for found in several.values() if len({r.method for r in found}) >= _FEWEST_METHODS]
    nothing = [r for r in rows if not r.metric and not r.method]
    failures = dict.fromkeys((r.case, r.model, r.reason) for r in nothing)
    skipped = dict.fromkeys((r.method, r.model, r.reason) for r in rows if not r.metric and r.method)
    return Summary(lines, tuple(matches), tuple(failures), tuple(skipped))


def _line(found: Sequence[Row], rows: Sequence[Row], by: Resampling) -> Line:
    first = found[0]
    missing = lost(rows, first.model, first.method)
    values, patients = values_of([*found, *missing])
    reasons = Counter(r.reason for r in (*found, *missing) if math.isnan(r.value))
    strata, shares = {}, between_0_and_1(first.metric)
    for column in STRATA:
        levels = [r.stratum(column) for r in found]
        if len(set(levels)) > 1:
            strata[column] = {
                name: estimate(*values_of([r for r in found if r.stratum(column) == name]), "mean", by, shares)
                for name in sorted(set(levels))
            }
    mean = estimate(values, patients, "mean", by, shares)
    return Line(*(str(getattr(first, a)) for a in _AXES), first.unit, first.direction, mean, dict(reasons), strata)


def _match(found: Sequence[Row], by: Resampling) -> Match:
    first = found[0]
    names, table, patients = side_by_side(found)
    compared = compare(table, names, patients, by=by)
    better = None if first.direction == "none" else first.direction == "higher"
    ranking = None if better is None else rank(table, names, patients, higher_is_better=better, by=by)
    critical = None
    if better is not None and len(names) > _FEWEST_METHODS:
        critical = critical_difference(table, names, patients, higher_is_better=better, level=by.level)
    return Match(first.model, first.target, first.metric, compared, ranking, critical)


def side_by_side(found: Sequence[Row]) -> tuple[list[str], Floats, list[str]]:
    """Methods, their scores "item method" with NaN where one has none, and the patient of each item.

    Args:
        found: rows of one model, target and metric.
    """
    names = list(dict.fromkeys(r.method for r in found))
    items = {key: n for n, key in enumerate(dict.fromkeys((r.case, r.seed) for r in found))}
    table, patients = np.full((len(items), len(names)), np.nan), [""] * len(items)
    for row in found:
        place = items[row.case, row.seed]
        table[place, names.index(row.method)] = row.value
        patients[place] = row.patient
    return names, table, patients


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
