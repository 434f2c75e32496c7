"""``pellucid cohort``: what a model depends on, from many cases."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TaskID
from rich.table import Table

from pellucid.cli import face
from pellucid.cli.collecting import DataSet, Limit, Named, Select, data_set
from pellucid.core.errors import BadOption, PellucidError
from pellucid.core.explanation import Effects, Explanation
from pellucid.core.infill import parse_infill
from pellucid.io.labelmap import parse_atlas
from pellucid.io.models import load_model
from pellucid.io.reader import iter_cases
from pellucid.io.selection import Choosing
from pellucid.show.effects import cells, headings
from pellucid.workbench.delivery import checked
from pellucid.workbench.gathering import Gathered, Wish, gather
from pellucid.workbench.registry import make_cohort_method
from pellucid.workbench.surveying import PAGE, deliver_cohort, effects_of, explain_cohort

_HELP = "A folder of images (its cases.csv, where it has one), or a CSV with image, label, group, covariate:NAME."
TABLE = "cases.csv"
CasePath = Annotated[Path | None, typer.Argument(metavar="CASES", help=_HELP)]
Cases = Annotated[Path | None, typer.Option("--cases", help="The same as an option.")]
Background = Annotated[
    Path | None, typer.Option("--background", help="Other cases, such as normal ones, that parts are taken from.")
]
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
    model: ModelPath,
    method: Method,
    out: Out,
    case_path: CasePath = None,
    cases: Cases = None,
    background: Background = None,
    target: Target = None,
    region_atlas: Atlas = None,
    blocks: Blocks = 3,
    fill: Fill = None,
    override: Override = False,
    collection: Named = None,
    limit: Limit = None,
    select: Select = None,
    device: face.Device = "cpu",
    seed: face.Seed = 0,
    trust_code: face.Trust = False,
    audit: face.AuditFile = None,
    as_json: face.Json = False,
) -> None:
    """Explain what a model depends on over many cases: a page, and the numbers with their intervals.

    A run that was stopped goes on where it was when it is started again with the same --out.
    """
    with face.reported(as_json):
        wish = Wish(
            target=target,
            atlas=parse_atlas(region_atlas) if region_atlas else None,
            blocks=blocks,
            infills=tuple(parse_infill(f) for f in fill) if fill else None,
            seed=seed,
            override=override,
        )
        sources = _sources(case_path, cases, background, data_set(collection, limit, select, seed))
        _run(sources, model, method, out, wish, face.Session(device, trust_code, audit, as_json))


@dataclass(frozen=True)
class _Sources:
    """Where cases and background lie, and which public data set the cases are."""

    cases: Path
    background: Path | None
    known: DataSet | None = None


def _sources(argument: Path | None, option: Path | None, background: Path | None, known: DataSet | None) -> _Sources:
    given = [path for path in (argument, option) if path is not None]
    if len(given) != 1:
        raise BadOption(f"expected one folder or table of cases, got {len(given)}", "give CASES, or --cases CASES")
    found = given[0] if known else _table_in(given[0])
    return _Sources(found, _table_in(background) if background else None, known)


def _table_in(path: Path) -> Path:
    return path / TABLE if (path / TABLE).is_file() else path


def _run(sources: _Sources, model: Path, method: str, out: Path, wish: Wish, session: face.Session) -> None:
    recorder = face.recorder(session.audit)
    try:
        explainer = make_cohort_method(method)
        loaded = load_model(model, session.trust_code, face.check_device(session.device))
        checked(loaded)
        folder = face.out_folder(out)
        recorder.configured(loaded.model, {"seed": wish.seed})
        rule = Choosing(loaded.card)
        with face.progress(session.as_json) as bar:
            task = bar.add_task("cases", total=None)
            others = iter_cases(sources.background, choosing=rule) if sources.background else ()
            step = _counter(bar, task)
            each = sources.known.each(sources.cases) if sources.known else iter_cases(sources.cases, choosing=rule)
            gathered = gather(each, loaded, wish, step, others, folder)
            explanation = explain_cohort(gathered, loaded, explainer, folder, _stages(bar, task, explainer.name))
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


def _counter(bar: Progress, task: TaskID) -> Callable[[str], None]:
    """Says which case is read, and how many were."""

    def step(name: str) -> None:
        bar.update(task, description=f"reading {name}", advance=1)

    return step


def _stages(bar: Progress, task: TaskID, method: str) -> Callable[[str, int, int], None]:
    """Says how many cases a stage of the method has done."""
    return lambda stage, done, of: bar.update(task, description=f"{method}: {stage}", completed=done, total=of)


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
