"""One case from file to results: applicability, explanations, scores, maps on disk, audit record."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from pellucid.core.case import Case
from pellucid.core.errors import BadOption, NotApplicable
from pellucid.core.explainer import Explainer
from pellucid.core.grid import Calibration
from pellucid.core.image import Modality
from pellucid.core.infill import Infill
from pellucid.core.metric import Metric, PanelMetric
from pellucid.core.model import Model
from pellucid.core.probe import Probe, Retrained
from pellucid.core.space import resample
from pellucid.core.target import Target
from pellucid.engines.choosing import measure_engines
from pellucid.engines.selfcheck import EngineReport
from pellucid.guide.panel import USUAL
from pellucid.io.archive import save_explanation
from pellucid.io.dicomfacts import burned_in_words
from pellucid.io.labelmap import LabelMap
from pellucid.io.modelcard import Applicability, check_applicability
from pellucid.io.models import LoadedModel
from pellucid.io.nifti import write_nifti
from pellucid.io.nrrd import write_nrrd
from pellucid.io.suv import in_units
from pellucid.show.answers import Agreement, Answers
from pellucid.show.difference import Difference
from pellucid.show.sections import Check
from pellucid.workbench.agreeing import agreements
from pellucid.workbench.answering import answer, ground
from pellucid.workbench.budgeting import Budget, draw_up
from pellucid.workbench.checking import calculation_checks
from pellucid.workbench.comparing import differences
from pellucid.workbench.evaluating import Scored, score_panel
from pellucid.workbench.explaining import Manner, Panel, Progress, explain_case
from pellucid.workbench.exporting import Export, Publication
from pellucid.workbench.opening import Opened, assume_modality, default_target, open_case, parse_target
from pellucid.workbench.recording import Recorder
from pellucid.workbench.registry import explainers
from pellucid.workbench.shamming import warned


@dataclass(frozen=True)
class Request:
    """What is asked of each case.

    Args:
        targets: as ``parse_target`` reads them; empty: the default target.
        methods: explainers; empty: the usual panel, and those that cannot are listed.
        every: all registered methods, those not in ``methods`` with their defaults; those that cannot are listed.
        metrics: scored for each map, or for all of a target; may be empty.
        infills: what hidden voxels show; None: the modality's.
        crop: center of a box in LPS millimeters, for models that expect a crop.
        seed: of everything random.
        precision: ``float32`` or ``bfloat16``.
        override: explain even where the card excludes the image; the report's first line says so.
        checks: run the calculation checks.
        engine: of the perturbed forwards: ``eager``, ``auto``, or a name.
        within: seconds that the methods' passes of one case may take here; None: no limit.
        lenient: list a named method that cannot explain this model, instead of refusing the case.
        background: cases to compare with, as ``gathering.background_of`` gives them; None: there are none.
        atlas: the reader's own regions, by which maps are read; None: thirds of the image.
        retrained: other models of the same task, whose maps are compared with this one's.
        reading_s: seconds that reading the case took; None: not known.
        dicom: which DICOM objects to write into the study of the source; None: none.
        viewer: put a viewer into the report.
        pdf: write the report as PDF, too.
        nrrd: write the maps of volumes as NRRD, too.
        reading_room: name the patient at the top of the report.
    """

    targets: tuple[str, ...] = ()
    methods: tuple[Explainer, ...] = ()
    every: bool = False
    metrics: tuple[Metric | PanelMetric, ...] = ()
    infills: tuple[Infill, ...] | None = None
    crop: tuple[float, float, float] | None = None
    seed: int = 0
    precision: str = "float32"
    override: bool = False
    checks: bool = True
    atlas: LabelMap | None = None
    engine: str = "eager"
    background: Mapping[str, Tensor] | None = None
    within: float | None = None
    lenient: bool = False
    retrained: tuple[Model, ...] = ()
    reading_s: float | None = None
    dicom: Export | None = None
    viewer: bool = True
    pdf: bool = False
    nrrd: bool = False
    reading_room: bool = False


@dataclass(frozen=True, eq=False)
class Finished:
    """Results of one case.

    Args:
        opened: the case on the model's grid.
        panel: its explanations.
        scores: of each metric and method.
        applicability: verdict of the model card.
        files: written, by kind and method.
        answers: what a reader takes from each explanation.
        agreement: of the methods, by target.
        differences: of two targets, by method.
        checks: calculation checks; empty where they were not asked for.
        budget: what the methods were expected to cost; None: nobody asked.
        published: DICOM objects; None: nobody asked.
    """

    opened: Opened
    panel: Panel
    scores: tuple[Scored, ...]
    applicability: Applicability
    files: Mapping[str, Path] = field(default_factory=dict)
    answers: tuple[Answers, ...] = ()
    agreement: tuple[Agreement, ...] = ()
    differences: tuple[Difference, ...] = ()
    checks: tuple[Check, ...] = ()
    budget: Budget | None = None
    published: Publication | None = None


def run_case(
    case: Case,
    loaded: LoadedModel,
    request: Request,
    recorder: Recorder | None = None,
    progress: Progress | None = None,
    announce: Progress | None = None,
) -> Finished:
    """Explain and score one case.

    Args:
        case: as read.
        loaded: model with its card and references.
        request: targets, methods, metrics.
        recorder: of the audit events; None: nothing is recorded.
        progress: called with what is being done.
        announce: called with what the methods will cost, before the first is made; None: it is not measured.

    Raises:
        NotApplicable: the model card excludes the image and ``override`` is not set.
        PellucidError: of the image, the model, the label map or an explicitly named method.
    """
    case, verdict, warnings = _admit(case, loaded, request)
    if verdict.verdict == "excluded" and recorder is not None:
        recorder.overridden(case.name, "applicability")
    opened = _opened(case, loaded, request)
    on = ground(opened.image.grid, opened.prepared[loaded.model.primary], request.atlas)
    targets, budget = _targets(opened, request), None
    if request.within is not None or announce is not None:
        budget = draw_up(opened, targets, _methods(request), request.within, request.precision)
    if budget is not None and announce is not None:
        announce(budget.words)
    manner = Manner(
        precision=request.precision,
        references=loaded.references,
        applicability=verdict.words,
        warnings=(*loaded.notes, *warnings),
        strict=bool(request.methods) and not (request.every or request.lenient),
        engine=request.engine,
        metrics=tuple(m for m in request.metrics if isinstance(m, Metric)),
        said=budget.said if budget is not None else {},
    )
    methods = budget.methods if budget is not None else _methods(request)
    panel = explain_case(opened, targets, methods, manner, progress)
    if budget is not None:
        panel = replace(panel, skipped=(*panel.skipped, *budget.plan.left_out))
    if recorder is not None:
        for explanation in panel.explanations:
            recorder.created(explanation)
    pace = budget.plan.pace if budget is not None else None
    scores = score_panel(panel, opened.case, request.metrics, progress, announce, pace) if request.metrics else ()
    answers = tuple(answer(e, on) for e in panel.explanations)
    alike = agreements(panel.explanations, panel.names, answers)
    apart = differences(panel.explanations, request.atlas)
    checks = calculation_checks(panel, progress) if request.checks else ()
    return Finished(opened, warned(panel, checks), scores, verdict, {}, answers, alike, apart, checks, budget)


def measure_case(
    case: Case, loaded: LoadedModel, request: Request
) -> tuple[tuple[EngineReport, ...], tuple[tuple[str, str], ...]]:
    """Every engine on one case: reports of the module and of those that pass, and why the others are refused.

    Raises:
        PellucidError: of the image or the model.
    """
    case, _, _ = _admit(case, loaded, request)
    opened = _opened(case, loaded, request)
    return measure_engines(Probe(opened.model, opened.inputs, _targets(opened, request), scene=opened.scene))


def _opened(case: Case, loaded: LoadedModel, request: Request) -> Opened:
    """The case on the model's grid, with the cases it is compared with."""
    started = time.perf_counter()
    opened = open_case(case, loaded.model, request.seed, request.infills)
    spent = {"preparing": time.perf_counter() - started}
    if request.reading_s is not None:
        spent["reading"] = request.reading_s
    others = tuple(_other(model, opened, request) for model in request.retrained)
    scene = replace(opened.scene, background=request.background, retrained=others, before_s=spent)
    return replace(opened, scene=scene)


