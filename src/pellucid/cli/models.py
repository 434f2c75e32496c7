"""``pellucid models``: check a model, list its layers, measure its display references."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.markup import escape
from rich.table import Table

from pellucid.cli import face
from pellucid.core.errors import BadOption
from pellucid.core.model import Model
from pellucid.engines.selfcheck import EngineReport
from pellucid.guide.panel import USUAL
from pellucid.io.cardschema import NOT_STATED
from pellucid.io.models import LoadedModel, describe_abilities, load_model, run_golden
from pellucid.io.reader import read_cases
from pellucid.io.references import write_references
from pellucid.workbench.job import Request, measure_case
from pellucid.workbench.opening import open_case
from pellucid.workbench.referencing import measure_references, merged
from pellucid.workbench.registry import make_explainer

app = typer.Typer(help="Look at a model before explaining it.", no_args_is_help=True)
ModelPath = Annotated[Path, typer.Argument(help="model.toml, a file, or a folder: MONAI, nnU-Net, Hugging Face.")]


@app.command()
def check(
    model: ModelPath, trust_code: face.Trust = False, device: face.Device = "cpu", as_json: face.Json = False
) -> None:
    """Say what a model is, what it cannot do and why, and whether it gives the scores its card promises."""
    with face.reported(as_json):
        loaded = load_model(model, trust_code=trust_code, device=face.check_device(device))
        golden = run_golden(loaded)
        report = _facts(loaded) | {
            "abilities": [{"ability": a, "can": can, "why": why} for a, can, why in describe_abilities(loaded.model)],
            "golden": [
                {"file": g.file, "passed": g.passed, "deviation": g.deviation, "tolerance": g.tolerance} for g in golden
            ],
            "references": {m: sorted(t) for m, t in loaded.references.items()},
        }
        if as_json:
            face.show_json(report)
        else:
            _print(report)
        if not all(g.passed for g in golden):
            raise typer.Exit(face.FAIL)


@app.command()
def layers(
    model: ModelPath,
    case: Annotated[Path | None, typer.Option("--case", help="An image, where the card gives no input size.")] = None,
    trust_code: face.Trust = False,
    as_json: face.Json = False,
) -> None:
    """List every layer with its output, and the default for maps."""
    with face.reported(as_json):
        loaded = load_model(model, trust_code=trust_code)
        inputs = _inputs(loaded, case)
        found = loaded.model.layers(inputs)
        default = loaded.model.resolve(None, inputs)
        if as_json:
            face.show_json(
                [{"name": s.name, "kind": s.kind, "shape": s.shape, "default": s.name == default} for s in found]
            )
            return
        table = Table(title="Layers in the order they finish")
        for column in ("name", "kind", "output", ""):
            table.add_column(column)
        for shape in found:
            table.add_row(shape.name, shape.kind, str(shape.shape), "default" if shape.name == default else "")
        face.out.print(table)


@app.command()
def reference(
    model: ModelPath,
    cohort: Annotated[Path, typer.Argument(help="Cases that show what the model is for: they set the scale.")],
    words: Annotated[str, typer.Option("--words", help="Which cases these are, for every caption.")],
    normals: Annotated[
        Path | None, typer.Option("--normals", help="Normal cases: they set the null (19 at least).")
    ] = None,
    target: Annotated[list[str] | None, typer.Option("--target", help="As for explain; repeatable.")] = None,
    method: Annotated[list[str] | None, typer.Option("--method", help="Names; default: the usual panel.")] = None,
    trust_code: face.Trust = False,
    as_json: face.Json = False,
) -> None:
    """Measure the fixed display scale and the null of each method, and write them beside the model card."""
    with face.reported(as_json):
        loaded = load_model(model, trust_code=trust_code)
        chosen = [make_explainer(m) for m in method] if method else [make_explainer(m) for m in USUAL]
        cases, normal_cases = read_cases(cohort).cases, read_cases(normals).cases if normals else ()
        with face.progress(as_json) as bar:
            task = bar.add_task("cases", total=len(cases) + len(normal_cases))
            table = measure_references(
                loaded,
                cases,
                normal_cases,
                chosen,
                Request(targets=tuple(target or ())),
                words,
                lambda name: bar.update(task, advance=1, description=name),
            )
        path = write_references(loaded.folder, merged(loaded.references, table), loaded.model.digest)
        if as_json:
            face.show_json({"written": str(path), "methods": sorted(table)})
        else:
            face.out.print(f"written: {path}", soft_wrap=True)


@app.command()
def engines(
    case: Annotated[Path, typer.Argument(help="An image that the model is for: errors are measured on it.")],
    model: Annotated[Path, typer.Option("--model", help="model.toml or another model file.")],
    target: Annotated[list[str] | None, typer.Option("--target", help="As for explain; repeatable.")] = None,
    crop: Annotated[str | None, typer.Option("--crop", help="L,P,S: center in mm, for models that expect it.")] = None,
    trust_code: face.Trust = False,
    as_json: face.Json = False,
) -> None:
    """Measure every engine for perturbed images: how fast it is here, and how far it errs on masks of this image."""
    with face.reported(as_json):
        loaded = load_model(model, trust_code=trust_code)
        request = Request(targets=tuple(target or ()), crop=face.point(crop), override=True)
        reports, refused = measure_case(read_cases(case).cases[0], loaded, request)
        if as_json:
            rows = [asdict(r) | {"speedup": _speedup(r, reports[0])} for r in reports]
            face.show_json(
                {
                    "engines": [{k: v for k, v in row.items() if k != "refused"} for row in rows],
                    "refused": [{"name": name, "why": why} for name, why in refused],
                }
            )
            return
        table = Table(title="Engines for perturbed images, measured on this machine")
        for column in ("engine", "precision", "at once", "ms each", "times faster", "effect error", "r", "build s"):
            table.add_column(column, overflow="fold")
        for r in reports:
            faster = _speedup(r, reports[0])
            table.add_row(
                r.name,
                r.precision,
                str(r.batch),
                "" if r.ms_each is None else f"{r.ms_each:.3g}",
                "" if faster is None else f"{faster:.2f}",
                f"{100 * r.effect_error:.2g}%",
                f"{r.r:.5f}",
                f"{r.build_s:.1f}",
            )
        face.out.print(table)
        for name, why in refused:
            face.out.print(f"{name} refused: {why}", highlight=False)


def _speedup(report: EngineReport, module: EngineReport) -> float | None:
    return None if report.ms_each is None or module.ms_each is None else module.ms_each / report.ms_each


def _inputs(loaded: LoadedModel, case: Path | None) -> dict[str, torch.Tensor]:
    model: Model = loaded.model
    if case is not None:
        return open_case(read_cases(case).cases[0], model).inputs
    if any(s.size is None for s in model.inputs if s.rank):
        raise BadOption("the model card gives no input size, so shapes are not known", "give an image with --case")
    return {s.name: torch.zeros(1, s.channels, *(s.size or ())) for s in model.inputs}


def _facts(loaded: LoadedModel) -> dict[str, object]:
    model = loaded.model
    windows = model.inference
    return {
        "name": model.identity.name,
        "version": model.identity.version,
        "form": loaded.form.value,
        "license": loaded.card.model.license if loaded.card is not None else NOT_STATED,
        "weights sha256": model.digest,
        "task": model.output.task,
        "labels": list(model.output.labels),
        "inputs": [
            f"{s.name}: {s.rank}-D, {s.channels} channel(s), size {s.size or 'any'}, spacing {s.spacing or 'any'}"
            for s in model.inputs
        ],
        "windows": windows.words if windows is not None else "none: images go in whole",
        "operating point": dict(model.output.operating_point),
        "doubts": list(loaded.notes),
    }


def _print(report: dict[str, object]) -> None:
    shown = ("name", "version", "form", "license", "weights sha256", "task", "labels", "inputs", "windows")
    for key in (*shown, "operating point"):
        face.out.print(f"[bold]{key}[/]: {report[key]}", soft_wrap=True, highlight=False)
    table = Table(title="What this model can and cannot do, and why")
    for column in ("ability", "", "why"):
        table.add_column(column)
    for row in report["abilities"]:
        table.add_row(row["ability"], "yes" if row["can"] else "no", row["why"])
    face.out.print(table)
    for doubt in report["doubts"]:
        face.out.print(f"doubt: {escape(doubt)}", soft_wrap=True, highlight=False)
    golden = report["golden"]
    for row in golden:
        verdict = "as promised" if row["passed"] else "[bold red]NOT as promised: this model explains nothing[/]"
        face.out.print(
            f"golden {row['file']}: {verdict} (off by {row['deviation']:.2g}, {row['tolerance']:.2g} allowed)"
        )
    if not golden:
        face.out.print("no golden vectors: a preprocessing mismatch would not be noticed")
    known = report["references"]
    face.out.print(f"display references: {known or 'none: maps are drawn on a scale of their own, and no region'}")
