"""From the plan to the verdicts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from pellucid.core.errors import MissingExtra
from pellucid.core.explainer import Explainer
from pellucid.verify.apart import Answer, Job, ask_peers
from pellucid.verify.bridges import BRIDGES, deviation
from pellucid.verify.channels import CHANNEL_FORMULAS
from pellucid.verify.cohorts import effects
from pellucid.verify.demonstrations import DEMONSTRATIONS, Demonstration, shown
from pellucid.verify.evidence import Evidence
from pellucid.verify.formulas import FORMULAS
from pellucid.verify.games import GAME_FORMULAS
from pellucid.verify.handing import HANDS, Method
from pellucid.verify.lifting import LIFT_FORMULAS, LIFTS, SHORTFALLS
from pellucid.verify.ours import Explained, explained
from pellucid.verify.parts import PARTS
from pellucid.verify.plan import MAPS, OF_THE_RANGE, PEERS, PLACES, SIDE_BY_SIDE, TOLERANCES, Comparison, check_known
from pellucid.verify.relevance import LOSSES, RELEVANCES
from pellucid.verify.subjects import Prepared, Subject, prepare
from pellucid.verify.verdict import Row, Shown, Verdict, Verification
from pellucid.workbench.registry import cohort_methods, explainers, make_cohort_method, make_explainer

Step = Callable[[str, int], None]
PLAN = (*MAPS, *PARTS, *LIFTS, *RELEVANCES)
ALL_DEFECTS = (*DEMONSTRATIONS, *SHORTFALLS, *LOSSES)
ALL_FORMULAS = FORMULAS | CHANNEL_FORMULAS | GAME_FORMULAS | LIFT_FORMULAS
_MOST_ERRORS, _SHARP = 4.0, 0.25  # standard errors, of some 12 values at once; the largest against the largest value


@dataclass(frozen=True, eq=False)
class Pairing:
    """One comparison on one subject, with our side done.

    Args:
        comparison: as planned.
        prepared: subject.
        ours: our map and our noise.
        job: for the peer.
    """

    comparison: Comparison
    prepared: Prepared
    ours: Explained
    job: Job


@dataclass(frozen=True)
class Chosen:
    """What is compared and shown.

    Args:
        comparisons: of maps.
        demonstrations: of defects.
    """

    comparisons: tuple[Comparison, ...]
    demonstrations: tuple[Demonstration, ...] = ()

    @property
    def steps(self) -> int:
        """How many steps ``verify`` will tell."""
        return 3 * sum(len(c.on) for c in self.comparisons) + 2 * len(self.demonstrations)


def chosen(methods: Sequence[str] = (), peers: Sequence[str] = ()) -> Chosen:
    """The part of the plan for some methods and peers; empty: all. Defects are shown where no method is chosen.

    Raises:
        UnknownName: a method that is not compared, or no such peer; the message lists those there are.
    """
    names = sorted({c.name for c in PLAN})
    check_known(methods, names, "compared method")
    check_known(peers, PEERS, "peer")
    wanted, of = {m.lower() for m in methods or names}, {p.lower() for p in peers or PEERS}
    return Chosen(
        tuple(c for c in PLAN if c.name.lower() in wanted and c.peer.lower() in of),
        () if methods else tuple(d for d in ALL_DEFECTS if d.peer.lower() in of),
    )


def verify(plan: Chosen, python: Path | None, step: Step) -> Verification:
    """Compare: our side first, then the peers in processes of their own, then the formulas where a map deviates.

    Args:
        plan: what is compared and shown.
        python: that has the peers which need an environment of their own.
        step: told what is done and how many steps of the whole that was.
    """
    started = time.perf_counter()
    subjects = _Subjects()
    pairings, rows = _our_side(plan.comparisons, subjects, step)
    shows, defects = [], []
    for d in plan.demonstrations:
        prepared = subjects.get(d.subject)
        if isinstance(prepared, Prepared):
            shows.append((d, Job(len(pairings) + len(shows), d.peer, d.call, prepared, d.options)))
        else:
            defects.append(Shown(d.defect, d.peer, "", "", Verdict.NOT_RUN, prepared))
    jobs = [*(p.job for p in pairings), *(job for _, job in shows)]
    answers, versions = ask_peers(jobs, python, step)
    for pairing in pairings:
        rows.append(judge(pairing, answers[pairing.job.number]))
        step(f"{pairing.comparison.name} and {pairing.comparison.peer}", 1)
    for d, job in shows:
        defects.append(shown(d, job.subject, answers[job.number]))
        step(f"{d.defect} of {d.peer}", 1)
    return Verification(rows, defects, versions, time.perf_counter() - started)


class _Subjects:
    """Each subject made once; a text says why one cannot be made."""

    def __init__(self) -> None:
        self._made: dict[Subject, Prepared | str] = {}

    def get(self, subject: Subject) -> Prepared | str:
        if subject not in self._made:
            try:
                self._made[subject] = prepare(subject)
            except MissingExtra as error:
                self._made[subject] = error.problem
        return self._made[subject]


def _our_side(plan: Sequence[Comparison], subjects: _Subjects, step: Step) -> tuple[list[Pairing], list[Row]]:
    """Each method once for each subject, however many peers it meets; and rows of what cannot be compared."""
    maps: dict[tuple[str, Subject], Explained] = {}
    pairings, missing = [], []
    for comparison, subject in ((c, s) for c in plan for s in c.on):
        prepared, key = subjects.get(subject), (comparison.method, subject)
        if not isinstance(prepared, Prepared):
            missing.append(_row(comparison, subject, prepared))
            continue
        if key not in maps:
            maps[key] = _explained(comparison.method, prepared)
        pairings.append(Pairing(comparison, prepared, maps[key], _job(len(pairings), comparison, prepared, maps[key])))
        step(f"{comparison.name} on {subject.network}", 1)
    return pairings, missing


def _made(method: str, subject: Subject) -> Method:
    cohort = method.partition(":")[0] in cohort_methods()
    return make_cohort_method(method) if cohort else make_explainer(_with_layer(method, subject))


def _explained(method: str, prepared: Prepared) -> Explained:
    made = _made(method, prepared.subject)
    return explained(made, prepared) if isinstance(made, Explainer) else effects(made, prepared)


def _with_layer(method: str, subject: Subject) -> str:
    """The method as text, with the subject's layer where it reads one."""
    name, _, settings = method.partition(":")
    layered = any(p.name == "layer" for p in explainers()[name].parameters())
    parts = [settings] if settings else []
    return f"{name}:{','.join([*parts, f'layer={subject.layer}'])}" if layered else method


