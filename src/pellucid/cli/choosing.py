"""``--index``, ``--tile`` and ``--series``: which of the images of a file, in each command that explains cases."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pellucid.core.errors import BadOption
from pellucid.io.cardschema import ModelCard
from pellucid.io.index import parse_index
from pellucid.io.reader import Cases
from pellucid.io.selection import Choosing
from pellucid.io.several import read_chosen
from pellucid.io.slide import Slide, Tile, open_slide

Index = Annotated[
    str | None,
    typer.Option(
        "--index", help="Of a file with several: page, frame or volume N from 0; START:STOP:STEP; T=0,C=1,Z=:"
    ),
]
Places = Annotated[
    list[str] | None,
    typer.Option("--tile", help="X,Y[,W,H] of a whole slide: corner in its finest pixels, size in pixels; repeatable."),
]
Richest = Annotated[
    int | None, typer.Option("--tiles", min=1, max=256, help="The N tiles of a whole slide with most tissue.")
]
Microns = Annotated[float | None, typer.Option("--mpp", help="Microns per pixel of tiles; default: the finest level.")]
SeriesNumber = Annotated[
    int | None,
    typer.Option("--series", help="Of a study with several: NUMBER in the list of 'dicom series'; before the card."),
]
Resample = Annotated[
    bool,
    typer.Option("--resample-geometry", help="Bring slices of a tilted gantry, or with a small gap, onto a grid."),
]
_SIDE = 512


@dataclass(frozen=True)
class Choice:
    """What the command line says of which images.

    Args:
        index: ``--index``.
        tile: ``--tile``, each as it was written.
        tiles: ``--tiles``.
        mpp: ``--mpp``.
        series: ``--series``.
        resample: ``--resample-geometry``.
    """

    index: str | None = None
    tile: tuple[str, ...] = ()
    tiles: int | None = None
    mpp: float | None = None
    series: int | None = None
    resample: bool = False


def chosen_cases(path: Path, choice: Choice, card: ModelCard | None = None) -> Cases:
    """The cases of a path, or of the images, tiles or series of it that were chosen, the last by the model card.

    Raises:
        PellucidError: as ``parse_index``, ``read_chosen`` and ``open_slide``; options that exclude each other.
    """
    if not choice.tile and choice.tiles is None:
        if choice.mpp is not None:
            raise BadOption("--mpp is of tiles, and none were asked for", "write --tile X,Y or --tiles 4 with it")
        choosing = Choosing(card, choice.series, choice.resample)
        return read_chosen(path, parse_index(choice.index), choosing)
    if choice.index is not None or (choice.tile and choice.tiles is not None):
        raise BadOption("expected one of --index, --tile and --tiles, got two of them", "leave one out")
    with open_slide(path) as slide:
        return Cases(tuple(slide.case(tile) for tile in _tiles(slide, choice)))


def _tiles(slide: Slide, choice: Choice) -> list[Tile]:
    if choice.tiles is not None:
        return slide.richest(choice.tiles, _SIDE, choice.mpp)
    found = []
    for text in choice.tile:
        numbers = re.fullmatch(r"(\d{1,9}),(\d{1,9})(?:,(\d{1,5}),(\d{1,5}))?", text.replace(" ", ""))
        if numbers is None:
            raise BadOption(f"expected --tile X,Y or X,Y,W,H, got {text[:40]!r}", "write for example --tile 12000,8000")
        x, y, width, height = (int(n) if n else _SIDE for n in numbers.groups())
        found.append(Tile(x, y, width, height, choice.mpp))
    if len(set(found)) < len(found):
        raise BadOption("expected each tile once, got one twice", "leave one out")
    return found
