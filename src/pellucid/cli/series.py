"""``pellucid dicom series``: what a study holds, and which of it a model would be shown."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from rich.markup import escape
from rich.table import Table
from typer import Argument, Option

from pellucid.cli import face
from pellucid.core.errors import NotApplicable, UnreadableImage
from pellucid.io.dicom import Survey
from pellucid.io.modelcard import CARD_NAME, read_card
from pellucid.io.reader import survey_study
from pellucid.io.selection import Choosing, Judged, candidates, choose, judge

Folder = Annotated[Path, Argument(help="Folder of a study, zip archive, or DICOMDIR.")]
Card = Annotated[Path | None, Option("--model", help="Model card (model.toml): says what it would choose, and why.")]


def series(folder: Folder, model: Card = None, as_json: face.Json = False) -> None:
    """List the series of a study by number, as --series takes them, without anything that says whose they are."""
    with face.reported(as_json):
        if not folder.exists():
            raise UnreadableImage("expected the folder of a study, got a path where there is none", "check the path")
        found = survey_study(folder)
        if not found.members:
            raise UnreadableImage("expected DICOM images, got none that can be read", "give the folder of a study")
        card = read_card(model / CARD_NAME if model.is_dir() else model) if model is not None else None
        told = [_told(study, Choosing(card)) for study in found.studies]
    if as_json:
        face.show_json({"studies": told, "others": list(found.others), "unreadable": len(found.failures)})
        return
    for number, study in enumerate(told, 1):
        _show(study, f"study {number} of {len(told)}" if len(told) > 1 else "")
    beside = [f"{count} x {kind}" for kind, count in sorted(Counter(found.others).items())]
    beside += [f"{len(found.failures)} files that cannot be read"] if found.failures else []
    if beside:
        face.out.print(f"beside them: {'; '.join(beside)}", highlight=False, soft_wrap=True)


def _told(study: Survey, choosing: Choosing) -> dict[str, Any]:
    """A study as JSON types: its series, and which of them the card would choose."""
    told: dict[str, Any] = {"series": [_plain(judge(one, choosing)) for one in candidates(study)], "chosen": None}
    if choosing.card is None:
        return told
    if study.separate:
        return told | {"words": f"{len(study.members)} separate images: each is a case of its own"}
    try:
        _, choice = choose(study, choosing)
    except NotApplicable as error:
        return told | {"words": str(error)}
    if choice is None:
        return told | {"words": "one series: there is nothing to choose"}
    return told | {"chosen": choice.number, "words": choice.words}


def _show(study: dict[str, Any], title: str) -> None:
    table = Table(title=title)
    for column in ("number", "series", "files", "about"):
        table.add_column(column, overflow="fold")
    for one in study["series"]:
        table.add_row(str(one["number"]), escape(one["series"]), str(one["files"]), escape(one["words"]))
    face.out.print(table)
    if "words" in study:
        face.out.print(study["words"], highlight=False, soft_wrap=True, markup=False)


def _plain(judged: Judged) -> dict[str, object]:
    one = judged.candidate
    return {
        "number": one.number,
        "series": one.title,
        "files": len(one.members),
        "slices": one.slices,
        "nature": one.nature,
        "problem": one.problem,
        "verdict": judged.verdict,
        "words": judged.words,
    }
