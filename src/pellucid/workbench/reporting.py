"""Pages for a reader: everything the display rules and the audit ask for, filled in from the results."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pellucid.core.atomic import write_bytes
from pellucid.core.card import Card, MetricCard
from pellucid.io.models import GoldenResult, LoadedModel
from pellucid.show import report as pages
from pellucid.show.figure import draw_panel
from pellucid.show.gallery import framing_of
from pellucid.show.sections import CaseReport, Check, MapPanel, MetricNote, PerformanceRow, ScoreRow, State
from pellucid.show.sheet import png
from pellucid.workbench.evaluating import ALL_MAPS, Scored, truth_region
from pellucid.workbench.job import Finished
from pellucid.workbench.measured import beside as beside_score
from pellucid.workbench.measured import curve_of, given
from pellucid.workbench.printing import print_pdf
from pellucid.workbench.recording import Recorder
from pellucid.workbench.registry import told_apart
from pellucid.workbench.shamming import sham_name
from pellucid.workbench.viewing import VIEWER, write_viewer

_STATES: dict[str, State] = {"applies": "pass", "unknown": "not measured", "excluded": "fail"}
_SAME_MAP = 0.5  # rank correlation with the randomized model's map above which the map hardly depends on the weights
_KEY = re.compile(r"^([a-z]+)(\d{4})")
REPORT, PICTURE, INDEX, PRINTED = "report.html", "panel.png", "index.html", "report.pdf"
_PRINT_SCALE = 2.0


@dataclass(frozen=True)
class Wanted:
    """What is written for a reader beside the report.

    Args:
        viewer: a page to look through image and maps, shown in a frame of the report.
        pdf: the report as PDF.
        patient: who it is, at the top of the page and nowhere else; empty: the page does not say.
    """

    viewer: bool = True
    pdf: bool = False
    patient: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def write_report(
    finished: Finished,
    loaded: LoadedModel,
    golden: Sequence[GoldenResult],
    folder: Path,
    recorder: Recorder | None = None,
    wanted: Wanted | None = None,
) -> Finished:
    """Write one case's page, and all its maps as one picture, into ``folder``; the viewer's script lies beside it.

    Args:
        finished: results of the case.
        loaded: the model.
        golden: how its golden vectors came out.
        folder: of the page.
        recorder: of the audit events; None: nothing is recorded.
        wanted: beside the report; None: the viewer.

    Raises:
        UnwritableOutput: the folder cannot be written.
        MissingExtra: a PDF is wanted, and no browser is there to print it.
    """
    wanted = wanted or Wanted()
    report = case_report(finished, loaded, golden)
    beside = {"viewer": write_viewer(report, folder, back=REPORT)} if wanted.viewer else {}
    page = replace(report, patient=wanted.patient)
    path = pages.write_report(page, folder / REPORT, back=f"../{INDEX}", viewer=VIEWER if wanted.viewer else "")
    if wanted.pdf:
        beside["pdf"] = print_pdf(pages.render_report(report, _PRINT_SCALE), folder / PRINTED)
    sheet = draw_panel([m.explanation for m in report.maps], framing_of(report), finished.panel.names)
    picture = write_bytes(folder / PICTURE, png(sheet))
    if recorder is not None:
        what = "report.naming_the_patient" if wanted.patient else "report"
        for kind, written in {what: path, **beside}.items():
            recorder.exported(finished.opened.case.name, kind, hashlib.sha256(written.read_bytes()).hexdigest())
    return replace(finished, files={**finished.files, "report": path, "picture": picture, **beside})


def write_index(
    finished: Sequence[tuple[Finished, LoadedModel, Sequence[GoldenResult]]], folder: Path, title: str
) -> Path:
    """Write the overview of several cases into ``folder``."""
    entries = [
        pages.entry_of(case_report(one, loaded, golden), f"{one.opened.case.name}/{REPORT}")
        for one, loaded, golden in finished
    ]
    return pages.write_index(entries, folder / INDEX, title)


def case_report(finished: Finished, loaded: LoadedModel, golden: Sequence[GoldenResult]) -> CaseReport:
    """One case's results as the page takes them."""
    opened, panel = finished.opened, finished.panel
    titles = panel.titles
    shams = {c.name: c for c in finished.checks}
    maps = tuple(
        MapPanel(
            explanation,
            title,
            made.card.shows,
            made.card.caution,
            source_words(made.card),
            answers,
            shams.get(sham_name(title)),
        )
        for explanation, made, title, answers in zip(
            panel.explanations, panel.made_by, titles, finished.answers, strict=True
        )
    )
    return CaseReport(
        case=opened.case,
        image=opened.image,
        applicability=Check("applicability", _STATES[finished.applicability.verdict], finished.applicability.words),
        golden=golden_check(golden),
        prediction=panel.explanations[0].prediction,
        maps=maps,
        scores=tuple(
            _row(scored, name, titles, finished)
            for scored, name in zip(finished.scores, told_apart([s.metric for s in finished.scores]), strict=True)
        ),
        region=truth_region(opened.case),
        facts=model_facts(loaded),
        performance=_performance(loaded),
        checks=_checks(finished),
        warnings=loaded.notes,
        skipped=panel.skipped,
        agreement=finished.agreement,
        differences=finished.differences,
    )