def _other(model: Model, opened: Opened, request: Request) -> Retrained:
    """Another model with the case as it takes it, and the way of its maps to this model's grid."""
    if model.inputs == opened.model.inputs:
        return Retrained(model)
    its = open_case(opened.case, model, request.seed, request.infills)
    there, here = its.prepared[model.primary].grid, opened.prepared[opened.model.primary].grid
    return Retrained(model, its.inputs, lambda maps: resample(maps[:, None], there, here)[:, 0], its.scene)


def _methods(request: Request) -> Sequence[Explainer]:
    if request.methods and not request.every:
        return request.methods
    known, own = explainers(), {e.name for e in request.methods}
    names = known if request.every else USUAL
    return (*request.methods, *(known[name]() for name in names if name not in own))


def save_maps(finished: Finished, folder: Path, nrrd: bool = False) -> Finished:
    """Write every map losslessly, and as NIfTI in the source's affine where the image is a volume in the patient.

    Args:
        finished: results of the case.
        folder: of the files.
        nrrd: volumes as NRRD, too.

    Raises:
        UnwritableOutput: the folder cannot be written.
    """
    files: dict[str, Path] = {}
    several = len({e.provenance.target for e in finished.panel.explanations}) > 1
    for explanation, method in zip(finished.panel.explanations, finished.panel.names, strict=True):
        made = explanation.provenance
        plain = method if method == made.method else _safe(method)  # with its parameters
        name = f"{plain}-{_safe(made.target)}" if several else plain
        files[f"archive {name}"] = save_explanation(explanation, folder, name)
        grid = finished.opened.image.grid
        if grid.rank == 3 and grid.calibration is not Calibration.NONE:
            values, words = explanation.on_image()[0], f"{made.method} of {made.target}, research"
            files[f"nifti {name}"] = write_nifti(values, grid, folder / f"{name}.nii.gz", words)
            if nrrd:
                files[f"nrrd {name}"] = write_nrrd(values, grid, folder / f"{name}.nrrd", words)
    return replace(finished, files=files)


