"""``pellucid demo``: the main job on real images, from packages that are installed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli import face
from pellucid.cli.telling import show, summary
from pellucid.demo.cases import MODELS, DemoCase, packaged
from pellucid.demo.expert import expert_cases
from pellucid.io.models import load_model
from pellucid.workbench.delivery import Checked, checked, deliver, overview
from pellucid.workbench.job import Finished, Request
from pellucid.workbench.recording import Recorder
from pellucid.workbench.registry import make_explainer, make_metric

Out = Annotated[Path, typer.Option("--out", help="Folder for the pages.")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder of open data sets: adds cases with expert masks.")]


def demo(
    out: Out = Path("out/demo"),
    data: Data = None,
    seed: face.Seed = 0,
    audit: face.AuditFile = None,
    as_json: face.Json = False,
) -> None:
    """Explain real images of several modalities with every method, score the maps, and write pages to look at."""
    with face.reported(as_json):
        folder = face.out_folder(out)
        recorder = face.recorder(audit)
        finished = _run(list(_cases(data)), folder, seed, recorder, as_json)
        if as_json:
            face.show_json({"cases": [summary(f) for f in finished], "index": str(folder / "index.html")})
            return
        for one in finished:
            show(one)
        face.out.print(f"look at: {folder / 'index.html'}", soft_wrap=True)


def _cases(data: Path | None) -> Iterator[DemoCase]:
    yield from packaged()
    if data is not None:
        yield from expert_cases(data)


def _run(cases: list[DemoCase], folder: Path, seed: int, recorder: Recorder, quiet: bool) -> list[Finished]:
    delivered: list[tuple[Finished, Checked]] = []
    models: dict[str, Checked] = {}
    with face.progress(quiet) as bar:
        task = bar.add_task("demo", total=len(cases))
        for one in cases:
            if one.model not in models:
                models[one.model] = checked(load_model(MODELS / one.model / "model.toml"))
            step = face.stepper(bar, task, one.case.name)
            done = deliver(one.case, models[one.model], _request(one, seed), folder, recorder, step)
            delivered.append((done, models[one.model]))
            bar.advance(task)
    overview(delivered, folder, "Pellucid: the demo")
    return [done for done, _ in delivered]


def _request(one: DemoCase, seed: int) -> Request:
    return Request(
        targets=(one.target,) if one.target else (),
        methods=tuple(make_explainer(m) for m in one.methods),
        metrics=tuple(make_metric(m) for m in one.metrics),
        crop=one.crop,
        seed=seed,
        override=one.override,
    )
