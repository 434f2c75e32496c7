"""``pellucid verify``: the same method here and in every installed peer, on seeded networks and real images."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pellucid.cli import face
from pellucid.core.atomic import write_text
from pellucid.core.errors import BadOption
from pellucid.verify.apart import peers_python
from pellucid.verify.running import chosen
from pellucid.verify.running import verify as compare
from pellucid.verify.verdict import Verdict, Verification

_COLORS = {
    Verdict.EQUAL: "green",
    Verdict.WITHIN: "green",
    Verdict.EXPLAINED: "cyan",
    Verdict.SHOWN: "cyan",
    Verdict.DIFFERS: "bold red",
    Verdict.NOT_RUN: "yellow",
}

RequireAll = Annotated[bool, typer.Option("--require-all", help="Fail also where a peer could not be run.")]
Methods = Annotated[list[str] | None, typer.Option("--method", help="Only this method (may be repeated).")]
Peers = Annotated[list[str] | None, typer.Option("--peer", help="Only this peer (may be repeated).")]
Python = Annotated[
    Path | None,
    typer.Option(
        "--peers-python", help="Interpreter with grad-cam, zennit, shap, lime, SALib; or set $PELLUCID_PEERS_PYTHON."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder to keep the result in, as verify.json.")]


def verify(
    method: Methods = None,
    peer: Peers = None,
    require_all: RequireAll = False,
    peers_python_path: Python = None,
    out: Out = None,
    as_json: face.Json = False,
) -> None:
    """Run each method here and in its peers, from captum to scikit-learn, and tell how far the maps deviate.

    Exit code 0: every map is equal (an estimate: within its stated error), or a numbered defect of the peer explains
    the deviation. 1: one differs, nothing was compared, or with --require-all something was not run.
    """
    with face.reported(as_json):
        python = peers_python(_checked(peers_python_path))
        folder = face.out_folder(out) if out is not None else None
        plan = chosen(tuple(method or ()), tuple(peer or ()))
        with face.progress(as_json) as bar:
            task = bar.add_task("verify", total=plan.steps)
            done = compare(plan, python, lambda what, count: bar.update(task, description=what, advance=count))
        if folder is not None:
            write_text(folder / "verify.json", face.json_text(done.plain(require_all)))
        if as_json:
            face.show_json(done.plain(require_all))
        else:
            _show(done)
    if not done.passed(require_all):
        raise typer.Exit(face.FAIL)


def _checked(path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise BadOption(f"there is no interpreter {path}", "give the python of an environment that has the peers")
    return path


def _show(done: Verification) -> None:
    """A table of maps, one of defects, and what they come to."""
    table = Table(title="The same method here and in its peers")
    for column in ("method", "peer", "network and layer", "image", "deviation", "tolerance", "verdict"):
        table.add_column(column)
    for row in done.rows:
        table.add_row(
            escape(row.method),
            f"{row.peer} {row.call}",
            row.model,
            row.image,
            "" if row.deviation is None else f"{row.deviation:.1e}",
            f"{row.tolerance:g}",
            f"[{_COLORS[row.verdict]}]{escape(row.words)}[/]",
        )
    face.out.print(table)
    if done.shown:
        defects = Table(title="Defects that are no matter of a map's values", show_lines=True)
        for column in ("defect", "peer", "the peer", "here", "verdict"):
            defects.add_column(column)
        for one in done.shown:
            color = _COLORS[one.verdict]
            defects.add_row(
                one.defect, one.peer, escape(one.theirs), escape(one.ours), f"[{color}]{escape(one.words)}[/]"
            )
        face.out.print(defects)
    counted = ", ".join(f"{n} {verdict}" for verdict, n in done.counts.items() if n)
    face.out.print(f"{counted or 'nothing was compared'} in {done.seconds:.0f} s")