def _admit(case: Case, loaded: LoadedModel, request: Request) -> tuple[Case, Applicability, tuple[str, ...]]:
    card = loaded.card
    told = dict.fromkeys(burned_in_words(image.traits) for image in case.images.values())
    warnings = tuple(words for words in told if words)
    if request.crop is not None:
        case = _cropped(case, loaded, request.crop)
        warnings += (f"cropped about {request.crop} mm (LPS) before the model saw it",)
    if card is None:
        return case, Applicability("unknown", "not checked: the model has no card"), warnings
    modalities = [Modality(m) for m in card.modality]
    if len(modalities) == 1:
        case, said = assume_modality(case, modalities[0])
        warnings += said
    case, said = in_units(case, card)
    warnings += said
    verdicts = [check_applicability(card, image) for image in case.images.values()]
    worst = max(verdicts, key=lambda v: ("applies", "unknown", "excluded").index(v.verdict))
    if worst.verdict == "excluded" and not request.override:
        raise NotApplicable(
            f"the model {loaded.model.identity.name} does not apply to case {case.name}: {worst.words}",
            "choose another model or image, or pass --override to explain it all the same, marked as such",
        )
    return case, worst, warnings


def _cropped(case: Case, loaded: LoadedModel, center: tuple[float, float, float]) -> Case:
    """Cut each image to the model's input size about a point of the patient."""
    spec = loaded.model.inputs[0]
    if spec.size is None or spec.spacing is None:
        raise BadOption("the model card gives no input size in mm to crop to", "leave out --crop, or crop the file")
    images = {}
    for name, image in case.images.items():
        if image.grid.calibration is not Calibration.PATIENT:
            raise BadOption("the image is not in patient space, so there is no point to crop about", "crop the file")
        extent = [n * s for n, s in zip(spec.size, spec.spacing, strict=True)]
        turned = image.grid.reoriented(spec.orientation) if spec.orientation else image.grid
        world = turned.matrix[:3, :3] @ np.diag(np.asarray(extent) / np.asarray(turned.spacing))
        edges = np.abs(np.linalg.inv(image.grid.matrix[:3, :3]) @ world).sum(1)
        shape = tuple(int(min(n, round(float(e)))) for n, e in zip(image.grid.shape, edges, strict=True))
        middle = image.grid.index(np.asarray(center))[0]
        start = tuple(
            int(np.clip(round(float(m) - (k - 1) / 2), 0, n - k))
            for m, k, n in zip(middle, shape, image.grid.shape, strict=True)
        )
        images[name] = image.cropped(start, shape)
    return replace(case, images=images)


def _targets(opened: Opened, request: Request) -> list[Target]:
    named = [parse_target(text, opened.model) for text in request.targets] or [parse_target(None, opened.model)]
    return [t if t is not None else default_target(opened) for t in named]


def _safe(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text).strip("-")
