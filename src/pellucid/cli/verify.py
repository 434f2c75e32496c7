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
from pellucid.verify.metrics_running import chosen_metrics
from pellucid.verify.metrics_running import verify_metrics as compare_metrics
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
Metrics = Annotated[bool, typer.Option("--metrics", help="Compare metrics instead, with Quantus and captum.")]
Methods = Annotated[
    list[str] | None, typer.Option("--method", help="Only this method, or this metric (may be repeated).")
]
Peers = Annotated[list[str] | None, typer.Option("--peer", help="Only this peer (may be repeated).")]
Python = Annotated[
    Path | None,
    typer.Option(
        "--peers-python",
        help="Interpreter with grad-cam, zennit, shap, lime, SALib, quantus; or set $PELLUCID_PEERS_PYTHON.",
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder to keep the result in, as verify.json (verify-metrics.json).")
]


def verify(
    method: Methods = None,
    peer: Peers = None,
    require_all: RequireAll = False,
    peers_python_path: Python = None,
    out: Out = None,
    metrics: Metrics = False,
    as_json: face.Json = False,
) -> None:
    """Run each method here and in its peers, from captum to scikit-learn, and tell how far the maps deviate.

    With --metrics: score the same maps with each metric, here and in Quantus and captum, and tell how far the numbers
    deviate.

    Exit code 0: every map is equal (an estimate: within its stated error), or a numbered defect of the peer explains
    the deviation. 1: one differs, nothing was compared, or with --require-all something was not run.
    """
    with face.reported(as_json):
        python = peers_python(_checked(peers_python_path))
        folder = face.out_folder(out) if out is not None else None
        done = _compared(tuple(method or ()), tuple(peer or ()), python, metrics, as_json)
        if folder is not None:
            name = "verify-metrics.json" if metrics else "verify.json"
            write_text(folder / name, face.json_text(done.plain(require_all)))
        if as_json:
            face.show_json(done.plain(require_all))
        else:
            _show(done, metrics)
    if not done.passed(require_all):
        raise typer.Exit(face.FAIL)


def _checked(path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise BadOption(f"there is no interpreter {path}", "give the python of an environment that has the peers")
    return path


def _compared(
    names: tuple[str, ...], peers: tuple[str, ...], python: Path | None, metrics: bool, as_json: bool
) -> Verification:
    """The comparison of methods or of metrics, with its progress."""
    with face.progress(as_json) as bar:

        def step(what: str, count: int) -> None:
            bar.update(task, description=what, advance=count)

        if metrics:
            scores = chosen_metrics(names, peers)
            task = bar.add_task("verify", total=scores.steps)
            return compare_metrics(scores, python, step)
        maps = chosen(names, peers)
        task = bar.add_task("verify", total=maps.steps)
        return compare(maps, python, step)


def _show(done: Verification, metrics: bool) -> None:
    """A table of maps or of metrics, one of defects, and what they come to."""
    kind = "metric" if metrics else "method"
    table = Table(title=f"The same {kind} here and in its peers")
    numbers = ("here", "there") if metrics else ()
    for column in (kind, "peer", "network and layer", "image", *numbers, "deviation", "tolerance", "verdict"):
        table.add_column(column)
    for row in done.rows:
        table.add_row(
            escape(row.method),
            escape(f"{row.peer} {row.call}"),
            row.model,
            row.image,
            *(["" if n is None else f"{n:.6g}" for n in (row.here, row.there)] if metrics else ()),
            "" if row.deviation is None else f"{row.deviation:.1e}",
            f"{row.tolerance:g}",
            f"[{_COLORS[row.verdict]}]{escape(row.words)}[/]",
        )
    face.out.print(table)
    if done.shown:
        defects = Table(
            title="Defects of the peers" if metrics else "Defects that are no matter of a map's values", show_lines=True
        )
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
