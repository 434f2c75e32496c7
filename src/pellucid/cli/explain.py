"""``pellucid explain`` and ``pellucid evaluate``."""

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli import face
from pellucid.cli.choosing import Choice, Index, Microns, Places, Resample, Richest, SeriesNumber, chosen_cases
from pellucid.cli.collecting import DataSet, Limit, Named, Select, data_set
from pellucid.cli.objects import Dicom, Replaces, SegmentRegion, Stored, export_of
from pellucid.cli.paging import Nrrd, Pdf, ReadingRoom, Viewer
from pellucid.cli.telling import failure, show, summary
from pellucid.core.atomic import write_text
from pellucid.core.errors import PellucidError
from pellucid.core.infill import parse_infill
from pellucid.guide.panel import USUAL_METRICS
from pellucid.io.cardschema import ModelCard
from pellucid.io.labelmap import parse_atlas
from pellucid.io.models import load_model
from pellucid.io.objects.maps import Encoding
from pellucid.io.reader import Cases, iter_cases, read_only_mask
from pellucid.workbench.delivery import Checked, checked, deliver, overview
from pellucid.workbench.gathering import Wish, background_of
from pellucid.workbench.job import Finished, Request
from pellucid.workbench.recording import Recorder
from pellucid.workbench.registry import make_explainer, make_metric, metrics

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
    series: SeriesNumber = None,
    resample_geometry: Resample = False,
    tile: Places = None,
    tiles: Richest = None,
    mpp: Microns = None,
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
    nrrd: Nrrd = False,
    reading_room: ReadingRoom = False,
    dicom: Dicom = False,
    segmentation: SegmentRegion = False,
    dicom_encoding: Stored = Encoding.FLOAT32,
    replaces: Replaces = None,
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
        export = export_of(dicom, segmentation, dicom_encoding, replaces)
        request = replace(request, within=within, viewer=viewer, pdf=pdf, dicom=export)
        request = replace(request, nrrd=nrrd, reading_room=reading_room)
        other = _Beside(
            region,
            background,
            (),
            Choice(index, tuple(tile or ()), tiles, mpp, series, resample_geometry),
            data_set(collection, limit, select, seed),
        )
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
    series: SeriesNumber = None,
    resample_geometry: Resample = False,
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
    nrrd: Nrrd = False,
    reading_room: ReadingRoom = False,
    dicom: Dicom = False,
    segmentation: SegmentRegion = False,
    dicom_encoding: Stored = Encoding.FLOAT32,
    replaces: Replaces = None,
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
        export = export_of(dicom, segmentation, dicom_encoding, replaces)
        request = replace(request, within=within, viewer=viewer, pdf=pdf, dicom=export)
        request = replace(request, nrrd=nrrd, reading_room=reading_room)
        choice = Choice(index, series=series, resample=resample_geometry)
        other = _Beside(region, background, tuple(retrained or ()), choice, data_set(collection, limit, select, seed))
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


@dataclass(frozen=True)
class _Beside:
    """What is read beside a case: experts' masks, normal cases, other models of the task; and which image of a file."""

    regions: list[str] | None
    background: Path | None
    retrained: tuple[Path, ...] = ()
    choice: Choice = field(default_factory=Choice)
    known: DataSet | None = None


def _run(path: Path, model: Path, out: Path, beside: _Beside, request: Request, session: face.Session) -> None:
    recorder = face.recorder(session.audit)
    try:
        loaded = load_model(model, session.trust_code, face.check_device(session.device))
        ready = checked(loaded)
        started = time.perf_counter()
        cases = _cases(path, beside, loaded.card)
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
    for case in cases.cases:
        recorder.chose(case)
        if case.series is not None and not session.as_json:
            face.out.print(f"{case.name}: {case.series.words}", highlight=False, soft_wrap=True, markup=False)
    finished, failures = _run_all(cases, ready, request, folder, recorder, session.as_json)
    results = {"cases": [summary(f) for f in finished], "failures": [failure(n, e) for n, e in failures]}
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


def _cases(path: Path, beside: _Beside, card: ModelCard | None) -> Cases:
    cases = beside.known.read(path) if beside.known else chosen_cases(path, beside.choice, card)
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
