"""``pellucid dicom``: explanations as DICOM objects, and the archives that hold them."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pellucid.cli import attest, face, series
from pellucid.core.atomic import write_text
from pellucid.core.errors import ArchiveError, BadOption
from pellucid.pacs.inbox import Inbox
from pellucid.pacs.parcel import Parcel, Receipt
from pellucid.pacs.query import UID_KEYS, Match, Query, read_queries
from pellucid.workbench.dispatching import Counter, gather, own_outbox, settings_of

app = typer.Typer(
    help="Verify explanations that were written as DICOM objects, and speak to archives.", no_args_is_help=True
)

app.command()(attest.verify)
app.command()(series.series)

_MOST_SERIES = 1000
Name = Annotated[str, typer.Argument(metavar="NAME", help="An archive of the settings.")]
From = Annotated[str, typer.Option("--from", metavar="NAME", help="An archive of the settings.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="Settings; default: pellucid.pacs.toml in your config folder (docs/archives.md)."),
]
QueryFile = Annotated[
    Path | None,
    typer.Option("--query", help="JSON with DICOM keywords, or what find wrote; - reads standard input."),
]
Study = Annotated[str | None, typer.Option("--study", help="UID; it stays in the shell's history, a file does not.")]
Series = Annotated[str | None, typer.Option("--series", help="UID of a series of that study.")]


@app.command()
def echo(name: Name, config: Config = None, audit: face.AuditFile = None, as_json: face.Json = False) -> None:
    """Ask an archive whether it is there and lets us in."""
    with _reported(as_json):
        Counter(settings_of(config), name, face.recorder(audit)).echo()
        if as_json:
            face.show_json({"archive": name, "ok": True})
        else:
            face.out.print(f"{name} answers")


@app.command()
def send(
    objects: Annotated[list[Path], typer.Argument(metavar="OBJECTS...", help="DICOM objects, or folders of them.")],
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="An archive of the settings.")],
    compare: Annotated[bool, typer.Option("--compare", help="Fetch each object back and compare it.")] = False,
    any_maker: Annotated[bool, typer.Option("--any", help="Also derived objects that are not ours.")] = False,
    config: Config = None,
    audit: face.AuditFile = None,
    as_json: face.Json = False,
) -> None:
    """Send objects, and say so only after the archive was asked and has them.

    What it has already is not sent again, so the same command goes on where one was cut off. Exit code 1 where one
    object is not there at the end.
    """
    with _reported(as_json):
        counter = Counter(settings_of(config), to, face.recorder(audit))
        parcels, doubts = gather(objects, any_maker)
        with face.progress(as_json) as bar:
            task = bar.add_task(f"to {to}", total=len(parcels))
            receipts = counter.send(parcels, own_outbox(), compare, lambda _, n: bar.advance(task, n))
        _tell_sent(to, receipts, doubts, as_json)
    if not all(receipt.good for receipt in receipts.values()):
        raise typer.Exit(face.FAIL)


@app.command()
def find(
    source: From,
    query: QueryFile = None,
    study: Study = None,
    series: Series = None,
    out: Annotated[Path | None, typer.Option("--out", help="JSON with the series found, for fetch --query.")] = None,
    config: Config = None,
    audit: face.AuditFile = None,
    as_json: face.Json = False,
) -> None:
    """List the series that fit, without anything that says whose they are; their UIDs go into --out alone."""
    with _reported(as_json):
        counter = Counter(settings_of(config), source, face.recorder(audit))
        found = _matches(counter, _queries(query, study, series))
        if out is not None:
            write_text(out, face.json_text([match.keys() for match in found]))
            out.chmod(0o600)
        _tell_found(found, as_json)


@app.command()
def fetch(
    source: From,
    out: Annotated[Path, typer.Option("--out", help="Folder; each series goes into a numbered one inside.")],
    query: QueryFile = None,
    study: Study = None,
    series: Series = None,
    config: Config = None,
    audit: face.AuditFile = None,
    as_json: face.Json = False,
) -> None:
    """Bring the series that fit, as they are stored; files are named after their content.

    Exit code 1 where not every object came.
    """
    with _reported(as_json):
        counter = Counter(settings_of(config), source, face.recorder(audit))
        matches = _matches(counter, _queries(query, study, series))
        folder = face.out_folder(out)
        known = [match.instances for match in matches if match.instances]
        with face.progress(as_json) as bar:
            task = bar.add_task(f"from {source}", total=sum(known) if len(known) == len(matches) else None)
            inbox = counter.fetch(matches, folder, lambda n: bar.update(task, completed=n))
        _tell_fetched(source, len(matches), inbox, as_json)
    if inbox.refusals or not inbox.taken:
        raise typer.Exit(face.FAIL)


def _queries(file: Path | None, study: str | None, series: str | None) -> tuple[Query, ...]:
    given = {key: uid for key, uid in zip(UID_KEYS, (study, series), strict=True) if uid is not None}
    if (file is None) == (not given):
        raise BadOption("expected either --query or --study", "a file keeps UIDs out of the shell's history")
    if file is None:
        return (Query(given),)
    try:
        return read_queries(sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(
            f"the query cannot be read ({type(error).__name__})", "give a JSON file, or - for standard input"
        ) from None


def _matches(counter: Counter, queries: Sequence[Query]) -> list[Match]:
    found: dict[str, Match] = {}
    for query in queries:
        some = counter.find(query, _MOST_SERIES + 1)
        if len(some) > _MOST_SERIES:
            raise ArchiveError(f"more than {_MOST_SERIES} series fit", "narrow the query, by day or modality")
        found |= {match.series: match for match in some}
    if not found:
        raise ArchiveError("the archive has no series that fits", "widen the query; see whether we may see the study")
    return list(found.values())


@contextmanager
def _reported(as_json: bool) -> Iterator[None]:
    """Our errors as one line; those of an archive leave with 1: what was rightly asked was not done."""
    with face.reported(as_json):
        try:
            yield
        except ArchiveError as error:
            if as_json:
                face.show_json({"error": type(error).__name__, "problem": error.problem, "mend": error.mend})
            face.say_error(error)
            raise typer.Exit(face.FAIL) from None


def _tell_sent(to: str, receipts: dict[Parcel, Receipt], doubts: Sequence[str], as_json: bool) -> None:
    good = sum(receipt.good for receipt in receipts.values())
    if as_json:
        told = [{"object": p.name, "kind": p.kind, "state": r.state, "words": r.words} for p, r in receipts.items()]
        face.show_json({"archive": to, "held": good, "objects": told, "warnings": list(doubts)})
        return
    for doubt in doubts:
        face.err.print(f"[yellow]Note[/]: {escape(doubt)}", soft_wrap=True, highlight=False)
    for each, receipt in receipts.items():
        words = f": {receipt.words}" if receipt.words else ""
        line = f"{receipt.state:8}  {each.name} ({each.kind}){words}"
        (face.out if receipt.good else face.err).print(escape(line), soft_wrap=True, highlight=False)
    face.out.print(f"{to} holds {good} of {len(receipts)} objects", highlight=False)


def _tell_found(found: Sequence[Match], as_json: bool) -> None:
    if as_json:
        face.show_json([{"modality": m.modality, "number": m.number, "instances": m.instances} for m in found])
        return
    for place, match in enumerate(found, 1):
        many = "" if match.instances is None else f", {match.instances} objects"
        face.out.print(f"{place:4}  {match.modality or '?'}  series {match.number}{many}", highlight=False)


def _tell_fetched(source: str, series: int, inbox: Inbox, as_json: bool) -> None:
    if as_json:
        told = {"archive": source, "series": series, "objects": len(inbox.taken), "refused": inbox.refused}
        face.show_json(told)
        return
    for words, many in inbox.refused.items():
        face.err.print(f"{many} refused: {escape(words)}", soft_wrap=True, highlight=False)
    face.out.print(f"{len(inbox.taken)} objects of {series} series from {source}", highlight=False)
