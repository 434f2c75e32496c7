"""Hold a protocol against the table of a study: verdicts from intervals, and what is still missing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pellucid.core.errors import BadOption, InputError, PellucidError, UnknownName
from pellucid.core.metric import Metric
from pellucid.guide.protocol import Criterion, Protocol
from pellucid.statistics.bootstrap import Floats, Resampling
from pellucid.statistics.interval import Interval
from pellucid.study.estimates import change, estimate, still_needed
from pellucid.study.plan import metric_of
from pellucid.study.stopping import Stopped, bounds_of, level_of, sequential, transformed
from pellucid.study.table import STRATA, Row, between_0_and_1, lost
from pellucid.study.verdicts import Change, Finding, Level, Side, Verdict, side_of, verdict_of
from pellucid.workbench.registry import make_explainer, spell

TIMES = 4000
_UP = (">", ">=")

Readings = Callable[[Criterion, Protocol, Resampling], Finding]


@dataclass(frozen=True)
class Bench:
    """A study to hold protocols against.

    Args:
        rows: its table.
        readings: answers criteria about readers; None: there is no table of reads.
        against: the table of an earlier study; None: there is none.
        stopped: how a study that could stop early ended: then verdicts rest on sequences; None: it could not.
    """

    rows: Sequence[Row]
    readings: Readings | None = None
    against: Sequence[Row] | None = None
    stopped: Stopped | None = None


@dataclass(frozen=True)
class Choice:
    """Which of several to judge.

    Args:
        model: short name; None: each.
        target: as the study names it; None: each.
        method: as ``--method`` takes it; None: each.
    """

    model: str | None = None
    target: str | None = None
    method: str | None = None


def gate(bench: Bench, protocol: Protocol, choice: Choice | None = None, seed: int = 0) -> tuple[Verdict, ...]:
    """Each method of a study by a protocol.

    PASS where the whole interval lies on the right side of the limit, FAIL where all of it lies on the wrong side, else
    INCONCLUSIVE. The intervals together hold at the protocol's level (Bonferroni over all of its criteria).

    Args:
        bench: the study.
        protocol: criteria with their sources.
        choice: of model, target, method.
        seed: of the resamples.

    Raises:
        PellucidError: a criterion with an unknown metric, parameter or unit; a stratum that there is none of; nothing
            of the name that was chosen.
    """
    wanted = {c.id: metric_of(c) for c in protocol.criteria}
    unknown = [s for s in protocol.population.strata if s not in STRATA]
    if unknown:
        raise BadOption(f"protocol {protocol.id} names a stratum {unknown[0]!r}", f"strata: {', '.join(STRATA)}")
    level = level_of(protocol)
    by = Resampling(times=TIMES, seed=seed, level=level)
    chosen = _subjects(bench.rows, choice or Choice())
    notes = (*_notes(protocol, level, len(chosen)), *_ended(bench.stopped))
    found = []
    for subject in chosen:
        judge = _Judge(bench, protocol, subject, by)
        findings = [judge.finding(c, wanted[c.id]) for tier in _tiers(protocol) for c in tier]
        found.append(Verdict(protocol, *subject, tuple(findings), notes))
    return tuple(found)


Subject = tuple[str, str, str]  # model, target, method


@dataclass(frozen=True)
class _Judge:
    """One method of a study before a protocol."""

    bench: Bench
    protocol: Protocol
    subject: Subject
    by: Resampling

    def finding(self, criterion: Criterion, metric: Metric | None) -> Finding:
        """The criterion, judged."""
        if metric is None:
            if self.bench.readings is None:
                return Finding(criterion, "NOT MEASURED", "there is no table of reads")
            return self.bench.readings(criterion, self.protocol, self.by)
        name = spell(metric)
        rows = self._rows(self.bench.rows, self.subject, name)
        if not rows:
            return Finding(criterion, "NOT MEASURED", self._absent(name, metric))
        self._check_unit(criterion, rows)
        missing = lost(self.bench.rows, self.subject[0], self.subject[2])
        values, units = self._values([*rows, *missing], criterion)
        found = self._estimate(values, units, criterion, name)
        finding = self._judged(criterion, found, [*rows, *missing])
        levels = self._levels(criterion, rows)
        return replace(finding, levels=levels, change=self._change(criterion, rows, name))

    def _judged(self, criterion: Criterion, found: Interval, rows: Sequence[Row]) -> Finding:
        state, population = verdict_of(found, criterion), self.protocol.population
        unit = population.unit + ("" if found.clusters == 1 else "s")
        words = [f"{found.clusters} {unit}"]
        if found.undefined:
            reasons = dict.fromkeys(r.reason for r in rows if math.isnan(r.value))
            why = f" ({'; '.join(list(reasons)[:2])})" if reasons else ""
            words.append(f"{found.undefined} of {found.undefined + found.count} items undefined{why}")
        words += [found.note] if found.note else []
        if state == "PASS" and found.clusters < population.min_units:
            state = "INCONCLUSIVE"
            words.append(f"the protocol asks for {population.min_units}")
        readers = min((r.readers for r in rows if not math.isnan(r.value)), default=0)
        if state == "PASS" and criterion.tier == "readers" and readers < population.readers:
            state = "INCONCLUSIVE"
            words.append(f"marked by {readers} readers where the protocol asks for {population.readers}")
        if not found.count:
            return Finding(criterion, "NOT MEASURED", "; ".join(words), found)
        if state != "INCONCLUSIVE":
            return Finding(criterion, state, "; ".join(words), found)
        # a sequence narrows as the interval of a mean does, whatever it is the sequence of
        statistic = criterion.statistic if self.bench.stopped is None else "mean"
        more = still_needed(found, criterion.value, statistic, population.min_units)
        return Finding(criterion, state, "; ".join(words), found, more, side_of(found, criterion))

    def _levels(self, criterion: Criterion, rows: Sequence[Row]) -> tuple[Level, ...]:
        levels = []
        for column in self.protocol.population.strata:
            names = sorted({r.stratum(column) for r in rows})
            for name in names if len(names) > 1 else ():
                values, units = self._values([r for r in rows if r.stratum(column) == name], criterion)
                found = self._estimate(values, units, criterion, rows[0].metric)
                levels.append(
                    Level(column, name, verdict_of(found, criterion) if found.count else "NOT MEASURED", found)
                )
        return tuple(levels)

    def _change(self, criterion: Criterion, rows: Sequence[Row], name: str) -> Change | None:
        if self.bench.against is None:
            return None
        before = {(r.case, r.seed): r for r in self._rows(self.bench.against, self._earlier(), name)}
        pairs = [(r, before[r.case, r.seed]) for r in rows if (r.case, r.seed) in before]
        same = [(now, then) for now, then in pairs if now.content == then.content]
        unpaired = len(rows) - len(same)
        note = f"{unpaired} of {len(rows)} items have no partner" if unpaired else ""
        if len(pairs) > len(same):
            note += f" ({len(pairs) - len(same)} because the case itself changed)"
        now, units = self._values([one for one, _ in same], criterion)
        then, _ = self._values([other for _, other in same], criterion)
        if self.bench.stopped is None:
            found = change(now, then, units, criterion.statistic, self.by)
        else:
            ends = bounds_of(name, self.bench.stopped.bounds)
            apart = None if ends is None else (ends[0] - ends[1], ends[1] - ends[0])
            found = sequential(now - then, units, replace(criterion, transform="none", value=0.0), apart, self.by.level)
        return Change(found, _side(found, criterion), note)

    def _estimate(self, values: Floats, units: list[str], criterion: Criterion, metric: str) -> Interval:
        """By the bootstrap, or by the sequence where the study could stop early."""
        stopped = self.bench.stopped
        if stopped is None:
            return estimate(values, units, criterion.statistic, self.by, between_0_and_1(metric))
        return sequential(values, units, criterion, bounds_of(metric, stopped.bounds), self.by.level)

    def _earlier(self) -> Subject:
        """The model, target and method of the earlier study: the only model there may have another name."""
        model, target, method = self.subject
        known = {r.model for r in self.bench.against or ()}
        if model not in known and len(known) != 1:
            raise UnknownName(f"the earlier study has no model {model!r}", f"it has: {', '.join(sorted(known))}")
        return (model if model in known else next(iter(known)), target, method)

    def _rows(self, rows: Sequence[Row], subject: Subject, metric: str) -> list[Row]:
        return [r for r in rows if (r.model, r.target, r.method) == subject and r.metric == metric]

    def _values(self, rows: Sequence[Row], criterion: Criterion) -> tuple[Floats, list[str]]:
        values = np.array([r.value for r in rows], dtype=np.float64)
        # a study that may stop takes patients, whose cases come one after the other
        by_patient = self.protocol.population.unit == "patient" or self.bench.stopped is not None
        return transformed(values, criterion), [r.patient if by_patient else r.case for r in rows]

    def _absent(self, name: str, metric: Metric) -> str:
        """Why a metric is not in the table."""
        own = [r for r in self.bench.rows if (r.model, r.target, r.method) == self.subject]
        others = dict.fromkeys(r.metric for r in own if r.metric.partition(":")[0] == metric.name)
        if others:
            return f"the study measured {', '.join(others)}, and the protocol asks for {name}"
        skipped = [r.reason for r in lost(self.bench.rows, self.subject[0], self.subject[2]) if r.method]
        return skipped[0] if skipped else f"the study did not measure {name}"

    @staticmethod
    def _check_unit(criterion: Criterion, rows: Sequence[Row]) -> None:
        units = sorted({r.unit for r in rows} - {criterion.unit})
        if units:
            raise BadOption(
                f"criterion {criterion.id!r} is in {criterion.unit!r}, and the study measured in {units[0]!r}",
                "give criterion and study the same unit",
            )


def _side(found: Interval, criterion: Criterion) -> Side:
    up = criterion.relation in _UP
    if found.low > 0:
        return "better" if up else "worse"
    if found.high < 0:
        return "worse" if up else "better"
    return "no clear change"


def _ended(stopped: Stopped | None) -> list[str]:
    if stopped is None:
        return []
    how = "verdicts rest on betting sequences over patients, which hold wherever a study ends, and on no bootstrap"
    return [stopped.why, how]


def _tiers(protocol: Protocol) -> list[list[Criterion]]:
    return [[c for c in protocol.criteria if c.tier == tier] for tier in ("automated", "readers", "prospective")]


def _notes(protocol: Protocol, level: float, count: int) -> tuple[str, ...]:
    criteria = len(protocol.criteria)
    notes = [
        f"each of {criteria} criteria is judged by an interval at {100 * level:.4g}%, so that all together hold "
        f"at {100 * protocol.confidence:g}% (Bonferroni)"
    ]
    if protocol.indicative:
        status = {s: sum(c.source_status == s for c in protocol.criteria) for s in ("interpreted", "unverified")}
        told = ", ".join(f"{n} {s}" for s, n in status.items() if n)
        notes.append(f"at most INDICATIVE: of {criteria} criteria {told}")
    if count > 1:
        notes.append(
            f"{count} were judged, each on its own: to take the one that passes is a choice made after the fact"
        )
    return tuple(notes)


def _subjects(rows: Sequence[Row], choice: Choice) -> list[Subject]:
    """Model, target and method of each verdict."""
    known = list(dict.fromkeys((r.model, r.target, r.method) for r in rows if r.metric))
    # a method that fits no model has no target: it is told under each target that there is
    targets = list(dict.fromkeys((m, t) for m, t, _ in known))
    skipped = dict.fromkeys((r.model, r.method) for r in rows if r.method and not r.metric)
    known += [(m, t, s) for (m2, s) in skipped for m, t in targets if m == m2 and (m, t, s) not in known]
    if not known:
        raise InputError("the study has no scores", "see its table: every case came to nothing")
    method = choice.method
    for what, place, wanted in (("model", 0, choice.model), ("target", 1, choice.target), ("method", 2, method)):
        if wanted is None:
            continue
        names = list(dict.fromkeys(k[place] for k in known))
        name = wanted if wanted in names else _spelled(wanted) if what == "method" else wanted
        if name not in names:
            raise UnknownName(f"the study has no {what} {wanted!r}", f"it has: {', '.join(names)}")
        known = [k for k in known if k[place] == name]
    return known


def _spelled(method: str) -> str:
    try:
        return spell(make_explainer(method))
    except PellucidError:
        return method  # the message of the caller lists those there are
