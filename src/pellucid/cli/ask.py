"""``pellucid ask``: what one region does to the score."""

from pathlib import Path
from typing import Annotated, cast

import typer
from rich.table import Table

from pellucid.cli import face
from pellucid.core.errors import PellucidError
from pellucid.core.infill import parse_infill
from pellucid.explain.byhand import Do, sentence
from pellucid.io.models import load_model
from pellucid.io.reader import read_cases, read_only_mask
from pellucid.io.selection import Choosing
from pellucid.show.words import number, unit_word
from pellucid.workbench.asking import Question, Told, ask_case
from pellucid.workbench.delivery import checked

CasePath = Annotated[Path, typer.Argument(help="An image file or a DICOM series folder.")]
ModelPath = Annotated[Path, typer.Option("--model", help="model.toml, TorchScript, .pt2, MONAI bundle folder or ONNX.")]
RegionPath = Annotated[Path, typer.Option("--region", help="Mask of the region, on the image.")]
DoWhat = Annotated[str, typer.Option("--do", help="hide the region, keep it alone, or swap it with its mirror side.")]
Target = Annotated[str | None, typer.Option("--target", help="LABEL or A>B; of a segmentation LABEL.")]
Shams = Annotated[int, typer.Option("--shams", help="Places elsewhere in the body where the same is done.")]
Fill = Annotated[list[str] | None, typer.Option("--fill", help="0, '-800 HU', blur:5, mean, median:0.25; twice.")]
Override = Annotated[bool, typer.Option("--override", help="Ask although the model card excludes the image.")]


def ask(
    case: CasePath,
    model: ModelPath,
    region: RegionPath,
    do: DoWhat = "hide",
    target: Target = None,
    shams: Shams = 8,
    fill: Fill = None,
    override: Override = False,
    device: face.Device = "cpu",
    seed: face.Seed = 0,
    trust_code: face.Trust = False,
    audit: face.AuditFile = None,
    as_json: face.Json = False,
) -> None:
    """Hide, keep or swap a region, and see what the score does beside the same done elsewhere."""
    with face.reported(as_json):
        fills = tuple(parse_infill(f) for f in fill) if fill else None
        question = Question(cast(Do, do), target, shams, fills, seed, override)
        _run(case, model, region, question, face.Session(device, trust_code, audit, as_json))


def _run(path: Path, model: Path, region: Path, question: Question, session: face.Session) -> None:
    recorder = face.recorder(session.audit)
    try:
        loaded = load_model(model, session.trust_code, face.check_device(session.device))
        checked(loaded)
        cases = read_cases(path, choosing=Choosing(loaded.card))
        mask, said = read_only_mask(cases, region)
        told = ask_case(cases.cases[0], loaded, mask, question)
    except PellucidError as error:
        recorder.failed("ask", type(error).__name__)
        raise
    recorder.asked(told.reply, told.origin)
    if session.as_json:
        face.show_json(told.plain() | ({"region": said} if said else {}))
    else:
        _show(told, (said,) if said else ())


def _show(told: Told, notes: tuple[str, ...]) -> None:
    reply = told.reply
    unit = unit_word(reply.unit)
    table = Table(title=f"{told.origin.case}: {reply.target} ({told.model}; model card: {told.applicability})")
    for column in ("", f"score ({unit})", "change"):
        table.add_column(column)
    table.add_row("as it is", number(reply.before), "")
    for words, after in reply.fills:
        table.add_row(f"{reply.do}, fill: {words}", number(after), number(after - reply.before))
    table.add_row(f"{reply.do}{', mean' if reply.fills else ''}", number(reply.after), number(reply.difference))
    if reply.sham is not None:
        span = f"{number(reply.sham)} ({number(reply.sham_low)} to {number(reply.sham_high)})"
        table.add_row(f"the same elsewhere, {reply.shams} places", "", span)
    face.out.print(table)
    for words in (sentence(reply), *notes, *reply.notes, f"{told.forwards} forwards, {told.ms:.0f} ms"):
        face.out.print(words, highlight=False)