def golden_check(results: Sequence[GoldenResult]) -> Check:
    """Whether the model still gives the scores its card promises; a model that does not explains nothing."""
    name = "golden vectors"
    if not results:
        return Check(
            name, "not measured", "the model has no golden vectors: a preprocessing mismatch would not be noticed"
        )
    worst = max(r.deviation for r in results)
    return Check(name, "pass", f"{len(results)} golden input(s) give the promised scores (off by at most {worst:.2g})")


def model_facts(loaded: LoadedModel) -> dict[str, str]:
    """What a reader must know before believing the model."""
    identity, card = loaded.model.identity, loaded.card
    facts = {"Name": f"{identity.name} {identity.version}".strip()}
    if card is None:
        return facts | {"Card": "none: use, training data and performance are not stated"}
    stated = {
        "Intended use": card.facts.intended_use,
        "Out of scope": card.facts.out_of_scope,
        "Training data": card.facts.training_data,
        "Gaps": card.facts.gaps,
        "Operating point": card.output.operating_point_source,
        "Owner": card.facts.owner,
        "Clearance": card.facts.clearance,
        "License": card.model.license,
        "Source": card.model.source,
        "Last change": card.facts.last_change,
    }
    return facts | stated


def source_words(card: Card | MetricCard) -> str:
    """A bibliography key as a reader writes it.

    Example:
        >>> from pellucid.explain.cam import GradCAM
        >>> source_words(GradCAM.card)
        'Selvaraju 2017 (selvaraju2017gradcam)'
    """
    found = _KEY.match(card.source)
    return f"{found[1].capitalize()} {found[2]} ({card.source})" if found else card.source


def _row(scored: Scored, name: str, titles: Sequence[str], finished: Finished) -> ScoreRow:
    panel = finished.panel
    made = list(zip(panel.names, (e.provenance.target for e in panel.explanations), strict=True))
    card = scored.metric.card
    note = MetricNote(
        name=name,
        measures=card.measures,
        says=card.shows,
        caution=card.caution,
        direction=card.direction,
        unit=card.unit.replace("target's unit", panel.probes[0].target.unit),
        source=source_words(card),
    )
    return ScoreRow(
        about=note,
        of=titles[made.index((scored.method, scored.target))] if scored.method != ALL_MAPS else _together(scored, made),
        value=None if math.isnan(scored.value) else scored.value,
        reason=scored.reason,
        region=scored.region or "",
        beside=beside_score(scored.score),
        given=given(scored.score),
        curve=curve_of(scored.score),
    )


def _together(scored: Scored, made: Sequence[tuple[str, str]]) -> str:
    """The column of a metric of all maps of a target."""
    return ALL_MAPS if len({target for _, target in made}) == 1 else f"{ALL_MAPS}: {scored.target}"


def _performance(loaded: LoadedModel) -> tuple[PerformanceRow, ...]:
    if loaded.card is None:
        return ()
    return tuple(
        PerformanceRow(p.metric, f"{p.value:.3g}", f"{p.low:.3g} to {p.high:.3g}", f"{p.data} (n = {p.n})")
        for p in loaded.card.performance
    )


def _checks(finished: Finished) -> tuple[Check, ...]:
    """Calculation checks; they say nothing about whether the model is right."""
    randomized = (s for s in finished.scores if s.metric.name == "ModelParameterRandomization")
    return (*finished.checks, *(_dependence(s) for s in randomized))


def _dependence(scored: Scored) -> Check:
    name = f"dependence of {scored.method} on the weights"
    if math.isnan(scored.value):
        return Check(name, "not measured", scored.reason)
    same = scored.value > _SAME_MAP
    kind = {"ssim": "structural similarity"}.get(str(scored.score.settings.get("similarity")), "rank correlation")
    words = f"{kind} with the map of the randomized model {scored.value:.2f} (limit {_SAME_MAP}, ours)"
    sizes = scored.score.detail.get("of the magnitudes")
    words += f", of the magnitudes {sizes[0]:.2f}" if sizes else ""
    return Check(name, "fail" if same else "pass", words)
