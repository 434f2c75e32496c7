"""``pellucid paper``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli import face
from pellucid.study.delivery import read_study
from pellucid.study.folder import MANIFEST, read_manifest
from pellucid.workbench.manuscript import Score
from pellucid.workbench.papering import write_paper

Done = Annotated[Path, typer.Argument(metavar="FOLDER", help="The --out of pellucid explain, evaluate or study run.")]
BurnedIn = Annotated[
    bool, typer.Option("--allow-burned-in", help="Also figures of images that say to hold text: you have looked.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder for figures, captions, tables and sources.")]


def paper(folder: Done, out: Out, allow_burned_in: BurnedIn = False, as_json: face.Json = False) -> None:
    """Write results for a paper: figures at 85 and 174 mm, captions, tables with intervals, methods, sources, CLAIM.

    Nothing of it names a case: cases are numbered. What makes every map again is in reproduction.json.
    """
    with face.reported(as_json):
        scores: tuple[Score, ...] = ()
        study: dict[str, object] | None = None
        if (folder / MANIFEST).is_file():
            lines = read_study(folder).summary.lines
            study = asdict(read_manifest(folder))
            scores = tuple(
                Score(line.model, line.target, line.method, line.metric, line.unit, line.direction, line.mean)
                for line in lines
            )
        done = write_paper(folder, face.out_folder(out), scores, study, allow_burned_in)
        if as_json:
            face.show_json(done.plain())
            return
        for words in done.warnings:
            face.out.print(f"look: {words}", highlight=False)
        face.out.print(f"{done.figures} figures and {len(done.files)} files in {out}", highlight=False, soft_wrap=True)
