"""``pellucid cohort``: what a model depends on, from many cases."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pellucid.cli import face
from pellucid.core.errors import PellucidError
from pellucid.core.explanation import Effects, Explanation
from pellucid.core.infill import parse_infill
from pellucid.io.labelmap import parse_atlas
from pellucid.io.models import load_model
from pellucid.io.reader import iter_cases
from pellucid.show.effects import cells, headings
from pellucid.workbench.delivery import checked
from pellucid.workbench.gathering import PAGE, Gathered, Wish, deliver_cohort, effects_of, explain_cohort, gather
from pellucid.workbench.registry import make_cohort_method

Cases = Annotated[Path, typer.Argument(help="A folder of images, or a CSV with image, label, group, covariate:NAME.")]
ModelPath = Annotated[Path, typer.Option("--model", help="model.toml, TorchScript, .pt2, MONAI bundle folder or ONNX.")]
Method = Annotated[str, typer.Option("--method", help="NAME or NAME:parameter=value,... of a method for cohorts.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the page and the numbers.")]
Target = Annotated[str | None, typer.Option("--target", help="LABEL or A>B, the same for every case.")]
Atlas = Annotated[
    str | None, typer.Option("--region-atlas", help="LABELMAP or LABELMAP:NAMES that fits every case (lobes, organs).")
]
Blocks = Annotated[int, typer.Option("--blocks", help="Without an atlas: blocks along each axis of the image.")]
Fill = Annotated[list[str] | None, typer.Option("--fill", help="0, '-800 HU', blur:5, mean, median:0.25.")]
Override = Annotated[bool, typer.Option("--override", help="Take cases that the model card excludes.")]


def cohort(
    cases: Cases,
    model: ModelPath,
    method: Method,
    out: Out,
    target: Target = None,
    region_atlas: Atlas = None,
    blocks: Blocks = 3,
    fill: Fill = None,
    override: Override = False,
    device: face.Device = "cpu",
    seed: face.Seed = 0,
    trust_code: face.Trust = False,
    audit: face.AuditFile = None,
    as_json: face.Json = False,
) -> None:
    """Explain what a model depends on over many cases: a page, and the numbers with their intervals."""
    with face.reported(as_json):
        wish = Wish(
            target=target,
            atlas=parse_atlas(region_atlas) if region_atlas else None,
            blocks=blocks,
            infills=tuple(parse_infill(f) for f in fill) if fill else None,
            seed=seed,
            override=override,
        )
        _run(cases, model, method, out, wish, face.Session(device, trust_code, audit, as_json))


def _run(cases: Path, model: Path, method: str, out: Path, wish: Wish, session: face.Session) -> None:
    recorder = face.recorder(session.audit)
    try:
        explainer = make_cohort_method(method)
        loaded = load_model(model, session.trust_code, face.check_device(session.device))
        checked(loaded)
        folder = face.out_folder(out)
        recorder.configured(loaded.model, {"seed": wish.seed})
        with face.progress(session.as_json) as bar:
            step = face.stepper(bar, bar.add_task("cases", total=None), "reading")
            gathered = gather(iter_cases(cases), loaded, wish, step)
            step(explainer.name)
            explanation = explain_cohort(gathered, loaded, explainer)
        results = deliver_cohort(explanation, gathered, folder, recorder)
    except PellucidError as error:
        recorder.failed("cohort", type(error).__name__)
        raise
    if session.as_json:
        face.show_json(results)
    else:
        _show(explanation, gathered, effects_of(explanation))
        face.out.print(f"look at: {folder / PAGE}", soft_wrap=True)
    if gathered.failures:
        raise typer.Exit(face.BAD_INPUT)


def _show(explanation: Explanation, gathered: Gathered, effects: Effects) -> None:
    made = explanation.provenance
    table = Table(title=f"{made.method} of {made.target}, {made.case} ({made.applicability})")
    for name in headings(effects):
        table.add_column(name, overflow="fold")
    for row in cells(effects):
        table.add_row(*row)
    face.out.print(table)
    for words in (*effects.said, *made.warnings):
        face.out.print(words, highlight=False)
    for name, error in gathered.failures:
        face.say_error(error, name)
