"""Results of a case, told to a person and to a machine."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.table import Table

from pellucid.cli import face
from pellucid.cli.objects import show_published
from pellucid.core.errors import PellucidError
from pellucid.show.words import CHECKS
from pellucid.workbench.evaluating import ALL_MAPS, Scored
from pellucid.workbench.job import Finished
from pellucid.workbench.measured import beside
from pellucid.workbench.registry import told_apart

_FEW = 3  # metrics that have room beside the maps' names; more stand in a table of their own
_NUMBER, _PADDING, _FRAME = 9, 3, 5  # characters of -1.23e-05, around each column, and around the first


def summary(done: Finished) -> dict[str, object]:
    """A case's results as JSON types."""
    first = done.panel.explanations[0]
    said = first.prediction
    return {
        "case": done.opened.case.name,
        "series": asdict(done.opened.case.series) if done.opened.case.series is not None else None,
        "applicability": done.applicability.words,
        "prediction": None
        if said is None
        else {
            "label": said.label,
            "value": said.value,
            "unit": said.unit,
            "model_score": said.score,
            "threshold": said.threshold,
            "predicted": said.predicted,
        },
        "explanations": [
            e.provenance.plain() | {"answers": a.plain()}
            for e, a in zip(done.panel.explanations, done.answers, strict=True)
        ],
        "agreement": [a.plain() for a in done.agreement],
        "differences": [d.plain() for d in done.differences],
        "skipped": [{"method": m, "reason": r} for m, r in done.panel.skipped],
        "budget": done.budget.plain() if done.budget is not None else None,
        "readers": list(done.opened.scene.readers),
        "scores": [s.plain() for s in done.scores],
        "checks": {
            "about": CHECKS,
            "forwards": done.panel.probes[0].spent.checks.forwards,
            "results": [asdict(c) for c in done.checks],
        },
        "files": {k: str(v) for k, v in done.files.items()},
        "dicom": done.published.plain() if done.published is not None else None,
    }


def show(done: Finished) -> None:
    """A case's results for a person."""
    panel = done.panel
    rows = list(zip(panel.names, [e.provenance for e in panel.explanations], strict=True))
    named = list(zip(done.scores, told_apart([s.metric for s in done.scores]), strict=True))
    of_maps = [(s, n) for s, n in named if s.method != ALL_MAPS]
    values = {(s.method, s.target, n): s.value for s, n in of_maps}
    measured = list(dict.fromkeys(n for _, n in of_maps))
    beside_maps = measured if len(measured) <= _FEW else []
    table = Table(title=f"{done.opened.case.name}: {done.applicability.words}")
    for column in ("method", "target", "ms", "passes", *beside_maps, "doubts"):
        table.add_column(column, overflow="fold")
    for name, one in rows:
        table.add_row(
            name,
            one.target,
            f"{one.ms:.0f}",
            f"{one.own[0]}+{one.own[1]}",
            *(_number(values.get((name, one.target, n))) for n in beside_maps),
            str(len(one.warnings)) if one.warnings else "",
        )
    face.out.print(table)
    if not beside_maps:
        columns = [{n: values.get((name, one.target, n)) for n in measured} for name, one in rows]
        _show_down(measured, list(zip(panel.titles, columns, strict=True)))
    _show_undefined(of_maps)
    for scored, name in named:
        if scored.method == ALL_MAPS:
            said = scored.reason or " ".join((_number(scored.value), *(f"({w})" for w in beside(scored.score))))
            face.out.print(f"{name} of {scored.target}: {said}", highlight=False)
    for method, reason in panel.skipped:
        face.out.print(f"{method} skipped: {reason}", highlight=False)
    if done.published is not None:
        show_published(done.published)


def _show_down(measured: Sequence[str], across: Sequence[tuple[str, Mapping[str, float | None]]]) -> None:
    """Metrics down, maps across; as many tables as the console is too narrow for, so that no number is cut in two."""
    room = max(1, (face.out.width - max(map(len, measured), default=0) - _FRAME) // (_NUMBER + _PADDING))
    for start in range(0, len(across) if measured else 0, room):
        table = Table(title="metrics down, maps across; -: undefined")
        table.add_column("metric", no_wrap=True)
        some = across[start : start + room]
        for title, _ in some:
            table.add_column(title, overflow="fold", min_width=_NUMBER)
        for name in measured:
            table.add_row(name, *(_number(values[name], "-") for _, values in some))
        face.out.print(table)


def _show_undefined(scores: Sequence[tuple[Scored, str]]) -> None:
    """Each reason once, with the metrics it is the reason of and for how many maps."""
    found: dict[str, dict[str, int]] = {}
    for scored, name in scores:
        if math.isnan(scored.value):
            of = found.setdefault(scored.reason, {})
            of[name] = of.get(name, 0) + 1
    maps = len({(scored.method, scored.target) for scored, _ in scores})
    for reason, of in found.items():
        words = ", ".join(n if count == maps else f"{n} ({count} of {maps} maps)" for n, count in of.items())
        face.out.print(f"undefined: {words}: {reason}", highlight=False, soft_wrap=True)


def _number(value: float | None, undefined: str = "undefined") -> str:
    return undefined if value is None or math.isnan(value) else f"{value:.3g}"


def failure(name: str, error: PellucidError) -> dict[str, str]:
    """Why a case has no results, as JSON types."""
    return {"case": name, "error": type(error).__name__, "problem": error.problem, "mend": error.mend}
