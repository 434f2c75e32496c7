"""What the Structured Report of one explanation says: the case report's facts, as numbers, verdicts and sentences."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pellucid.core.explanation import Explanation
from pellucid.core.image import Image
from pellucid.io.models import GoldenResult, LoadedModel
from pellucid.io.objects.record import Measured, Ruling, Told
from pellucid.show.rules import decide
from pellucid.show.sections import CaseReport, Check, PerformanceRow
from pellucid.show.words import CHECKS, cell_words, class_words, image_cell, length_unit, pass_words, score_words
from pellucid.workbench.evaluating import ALL_MAPS, Scored
from pellucid.workbench.job import Finished
from pellucid.workbench.measured import beside
from pellucid.workbench.registry import spell_whole, told_apart
from pellucid.workbench.reporting import case_report

OUTPUT, LARGEST, SMALLEST = "Model output for the target", "Largest value of the map", "Smallest value of the map"
_INPUT = (
    "photometric",
    "lossy",
    "burned_in",
    "body_part",
    "view",
    "laterality",
    "kernel",
    "contrast_agent",
    "slice_mm",
)
_NOT_MEASURED = "not measured"


def told_of(
    finished: Finished,
    place: int,
    loaded: LoadedModel,
    golden: Sequence[GoldenResult] = (),
    objects: tuple[Dataset, ...] = (),
    proved: Sequence[Ruling] = (),
) -> Told:
    """What the report of one explanation says.

    Args:
        finished: the case.
        place: of the explanation in its panel.
        loaded: the model.
        golden: how its golden vectors came out.
        objects: made from the same explanation.
        proved: verdicts about these objects, such as that of the geometry.
    """
    report = case_report(finished, loaded, golden)
    explanation = finished.panel.explanations[place]
    covered = finished.applicability
    rulings = [Ruling("applicability", covered.verdict, covered.words), _ruling(report.golden), *proved]
    rulings += [_ruling(check) for check in report.checks if _speaks_of(check, finished, place)]
    return Told(
        measured=(*_model_said(explanation), *_of_the_map(explanation), *_scores(finished, place)),
        rulings=tuple(rulings),
        said=_said(report, finished, place),
        region=_region(explanation),
        objects=objects,
    )


def _model_said(explanation: Explanation) -> list[Measured]:
    said = explanation.prediction
    if said is None:
        return []
    none = "the model card names no operating point"
    score = "" if said.score is not None else "the task has no score of a class"
    return [
        Measured(OUTPUT, said.value, said.unit),
        Measured("Model score of the target", said.score, "1", score),
        Measured("Operating point", said.threshold, said.unit, none),
    ]


def _of_the_map(explanation: Explanation) -> list[Measured]:
    values, unit = explanation.numpy()[0], explanation.attribution.unit
    cell, reference = image_cell(explanation), explanation.reference
    length = length_unit(explanation.image.grid).split()[0] if explanation.image is not None else "px"
    error = explanation.attribution.error
    first = next(iter(explanation.attribution.maps))
    spread = float(error[first].square().mean().sqrt()) if error else None
    unmeasured = "not measured for this method, target and model"
    return [
        Measured(LARGEST, float(values.max()), unit),
        Measured(SMALLEST, float(values.min()), unit),
        Measured("Native resolution", max(cell) if cell else None, length, "not stated by the method"),
        Measured("Fixed scale, full strength", reference.scale if reference else None, unit, unmeasured),
        Measured("Null of the maximum", reference.null if reference else None, unit, unmeasured),
        Measured("Sampling error of the map", spread, unit, "the method draws no samples"),
    ]


def _scores(finished: Finished, place: int) -> list[Measured]:
    """Of this map, then of all maps of its target together."""
    panel = finished.panel
    name, target = panel.names[place], panel.explanations[place].provenance.target
    named = list(zip(finished.scores, told_apart([s.metric for s in finished.scores]), strict=True))
    own = [(s, n) for s, n in named if s.target == target and s.method == name]
    together = [(s, f"{n} of all maps") for s, n in named if s.target == target and s.method == ALL_MAPS]
    unit = panel.probes[place].target.unit
    spelled = [spell_whole(s.metric) for s, _ in own]
    return [
        *(_score(s, n, how, unit) for (s, n), how in zip(own, spelled, strict=True)),
        *(_score(s, n, "", unit) for s, n in together),
    ]


def _score(scored: Scored, name: str, spelled: str, unit: str) -> Measured:
    region = (f"region: {scored.region}",) if scored.region else ()
    better = {"higher": "higher is better", "lower": "lower is better"}.get(scored.metric.card.direction)
    words = (*((better,) if better else ()), *region, *beside(scored.score))
    unit = scored.metric.card.unit.replace("target's unit", unit)
    return Measured(name, scored.value, unit, scored.reason, spelled, words)


def _ruling(check: Check) -> Ruling:
    return Ruling(check.name, check.state, check.words, check.value)


def _speaks_of(check: Check, finished: Finished, place: int) -> bool:
    """Whether a check is of this map, or of all: the names of the others stand in the checks of the others."""
    panel = finished.panel
    own = panel.titles[place], panel.names[place]
    others = [t for t in (*panel.titles, *panel.names) if t not in own]
    return any(check.name.endswith(f" {t}") or f" {t} " in check.name for t in own) or not any(
        check.name.endswith(f" {t}") or f" {t} " in check.name for t in others
    )


def _said(report: CaseReport, finished: Finished, place: int) -> Mapping[str, tuple[str, ...]]:
    one, explanation = report.maps[place], finished.panel.explanations[place]
    made, display = explanation.provenance, decide(explanation, explanation.numpy()[0])
    said = explanation.prediction
    found: dict[str, tuple[str, ...]] = {
        "Checks": (CHECKS,),
        "Model said": (score_words(said),) if said is not None else (),
        "Class": (class_words(said),) if said is not None and said.score is not None else (),
        "Display": tuple(dict.fromkeys((display.scale_words, *display.notes))),
        "What the map shows": (one.shows,),
        "What it cannot show": (one.caution,),
        "Native resolution": (cell_words(explanation),),
        "Doubts": made.warnings,
        "Cost": (pass_words(explanation),),
        "Model": tuple(f"{name}: {words}" for name, words in report.facts.items()),
        "Performance": tuple(_performance(row) for row in report.performance) or (_NOT_MEASURED,),
        "Input": _input(report.image),
        "Human and model together": (_NOT_MEASURED,),
        "Read before the model's answer": ("not recorded",),
    }
    return {heading: tuple(filter(None, words)) for heading, words in found.items() if any(words)}


def _performance(row: PerformanceRow) -> str:
    return f"{row.what} {row.value} ({row.interval or _NOT_MEASURED}), {row.cases}"


def _input(image: Image) -> tuple[str, ...]:
    known = {key: image.traits[key] for key in _INPUT if key in image.traits}
    told = {"modality": image.modality, "unit": image.unit, "calibration": image.grid.calibration} | known
    return tuple(f"{key}: {value}" for key, value in told.items())


def _region(explanation: Explanation) -> NDArray[np.bool_] | None:
    """Above the null, by the display rules: none where the model says no, none where no null was measured."""
    values = explanation.numpy()[0]
    return decide(explanation, values).region(values)
