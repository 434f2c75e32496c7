"""``pellucid explain`` and ``pellucid evaluate``."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pellucid.cli import face
from pellucid.cli.choosing import Index, chosen_cases
from pellucid.cli.collecting import DataSet, Limit, Named, Select, data_set
from pellucid.cli.objects import Dicom, SegmentRegion, Stored, export_of, show_published
from pellucid.cli.paging import Pdf, Viewer
from pellucid.core.atomic import write_text
from pellucid.core.errors import PellucidError
from pellucid.core.infill import parse_infill
from pellucid.guide.panel import USUAL_METRICS
from pellucid.io.labelmap import parse_atlas
from pellucid.io.models import load_model
from pellucid.io.objects.maps import Encoding
from pellucid.io.reader import Cases, iter_cases, read_only_mask
from pellucid.show.words import CHECKS
from pellucid.workbench.delivery import Checked, checked, deliver, overview
from pellucid.workbench.evaluating import ALL_MAPS, Scored
from pellucid.workbench.gathering import Wish, background_of
from pellucid.workbench.job import Finished, Request
from pellucid.workbench.measured import beside
from pellucid.workbench.recording import Recorder
from pellucid.workbench.registry import make_explainer, make_metric, metrics, told_apart

CasePath = Annotated[Path, typer.Argument(help="An image file, a DICOM series folder, a folder of images, or a CSV.")]
ModelPath = Annotated[Path, typer.Option("--model", help="model.toml, TorchScript, .pt2, MONAI bundle folder or ONNX.")]
Target = Annotated[
    list[str] | None,
    typer.Option("--target", help="LABEL, A>B, LABEL@REGION or LABEL@REGION/PART (border, missed, component2)."),
]
Method = Annotated[
    list[str] | None, typer.Option("--method", help="NAME or NAME:parameter=value,...; repeatable. all: every method.")
]
MetricName = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", help="NAME or NAME:parameter=value; repeatable; all: every one. Default: nine usual ones."
    ),
]
RegionPath = Annotated[
    list[str] | None,
    typer.Option("--region", help="Mask of the finding by an expert, on the image; READER=MASK for each of several."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for the report and the maps.")]
Fill = Annotated[
    list[str] | None, typer.Option("--fill", help="0, '-800 HU', blur:5, mean, median:0.25; twice for two.")
]
Crop = Annotated[str | None, typer.Option("--crop", help="L,P,S: center in mm for models that expect a crop.")]
Precision = Annotated[str, typer.Option(help="float32 or bfloat16.")]
Atlas = Annotated[
    str | None, typer.Option("--atlas", help="LABELMAP or LABELMAP:NAMES (lobes, organs): where the evidence lies.")
]
Override = Annotated[bool, typer.Option("--override", help="Explain although the model card excludes the image.")]
Engine = Annotated[
    str, typer.Option("--engine", help="Of perturbed images: eager, auto, or a name as 'models engines' lists them.")
]
Within = Annotated[
    float | None,
    typer.Option("--within", help="Seconds for the methods of one case: cheapest first, fewer samples, then left out."),
]
Background = Annotated[
    Path | None,
    typer.Option("--background", help="Normal cases that ExpectedGradients compares with: a folder or CSV."),
]
Retrained = Annotated[
    list[Path] | None,
    typer.Option("--retrained", help="Another model of the same task; repeatable. For Repeatability, Reproducibility."),
]
Checks = Annotated[bool, typer.Option("--checks/--no-checks", help="Run the calculation checks.")]


def explain(
    case: CasePath,
    model: ModelPath,
    out: Out,
    target: Target = None,
    method: Method = None,
    region: RegionPath = None,
    index: Index = None,
    fill: Fill = None,
    crop: Crop = None,
    precision: Precision = "float32",
    override: Override = False,
    atlas: Atlas = None,
    checks: Checks = True,
    engine: Engine = "eager",
    background: Background = None,
    within: Within = None,
    viewer: Viewer = True,
    pdf: Pdf = False,
    dicom: Dicom = False,
    segmentation: SegmentRegion = False,
    dicom_encoding: Stored = Encoding.FLOAT32,
    collection: Named = None,
    limit: Limit = None,
    select: Select = None,
    device: face.Device = "cpu",
    seed: face.Seed = 0,
    trust_code: face.Trust = False,
    audit: face.AuditFile = None,
    as_json: face.Json = False,
) -> None:
    """Explain what a model says of an image: a report, the maps, and their provenance."""
    with face.reported(as_json):
        request = _request(target, method, (), fill, crop, seed, precision, override)
        request = replace(request, atlas=parse_atlas(atlas) if atlas else None, checks=checks, engine=engine)
        export = export_of(dicom, segmentation, dicom_encoding)
        request = replace(request, within=within, viewer=viewer, pdf=pdf, dicom=export)
        other = _Beside(region, background, (), index, data_set(collection, limit, select, seed))
        _run(case, model, out, other, request, face.Session(device, trust_code, audit, as_json))


def evaluate(
    case: CasePath,
    model: ModelPath,
    out: Out,
    target: Target = None,
    method: Method = None,
    metric: MetricName = None,
    region: RegionPath = None,
    index: Index = None,
    fill: Fill = None,
    crop: Crop = None,
    precision: Precision = "float32",
    override: Override = False,
    atlas: Atlas = None,
    checks: Checks = True,
    engine: Engine = "eager",
    background: Background = None,
    within: Within = None,
    retrained: Retrained = None,
    viewer: Viewer = True,
    pdf: Pdf = False,
    dicom: Dicom = False,
    segmentation: SegmentRegion = False,
    dicom_encoding: Stored = Encoding.FLOAT32,
    collection: Named = None,
    limit: Limit = None,
    select: Select = None,
    device: face.Device = "cpu",
    seed: face.Seed = 0,
    trust_code: face.Trust = False,
    audit: face.AuditFile = None,
    as_json: face.Json = False,
) -> None:
    """Explain, and score each map: faithfulness, localization against an expert, dependence on the weights."""
    with face.reported(as_json):
        named = tuple(metrics()) if "all" in (metric or ()) else tuple(metric or USUAL_METRICS)
        request = _request(target, method, named, fill, crop, seed, precision, override)
        request = replace(request, atlas=parse_atlas(atlas) if atlas else None, checks=checks, engine=engine)
        export = export_of(dicom, segmentation, dicom_encoding)
        request = replace(request, within=within, viewer=viewer, pdf=pdf, dicom=export)
        other = _Beside(region, background, tuple(retrained or ()), index, data_set(collection, limit, select, seed))
        _run(case, model, out, other, request, face.Session(device, trust_code, audit, as_json))


def _request(
    target: list[str] | None,
    method: list[str] | None,
    metric: tuple[str, ...],
    fill: list[str] | None,
    crop: str | None,
    seed: int,
    precision: str,
    override: bool,
) -> Request:
    return Request(
        targets=tuple(target or ()),
        methods=tuple(make_explainer(m) for m in method or () if m != "all"),
        every="all" in (method or ()),
        metrics=tuple(make_metric(m) for m in metric),
        infills=tuple(parse_infill(f) for f in fill) if fill else None,
        crop=face.point(crop),
        seed=seed,
        precision=precision,
        override=override,
    )


_FEW = 3  # metrics that have room beside the maps' names; more stand in a table of their own
_NUMBER, _PADDING, _FRAME = 9, 3, 5  # characters of -1.23e-05, around each column, and around the first


@dataclass(frozen=True)
class _Beside:
    """What is read beside a case: experts' masks, normal cases, other models of the task; and which image of a file."""

    regions: list[str] | None
    background: Path | None
    retrained: tuple[Path, ...] = ()
    index: str | None = None
    known: DataSet | None = None


