"""``pellucid study``: many cases, models and methods into one table, which a stopped run goes on filling."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pellucid.cli import face
from pellucid.core.errors import PellucidError
from pellucid.show.words import number, unit_word
from pellucid.study.delivery import Delivered, deliver_study, read_study
from pellucid.study.folder import PAGE, Folder
from pellucid.study.plan import load_study
from pellucid.study.running import prepare, run_study
from pellucid.study.summary import Line, by_metric

app = typer.Typer(help="Many cases, models and methods into one table.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file; docs/evidence.md lists its keys.")]
Done = Annotated[Path, typer.Argument(metavar="FOLDER", help="The --out of pellucid study run.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for table, figures and page; a stopped run goes on in it.")]
Restart = Annotated[bool, typer.Option("--restart", help="Forget what the folder holds, and do everything again.")]


@app.command()
def run(
    study: File,
    out: Out,
    restart: Restart = False,
    device: face.Device = "cpu",
    trust_code: face.Trust = False,
    audit: face.AuditFile = None,
    as_json: face.Json = False,
) -> None:
    """Explain and score every case; write the table, its summary and the page.

    A run that was stopped goes on where it was when it is started again with the same --out.
    """
    with face.reported(as_json):
        done = _run(study, out, restart, face.Session(device, trust_code, audit, as_json))
        _tell(done, out, as_json)
    if done.summary.failures:
        raise typer.Exit(face.BAD_INPUT)


@app.command()
def show(folder: Done, as_json: face.Json = False) -> None:
    """Print the summary of a study that is done."""
    with face.reported(as_json):
        _tell(read_study(folder), folder, as_json)


def _run(file: Path, out: Path, restart: bool, session: face.Session) -> Delivered:
    recorder = face.recorder(session.audit)
    try:
        study = load_study(file)
        path = face.out_folder(out)
        ready = prepare(study, path, session.trust_code, face.check_device(session.device))
        folder = Folder.opened(path, ready.manifest, restart)
        for loaded in ready.models.values():
            recorder.configured(loaded.model, {"seeds": len(study.plan.seeds), "engine": study.plan.engine})
        with face.progress(session.as_json) as bar:
            task = bar.add_task("study", total=ready.size)

            def advance(what: str, count: int) -> None:
                bar.update(task, description=what, advance=count)

            ran = run_study(ready, folder, recorder, advance)
        return deliver_study(ready, folder, ran, recorder)
    except PellucidError as error:
        recorder.failed("study", type(error).__name__)
        raise


def _tell(done: Delivered, folder: Path, as_json: bool) -> None:
    if as_json:
        face.show_json(done.plain())
        return
    for words in done.said:
        face.out.print(words, highlight=False)
    for (model, target, metric), lines in by_metric(done.summary).items():
        face.out.print(_table(f"{metric} ({model}, target {target})", lines))
    for case, model, reason in done.summary.failures:
        face.err.print(f"[bold red]{escape(case)}, {escape(model)}[/]: {escape(reason)}", soft_wrap=True)
    for method, model, reason in done.summary.skipped:
        face.out.print(f"{method} of {model}: {reason}", highlight=False)
    for verdict in done.verdicts:
        face.out.print(f"{verdict.protocol.id}, {verdict.method}: {verdict.words}", highlight=False)
    face.out.print(f"look at: {folder / PAGE}", soft_wrap=True)


def _table(title: str, lines: Sequence[Line]) -> Table:
    unit = "" if lines[0].unit == "1" else f", {unit_word(lines[0].unit)}"
    table = Table(title=title, title_justify="left")
    for column in ("method", f"mean{unit}", f"{100 * lines[0].mean.level:g}% interval", "patients", "undefined"):
        table.add_column(column, overflow="fold")
    for line in lines:
        mean = line.mean
        bounds = f"{number(mean.low)} to {number(mean.high)}" if mean.bounded else f"none: {mean.note}"
        undefined = f"{mean.undefined} of {mean.undefined + mean.count}" if mean.undefined else ""
        table.add_row(line.method, number(mean.value), bounds, str(mean.clusters), undefined)
    return table
