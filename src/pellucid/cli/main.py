"""``pellucid``: the command."""

from importlib.metadata import version
from typing import Annotated

import typer

from pellucid.cli import (
    ask,
    audit,
    cohort,
    collecting,
    compare,
    demo,
    dicom,
    explain,
    face,
    gate,
    lists,
    models,
    paper,
    study,
    verify,
)

app = typer.Typer(
    name="pellucid",
    help="Explain any medical-imaging model, and measure how far the answer can be relied upon. Research use: not a "
    "medical device. Exit codes: 0 done or PASS, 1 FAIL, 2 bad input, 3 INCONCLUSIVE or NOT MEASURED.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals may hold what a log must not
)


def _version(asked: bool) -> None:
    if asked:
        face.out.print(f"pellucid {version('pellucid')}")
        raise typer.Exit


@app.callback()
def common(
    _shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Options of every command."""


app.command()(demo.demo)
app.command()(explain.explain)
app.command()(explain.evaluate)
app.command()(compare.compare)
app.command()(cohort.cohort)
app.command("gate")(gate.gate_command)
app.command()(ask.ask)
app.command()(lists.methods)
app.command()(lists.metrics)
app.command("collections")(collecting.show_collections)
app.command()(verify.verify)
app.command()(paper.paper)
app.add_typer(dicom.app, name="dicom")
app.add_typer(models.app, name="models")
app.add_typer(study.app, name="study")
app.add_typer(audit.app, name="audit")


def run() -> None:
    """The entry point of the installed command."""
    app()
