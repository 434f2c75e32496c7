"""``--index``: which of the images of a file, in each command that explains cases."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.io.index import parse_index
from pellucid.io.reader import Cases
from pellucid.io.several import read_chosen

Index = Annotated[
    str | None,
    typer.Option(
        "--index", help="Of a file with several: page, frame or volume N from 0; START:STOP:STEP; T=0,C=1,Z=:"
    ),
]


def chosen_cases(path: Path, index: str | None) -> Cases:
    """The cases of a path, of which ``--index`` may have chosen one image or several.

    Raises:
        PellucidError: as ``parse_index`` and ``read_chosen``.
    """
    return read_chosen(path, parse_index(index))