def _job(number: int, comparison: Comparison, prepared: Prepared, ours: Explained) -> Job:
    c, options, noise = comparison, dict(comparison.options), None
    if c.noise == PLACES:
        options["shares"] = _places(ours.noise, prepared.x)
    elif c.noise:
        options["draws"], noise = len(ours.noise), _laid_out(c.noise, ours.noise, prepared.x)
    handed = HANDS[c.hand](prepared, _made(c.method, prepared.subject), ours) if c.hand else {}
    return Job(number, c.peer, c.call, prepared, options, noise, handed)


def _places(noise: Tensor, x: Tensor) -> list[float]:
    """Where on the path from zero to the image the network was asked; the reference itself is none of them."""
    found = 1 + (noise * x).flatten(1).sum(1) / (x * x).sum()
    return [float(a) for a in found if a > 0]


def _laid_out(layout: str, noise: Tensor, x: Tensor) -> Tensor:
    """The draws "draw batch channel *space" as a peer asks for them, one entry a call."""
    if layout == SIDE_BY_SIDE:  # all in one call, those of one item together
        return noise.transpose(0, 1).flatten(0, 1)[None]
    if layout == OF_THE_RANGE:
        spread = x.amax(tuple(range(1, x.ndim)), keepdim=True) - x.amin(tuple(range(1, x.ndim)), keepdim=True)
        return noise / spread
    return noise


def _row(comparison: Comparison, subject: Subject, reason: str) -> Row:
    """A comparison that was not run, or not yet."""
    return Row(
        method=comparison.method,
        peer=comparison.peer,
        call=comparison.call,
        model=" ".join(filter(None, (subject.network, subject.layer))),
        image=f"{subject.image} {'x'.join(str(n) for n in subject.shape)}",
        compared=BRIDGES[comparison.bridge].words,
        tolerance=comparison.tolerance or TOLERANCES[comparison.peer],
        verdict=Verdict.NOT_RUN,
        reason=reason,
    )


def judge(pairing: Pairing, answer: Answer) -> Row:
    """The verdict on one pairing."""
    c, row = pairing.comparison, _row(pairing.comparison, pairing.prepared.subject, answer.reason)
    if answer.reason:
        return row
    theirs = answer.found[c.take].double()
    if not bool(theirs.flatten(1).any(1).all()):
        return replace(row, reason="the peer's map of an item is blank: nothing would be compared")
    return _compared(row, pairing, theirs, answer)


def _compared(row: Row, pairing: Pairing, theirs: Tensor, answer: Answer) -> Row:
    """Equal, or within the stated error, or explained by the formula with its defects mended, or different."""
    bridge = BRIDGES[pairing.comparison.bridge]
    evidence = Evidence(pairing.prepared, pairing.ours.noise, {**pairing.job.handed, **answer.found})
    ours = bridge.ours(pairing.ours.map, evidence)
    gap = deviation(ours, bridge.theirs(theirs, evidence))
    if gap <= row.tolerance:
        return replace(row, verdict=Verdict.EQUAL, deviation=gap)
    if pairing.comparison.estimate and pairing.ours.error is not None:
        return _estimated(replace(row, deviation=gap), ours, pairing.ours.error, theirs)
    if not pairing.comparison.formula:
        return replace(row, verdict=Verdict.DIFFERS, deviation=gap)
    formula = ALL_FORMULAS[pairing.comparison.formula]
    as_it_is = deviation(formula.values(evidence, formula.defects), theirs)
    right = bridge.theirs(formula.values(evidence, frozenset()), evidence)
    mended = deviation(ours, right)
    defects = [
        defect
        for defect in sorted(formula.defects)
        if deviation(bridge.theirs(formula.values(evidence, frozenset({defect})), evidence), right) > row.tolerance
    ]
    named = tuple(defects) or tuple(sorted(formula.defects))  # several may bite only together
    holds = as_it_is <= row.tolerance and mended <= row.tolerance
    verdict = Verdict.EXPLAINED if holds else Verdict.DIFFERS
    return replace(row, verdict=verdict, deviation=gap, defects=named, as_it_is=as_it_is, mended=mended)


def _estimated(row: Row, ours: Tensor, error: Tensor, exact: Tensor) -> Row:
    """Whether an estimate errs no more than it states, and states an error that is of use."""
    errors = float(((ours - exact).abs() / error).nan_to_num(nan=0.0).max())
    fair = errors <= _MOST_ERRORS and float(error.max()) <= _SHARP * float(exact.abs().max())
    return replace(row, verdict=Verdict.WITHIN if fair else Verdict.DIFFERS, errors=errors)
