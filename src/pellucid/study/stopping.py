"""When a study may end early: its patients in a seeded order, and intervals that hold however often one looks."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pellucid.core.errors import BadOption, PellucidError
from pellucid.guide.protocol import Criterion, Protocol
from pellucid.io.table import Row as CaseRow
from pellucid.io.table import is_table, read_table
from pellucid.statistics.bootstrap import Floats
from pellucid.statistics.errors import Unfit
from pellucid.statistics.interval import Interval
from pellucid.statistics.sequences import ConfidenceSequence, betting
from pellucid.study.plan import Study, metric_of
from pellucid.study.table import Row
from pellucid.study.verdicts import State, verdict_of
from pellucid.workbench.registry import make_metric, spell

Bounds = tuple[float, float]
Listed = CaseRow | tuple[int, PellucidError]
_CARD = re.compile(r"(-?\d+(?:\.\d+)?) (?:to|or) (-?\d+(?:\.\d+)?)")
_SHARES = ("mean", "share")


@dataclass(frozen=True)
class Stopped:
    """How a study with a stopping rule ended.

    Args:
        protocol: that was watched.
        seed: of the order of patients.
        bounds: stated by the study file, by metric.
        taken: patients.
        spared: patients that were not needed; 0: all were taken.
        why: in words.
    """

    protocol: str
    seed: int
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    taken: int = 0
    spared: int = 0
    why: str = ""


@dataclass(frozen=True)
class Watch:
    """The criteria that a study may stop by.

    Args:
        protocol: that they belong to.
        watched: criteria by the metric that each is about.
        apart: why each of the others cannot stop a study.
        bounds: stated by the study file, by metric.
    """

    protocol: Protocol
    watched: tuple[tuple[Criterion, str], ...]
    apart: tuple[str, ...]
    bounds: Mapping[str, Bounds]

    @classmethod
    def of(cls, study: Study) -> "Watch | None":
        """What a study may stop by; None: it may not.

        Args:
            study: the plan.

        Raises:
            BadOption: no criterion of its protocol can be watched.
        """
        protocol = study.stopping
        if protocol is None:
            return None
        watched, apart = [], []
        for criterion in protocol.criteria:
            metric = metric_of(criterion)
            reason = _unwatched(criterion, None if metric is None else spell(metric), study.bounds)
            if metric is None or reason:
                apart.append(f"{criterion.id} ({reason})")
            else:
                watched.append((criterion, spell(metric)))
        if not watched:
            raise BadOption(
                f"no criterion of {protocol.id} can stop a study: {'; '.join(apart)}",
                "state the bounds of a metric in stop.bounds, or leave [stop] out",
            )
        return cls(protocol, tuple(watched), tuple(apart), study.bounds)

    def states(self, rows: Sequence[Row]) -> list[State]:
        """Each watched criterion for each model, target and method, as far as the patients so far settle it.

        Args:
            rows: of the patients so far, in the order in which they came.
        """
        level = level_of(self.protocol)
        found: list[State] = []
        for subject in dict.fromkeys((r.model, r.target, r.method) for r in rows if r.metric):
            for criterion, metric in self.watched:
                own = [r for r in rows if (r.model, r.target, r.method, r.metric) == (*subject, metric)]
                values = transformed(np.array([r.value for r in own], dtype=np.float64), criterion)
                interval = sequential(
                    values, [r.patient for r in own], criterion, bounds_of(metric, self.bounds), level
                )
                state = verdict_of(interval, criterion)
                few = state == "PASS" and interval.clusters < self.protocol.population.min_units
                found.append("INCONCLUSIVE" if few else state)
        return found

    def ended(self, states: Sequence[State], seed: int, taken: int, every: int) -> Stopped:
        """The end of the study in words.

        Args:
            states: of the last look.
            seed: of the order of patients.
            taken: patients.
            every: patients that there are.
        """
        undecided = sum(s == "INCONCLUSIVE" for s in states)
        if states and not undecided:
            why = f"every criterion of {self.protocol.id} that can be watched is settled for every method"
        else:
            why = f"{undecided} of {len(states)} watched criteria (by method) of {self.protocol.id} are not settled"
        start = (
            f"stopped after {taken} of {every} patients, {every - taken} spared"
            if taken < every
            else (f"all {every} patients were taken")
        )
        cannot = f"; not watched: {', '.join(self.apart)}" if self.apart else ""
        return Stopped(self.protocol.id, seed, self.bounds, taken, every - taken, f"{start}: {why}{cannot}")


def level_of(protocol: Protocol) -> float:
    """Of the interval of each criterion, so that all together hold at the protocol's confidence (Bonferroni).

    Args:
        protocol: with its criteria.
    """
    return 1 - (1 - protocol.confidence) / len(protocol.criteria)


def bounds_of(metric: str, stated: Mapping[str, Bounds]) -> Bounds | None:
    """The least and the greatest value that there can be; None: nobody knows.

    Args:
        metric: with its parameters.
        stated: by the study file.
    """
    if metric in stated:
        low, high = stated[metric]
        return low, high
    card = _CARD.fullmatch(make_metric(metric).card.interval)
    return (float(card[1]), float(card[2])) if card else None


def transformed(values: Floats, criterion: Criterion) -> Floats:
    """Values as the criterion counts them.

    Args:
        values: of its metric.
        criterion: of a protocol.
    """
    return 1 - values if criterion.transform == "1 - value" else values


def sequential(
    values: Floats, patients: Sequence[str], criterion: Criterion, bounds: Bounds | None, level: float
) -> Interval:
    """The mean over patients with bounds that hold at whichever patient the study ended.

    Wider than a bootstrap's interval; each patient counts once, also one with several items. Without bounds of the
    scores, for a quantile, or where a score lies outside its bounds there is no interval, and the note says why.

    Args:
        values: as the criterion counts them, in the order in which they came; NaN where undefined.
        patients: the patient of each.
        criterion: with its statistic.
        bounds: of the metric; None: not known.
        level: of the sequence.

    Source:
        waudbysmith2024estimating.
    """
    defined = values[~np.isnan(values)]
    lost = len(values) - len(defined)
    if bounds is not None and criterion.transform == "1 - value":
        bounds = (1 - bounds[1], 1 - bounds[0])
    reason = _unbounded(criterion, bounds)
    if bounds is not None and not reason:
        try:
            found = betting(values, list(patients), bounds=bounds, level=level)
            return replace(
                found.last,
                count=len(defined),
                note="; ".join(filter(None, [found.last.note, _since(found, criterion)])),
            )
        except Unfit as error:
            reason = error.problem
    mean = float(defined.mean()) if len(defined) else math.nan
    clusters = len({p for p, v in zip(patients, values, strict=True) if not math.isnan(v)})
    note = f"no interval holds where a study may stop early: {reason}"
    return Interval(mean, math.nan, math.nan, level, len(defined), clusters, lost, "mean of items", note)


def in_order(study: Study) -> tuple[list[Listed], list[bool]]:
    """The rows of the cases, patients in a seeded order with all their cases; and whether each is its patient's last.

    Args:
        study: with a stopping rule.

    Raises:
        BadOption: the cases are no table.
    """
    if study.cases.is_dir() or not is_table(study.cases):
        raise BadOption(
            "expected a table of cases for a study that may stop, got a folder or an image",
            "write a cases.csv with the columns image and patient",
        )
    groups: dict[str, list[Listed]] = {}
    for n, row in enumerate(read_table(study.cases)):
        patient = row.patient if isinstance(row, CaseRow) else None
        groups.setdefault(f"patient {patient}" if patient else f"row {n}", []).append(row)
    seed = study.plan.stop.seed if study.plan.stop is not None else 0
    names = list(groups)
    order = [groups[names[i]] for i in np.random.default_rng(seed).permutation(len(names))]
    ends = [n == len(group) - 1 for group in order for n in range(len(group))]
    return [row for group in order for row in group], ends


def _unwatched(criterion: Criterion, metric: str | None, stated: Mapping[str, Bounds]) -> str:
    if metric is None:
        return "readers: their analysis knows no early stop"
    return _unbounded(criterion, bounds_of(metric, stated))


def _unbounded(criterion: Criterion, bounds: Bounds | None) -> str:
    if criterion.statistic not in _SHARES:
        return f"a {criterion.statistic} has no sequence here"
    return "its scores have no known bounds" if bounds is None else ""


def _since(found: ConfidenceSequence, criterion: Criterion) -> str:
    """After how many patients the verdict was settled."""
    for n, (mean, low, high) in enumerate(zip(found.means, found.lows, found.highs, strict=True), 1):
        if verdict_of(Interval(mean, low, high, found.level, n, n, 0, found.how), criterion) != "INCONCLUSIVE":
            return f"settled after {n} patients"
    return ""
