"""``pellucid compare``: two saved maps of one case against each other."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli import face
from pellucid.core.atomic import write_text
from pellucid.io.labelmap import parse_atlas
from pellucid.workbench.delivery import deliver_comparison

First = Annotated[Path, typer.Argument(help="A saved explanation (.json); its grid is used.")]
Second = Annotated[Path, typer.Argument(help="Another: other target, model or method, or an earlier examination.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the page.")]
Atlas = Annotated[str | None, typer.Option("--atlas", help="LABELMAP or LABELMAP:NAMES (lobes, organs).")]
Ranks = Annotated[bool, typer.Option("--ranks", help="Compare ranks only: for two methods or two units.")]
Prior = Annotated[bool, typer.Option("--prior", help="SECOND is an earlier examination of the same patient.")]


def compare(
    first: First,
    second: Second,
    out: Out,
    atlas: Atlas = None,
    ranks: Ranks = False,
    prior: Prior = False,
    audit: face.AuditFile = None,
    as_json: face.Json = False,
) -> None:
    """Show two saved maps side by side on one scale, with their difference region by region."""
    with face.reported(as_json):
        recorder = face.recorder(audit)
        regions = parse_atlas(atlas) if atlas else None
        done = deliver_comparison((first, second), face.out_folder(out), recorder, regions, ranks, prior)
        results = done.plain()
        write_text(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False))
        if as_json:
            face.show_json(results)
            return
        face.out.print(f"{done.difference.title}: {done.difference.state}", highlight=False)
        face.out.print(f"look at: {done.files['report']}", soft_wrap=True)
