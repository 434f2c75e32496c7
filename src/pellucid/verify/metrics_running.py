"""Metrics: from the plan to the verdicts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import inf, isfinite
from pathlib import Path

import torch
from torch import Tensor

from pellucid.core.errors import MissingExtra
from pellucid.verify.apart import Answer, Job, ask_peers
from pellucid.verify.bridges import deviation
from pellucid.verify.demonstrations import Demonstration, shown
from pellucid.verify.evidence import Evidence
from pellucid.verify.metrics_defects import METRIC_DEFECTS
from pellucid.verify.metrics_formulas import METRIC_FORMULAS
from pellucid.verify.metrics_ours import Scored, exact, region_of, scored, two_valued
from pellucid.verify.metrics_plan import METRICS, PEERS, READINGS, MetricComparison
from pellucid.verify.plan import check_known
from pellucid.verify.subjects import Prepared, Subject
from pellucid.verify.verdict import Row, Verdict, Verification

Step = Callable[[str, int], None]
_NOISE = "MaxSensitivity:samples=6"  # whose noisy copies a demonstration gets


@dataclass(frozen=True)
class ChosenMetrics:
    """What is compared and shown.

    Args:
        comparisons: of metrics.
        demonstrations: of defects.
    """

    comparisons: tuple[MetricComparison, ...]
    demonstrations: tuple[Demonstration, ...] = ()

    @property
    def steps(self) -> int:
        """How many steps ``verify_metrics`` will tell."""
        return 2 * sum(len(c.on) for c in self.comparisons) + 2 * len(self.demonstrations)


@dataclass(frozen=True, eq=False)
class Pairing:
    """One comparison on one subject, with our side done.

    Args:
        comparison: as planned.
        prepared: subject.
        ours: our score.
        job: for the peer.
    """

    comparison: MetricComparison
    prepared: Prepared
    ours: Scored
    job: Job


def chosen_metrics(metrics: Sequence[str] = (), peers: Sequence[str] = ()) -> ChosenMetrics:
    """The part of the plan for some metrics and peers; empty: all. Defects are shown where no metric is chosen.

    Raises:
        UnknownName: a metric that is not compared, or no such peer; the message lists those there are.
    """
    names = sorted({c.name for c in METRICS})
    check_known(metrics, names, "compared metric")
    check_known(peers, PEERS, "peer with metrics")
    wanted, of = {m.lower() for m in metrics or names}, {p.lower() for p in peers or PEERS}
    return ChosenMetrics(
        tuple(c for c in METRICS if c.name.lower() in wanted and c.peer in of),
        () if metrics else tuple(d for d in METRIC_DEFECTS if d.peer in of),
    )


def verify_metrics(plan: ChosenMetrics, python: Path | None, step: Step) -> Verification:
    """Compare: our side first, then the peers in processes of their own, then the formulas where a number deviates.

    Args:
        plan: what is compared and shown.
        python: that has the peers which need an environment of their own.
        step: told what is done and how many steps of the whole that was.
    """
    started = time.perf_counter()
    made, pairings, rows, shows, defects = cache(exact), [], [], [], []
    for comparison, subject in ((c, s) for c in plan.comparisons for s in c.on):
        try:
            pairings.append(_paired(len(pairings), comparison, made(subject)))
        except MissingExtra as error:
            rows.append(_row(comparison, subject, error.problem))
        step(f"{comparison.name} on {subject.network}", 1)
    for d in plan.demonstrations:
        prepared = made(d.subject)
        seen = scored(_NOISE, "InputXGradient", prepared).seen
        handed = {"region": region_of(prepared), "seen": seen, "two": two_valued(prepared)}
        shows.append((d, Job(len(pairings) + len(shows), d.peer, d.call, prepared, d.options, None, handed)))
    jobs = [*(p.job for p in pairings), *(job for _, job in shows)]
    answers, versions = ask_peers(jobs, python, step)
    rows += [judge(p, answers[p.job.number]) for p in pairings]
    for d, job in shows:
        defects.append(shown(d, job.subject, answers[job.number]))
        step(f"{d.defect} of {d.peer}", 1)
    return Verification(rows, defects, versions, time.perf_counter() - started)


def _paired(number: int, comparison: MetricComparison, prepared: Prepared) -> Pairing:
    c = comparison
    region = ~region_of(prepared) if "rest" in c.hand else region_of(prepared)
    ours = scored(c.metric, c.explainer, prepared, region)
    handed = {"map": ours.map}
    for name in c.hand:
        handed |= {"region": region} if name in ("region", "rest") else {name: HANDS[name](ours, prepared)}
    return Pairing(c, prepared, ours, Job(number, c.peer, c.call, prepared, c.options, None, handed))


def _pieces(ours: Scored, prepared: Prepared) -> Tensor:
    """The parts that were hidden one after the other, numbered in this order: "item *space"."""
    return (ours.seen == prepared.x).all(2).sum(0)


def _others(ours: Scored, _prepared: Prepared) -> Tensor:
    """The label whose map was compared, of each item: "class 2" is 2."""
    return torch.tensor([int(names[0].rpartition(" ")[2]) for names in ours.score.detail["other"]])


# what is handed over besides the region
HANDS: dict[str, Callable[[Scored, Prepared], Tensor]] = {
    "seen": lambda ours, _: ours.seen,
    "pieces": _pieces,
    "other": _others,
}


def _row(comparison: MetricComparison, subject: Subject, reason: str) -> Row:
    """A comparison that was not run, or not yet."""
    settings = ", ".join(f"{name}={value}" for name, value in comparison.options.get("settings", {}).items())
    region = ", region inverted" if "rest" in comparison.hand else ""
    return Row(
        method=f"{comparison.metric} of {comparison.explainer}{region}",
        peer=comparison.peer,
        call=f"{comparison.call}({settings})" if settings else comparison.call,
        model=subject.network,
        image=f"{subject.image} {'x'.join(str(n) for n in subject.shape)}",
        compared=READINGS[comparison.reading].words,
        tolerance=comparison.tolerance,
        verdict=Verdict.NOT_RUN,
        reason=reason,
    )


def judge(pairing: Pairing, answer: Answer) -> Row:
    """The verdict on one pairing."""
    c, row = pairing.comparison, _row(pairing.comparison, pairing.prepared.subject, answer.reason)
    if answer.reason:
        return row
    reading = READINGS[c.reading]
    ours = reading.ours(pairing.ours, pairing.prepared)
    theirs = answer.found["value"].double() * reading.theirs(pairing.ours, pairing.prepared)
    row = replace(row, here=float(ours[0].mean()), there=float(theirs[0].mean()))
    if not bool(torch.isfinite(ours).all()):
        return replace(row, verdict=Verdict.DIFFERS, reason=next(filter(None, pairing.ours.score.reasons), "undefined"))
    return _compared(row, pairing, ours, theirs)


def _compared(row: Row, pairing: Pairing, ours: Tensor, theirs: Tensor) -> Row:
    """Equal, or explained by the formula with its defects mended, or different."""
    gap = _off(ours, theirs)
    if gap <= row.tolerance:
        return replace(row, verdict=Verdict.EQUAL, deviation=gap)
    row = replace(row, deviation=gap if isfinite(gap) else None)
    if not pairing.comparison.formula:
        return replace(row, verdict=Verdict.DIFFERS)
    formula = METRIC_FORMULAS[pairing.comparison.formula]
    evidence = Evidence(pairing.prepared, torch.zeros(0), pairing.job.handed)
    right = formula.values(evidence, frozenset())
    as_it_is, mended = _off(formula.values(evidence, formula.defects), theirs), _off(ours, right)
    holds = as_it_is <= row.tolerance and mended <= row.tolerance
    alone = {d: _off(formula.values(evidence, frozenset({d})), right) for d in sorted(formula.defects)}
    defects = tuple(d for d, off in alone.items() if off > row.tolerance)
    verdict = Verdict.EXPLAINED if holds and defects else Verdict.DIFFERS
    return replace(row, verdict=verdict, defects=defects, as_it_is=as_it_is, mended=mended)


def _off(numbers: Tensor, right: Tensor) -> float:
    """``deviation``; infinite where there is another number of numbers."""
    return deviation(numbers, right) if numbers.shape == right.shape else inf
