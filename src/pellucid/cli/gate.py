"""``pellucid gate``: a protocol held against a study."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pellucid.cli import face
from pellucid.core.atomic import write_text
from pellucid.core.errors import BadOption
from pellucid.guide.protocol import load_protocol
from pellucid.study.folder import READS_TABLE, SCORES, finished
from pellucid.study.gating import Bench, Choice, gate
from pellucid.study.junit import bounds_words, junit_of, needed_words
from pellucid.study.readings import Reads, read_reads
from pellucid.study.table import STRATA, Row, read_rows
from pellucid.study.verdicts import SAYS, Finding, Verdict, exit_code

_COLORS = {"PASS": "green", "INDICATIVE": "green", "FAIL": "bold red", "INCONCLUSIVE": "yellow", "NOT MEASURED": "dim"}

_TWO = 2

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The --out of pellucid study run.")]
Name = Annotated[str, typer.Option("--protocol", help="A protocol of the package, or a file; docs/protocols.md.")]
Against = Annotated[
    Path | None, typer.Option("--against", help="Folder of an earlier study of the same cases: the change is told.")
]
Method = Annotated[str | None, typer.Option("--method", help="Judge this method only. Default: each on its own.")]
Model = Annotated[str | None, typer.Option("--model", help="Judge this model only, by its name in the study file.")]
ReadsFile = Annotated[Path | None, typer.Option("--reads", help="Table of reads; default: that of the study.")]
Arms = Annotated[str | None, typer.Option("--arms", help="WITH_MAP,WITHOUT: the two arms of the table of reads.")]
Target = Annotated[str | None, typer.Option("--target", help="Judge this target only.")]
Junit = Annotated[Path | None, typer.Option("--junit", help="Write the verdicts as JUnit XML into this file.")]


def gate_command(
    folder: Folder,
    protocol: Name,
    against: Against = None,
    method: Method = None,
    model: Model = None,
    target: Target = None,
    reads: ReadsFile = None,
    arms: Arms = None,
    junit: Junit = None,
    seed: face.Seed = 0,
    as_json: face.Json = False,
) -> None:
    """Hold a protocol against a study: PASS, FAIL, INCONCLUSIVE or NOT MEASURED for each criterion, from its interval.

    Exit code 0: every method judged passes (INDICATIVE where no primary source states a criterion as it is). 1: one
    fails. 3: one is open. 2: bad input.
    """
    with face.reported(as_json):
        rows, stopped = _rows(folder), finished(folder).stopped
        earlier = _rows(against) if against is not None else None
        bench = Bench(rows, _readings(folder, reads, arms), earlier, stopped)
        verdicts = gate(bench, load_protocol(protocol), Choice(model, target, method), seed)
        if junit is not None:
            write_text(junit, junit_of(verdicts))
    if as_json:
        face.show_json({"verdicts": [v.plain() for v in verdicts], "exit_code": exit_code(verdicts)})
    else:
        for verdict in verdicts:
            _show(verdict)
        face.out.print(SAYS)
    raise typer.Exit(exit_code(verdicts))


def _readings(folder: Path, given: Path | None, arms: str | None) -> Reads | None:
    """The table of reads that was given, or that of the study."""
    names = tuple(a.strip() for a in arms.split(",")) if arms else None
    if names is not None and len(names) != _TWO:
        raise BadOption(f"expected two arms, got {len(names)}", "write --arms WITH_MAP,WITHOUT")
    path = given or folder / READS_TABLE
    return read_reads(path, names) if given is not None or path.is_file() else None


def _rows(folder: Path) -> Sequence[Row]:
    finished(folder)
    return read_rows(folder / SCORES)


def _show(verdict: Verdict) -> None:
    """A table of criteria by tier, then strata and changes, then the verdict."""
    protocol = verdict.protocol
    face.out.print(
        f"[bold]{escape(protocol.title)}[/] ({protocol.id}, version {protocol.version}): "
        f"{escape(verdict.method)} of {escape(verdict.target)}, {escape(verdict.model)}",
        highlight=False,
    )
    table = Table()
    for column in ("tier", "criterion", "source", "verdict", "estimate and interval", "why"):
        table.add_column(column, overflow="fold")
    for finding in verdict.findings:
        c = finding.criterion
        why = finding.words + (f"; {needed_words(finding)}" if finding.state == "INCONCLUSIVE" else "")
        table.add_row(c.tier, c.words, c.source_status, _colored(finding.state), _numbers(finding), why)
    face.out.print(table)
    for finding in verdict.findings:
        _show_beside(finding)
    tiers = ", then ".join(f"{tier}: {_colored(state)}" for tier, state in verdict.tiers)
    face.out.print(f"Cascade: {tiers}", highlight=False)
    for note in verdict.notes:
        face.out.print(escape(note), highlight=False)
    color = _COLORS[verdict.state]
    face.out.print(f"[{color}]{escape(verdict.words)}[/]", highlight=False)


def _show_beside(finding: Finding) -> None:
    for level in finding.levels if finding.state != "NOT MEASURED" else ():
        found = bounds_words(level.found)
        where = f"{finding.criterion.id}, {STRATA[level.column]} {escape(level.name)}"
        face.out.print(f"  {where}: {found}, {level.found.clusters} patients, {_colored(level.state)}", highlight=False)
    change = finding.change
    if change is not None:
        found = bounds_words(change.found)
        note = f" ({escape(change.note)})" if change.note else ""
        face.out.print(
            f"  {finding.criterion.id}, change: {found}, {change.found.clusters} patients, {change.side}{note}",
            highlight=False,
        )


def _numbers(finding: Finding) -> str:
    found = finding.found
    return bounds_words(found) if found is not None and found.count else ""


def _colored(state: str) -> str:
    return f"[{_COLORS[state]}]{state}[/]"
