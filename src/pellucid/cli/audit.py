"""``pellucid audit``: verify the record."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.audit.verdict import verify as verify_log
from pellucid.cli import face

app = typer.Typer(help="The append-only record of what was done.", no_args_is_help=True)


@app.command()
def verify(
    log: Annotated[Path, typer.Argument(help="The audit log.")],
    anchor: Annotated[Path | None, typer.Option("--anchor", help="Head anchor kept outside the log.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Key file, where the chain is keyed.")] = None,
    as_json: face.Json = False,
) -> None:
    """Detect any change, insertion, removal, reordering or (with an anchor) a cut tail."""
    with face.reported(as_json):
        verdict = verify_log(log, anchor, key)
        if as_json:
            face.show_json(
                {"ok": verdict.ok, "tail_proven": verdict.tail_proven, "count": verdict.count, "words": verdict.words}
            )
        else:
            face.out.print(verdict.words, soft_wrap=True, highlight=False)
        if not verdict.ok:
            raise typer.Exit(face.FAIL)