def _run(path: Path, model: Path, out: Path, beside: _Beside, request: Request, session: face.Session) -> None:
    recorder = face.recorder(session.audit)
    try:
        loaded = load_model(model, session.trust_code, face.check_device(session.device))
        ready = checked(loaded)
        started = time.perf_counter()
        cases = _cases(path, beside)
        request = replace(request, reading_s=(time.perf_counter() - started) / max(1, len(cases.cases)))
        if beside.background is not None:
            wish = Wish(seed=request.seed, infills=request.infills, override=request.override)
            request = replace(request, background=background_of(iter_cases(beside.background), loaded, wish))
        others = [checked(load_model(m, session.trust_code, session.device)) for m in beside.retrained]
        request = replace(request, retrained=tuple(one.loaded.model for one in others))
        folder = face.out_folder(out)
    except PellucidError as error:
        recorder.failed("explain", type(error).__name__)
        raise
    recorder.configured(loaded.model, {"seed": request.seed, "precision": request.precision, "engine": request.engine})
    finished, failures = _run_all(cases, ready, request, folder, recorder, session.as_json)
    results = {"cases": [summary(f) for f in finished], "failures": [_failure(n, e) for n, e in failures]}
    write_text(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False))
    if session.as_json:
        face.show_json(results)
    else:
        for one in finished:
            show(one)
        for name, error in failures:
            face.say_error(error, name)
        face.out.print(
            f"look at: {folder / 'index.html' if len(finished) > 1 else finished[0].files['report']}", soft_wrap=True
        )
    if failures:
        raise typer.Exit(face.BAD_INPUT)


def _run_all(
    cases: Cases, model: Checked, request: Request, folder: Path, recorder: Recorder, quiet: bool
) -> tuple[list[Finished], list[tuple[str, PellucidError]]]:
    """Every case; one bad case is listed and never stops the others."""
    finished: list[Finished] = []
    failures: list[tuple[str, PellucidError]] = [(f.reference, f.error) for f in cases.failures]
    with face.progress(quiet) as bar:
        task = bar.add_task("cases", total=len(cases.cases))
        for case in cases.cases:
            announce = None if quiet or finished else _announce  # the first case says what each will cost
            try:
                step = face.stepper(bar, task, case.name)
                finished.append(deliver(case, model, request, folder, recorder, step, announce))
            except PellucidError as error:
                recorder.failed("explain", type(error).__name__)
                failures.append((case.name, error))
            bar.advance(task)
    if len(finished) > 1:
        overview([(one, model) for one in finished], folder, "Explained cases")
    if not finished:
        raise failures[0][1]
    return finished, failures


def _announce(words: str) -> None:
    face.out.print(words, highlight=False)


def _cases(path: Path, beside: _Beside) -> Cases:
    cases = beside.known.read(path) if beside.known else chosen_cases(path, beside.index)
    for reader, mask in face.masks(beside.regions or []).items():
        try:
            region, said = read_only_mask(cases, mask)
        except PellucidError as error:
            raise type(error)(
                f"region of {reader}: {error.problem}" if reader else error.problem, error.mend
            ) from error
        case = cases.cases[0]
        notes = (*case.notes, f"the region of {reader or 'the expert'} was {said}") if said else case.notes
        known = {**case.regions, reader or "expert": replace(region, reader=reader)}
        cases = replace(cases, cases=(replace(case, regions=known, notes=notes),))
    return cases


def summary(done: Finished) -> dict[str, object]:
    """A case's results as JSON types."""
    first = done.panel.explanations[0]
    said = first.prediction
    return {
        "case": done.opened.case.name,
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


def _failure(name: str, error: PellucidError) -> dict[str, str]:
    return {"case": name, "error": type(error).__name__, "problem": error.problem, "mend": error.mend}
