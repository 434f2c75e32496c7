"""The files of a folder in the order that a reader expects, and names that may become file names."""

import os
import re
from pathlib import Path

from pellucid.core.errors import UnreadableImage

_NAME_LENGTH = 64
_MOST_FILES, _DEEPEST = 200_000, 12


def files_of(folder: Path) -> list[Path]:
    """Plain files that are not hidden, slice2 before slice10.

    Raises:
        UnreadableImage: the folder cannot be opened.
    """
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise UnreadableImage(
            f"expected a folder that can be opened, got {type(error).__name__}", "check its permissions"
        ) from None
    return sorted((f for f in entries if f.is_file() and not f.name.startswith(".")), key=natural)


def files_below(folder: Path) -> list[Path]:
    """The same for a folder with all folders in it; links to folders are not followed.

    Raises:
        UnreadableImage: more files or deeper folders than a study has.
    """
    found: list[Path] = []
    for inner, folders, _ in os.walk(folder):
        folders[:] = sorted((f for f in folders if not f.startswith(".")), key=lambda name: natural(Path(name)))
        found += files_of(Path(inner))
        if len(found) > _MOST_FILES or len(Path(inner).relative_to(folder).parts) > _DEEPEST:
            raise UnreadableImage(
                f"expected a folder of at most {_MOST_FILES} files, {_DEEPEST} folders deep, got more",
                "give the folder of one study",
            )
    return found


def natural(path: Path) -> list[tuple[bool, int, str]]:
    """slice2 before slice10."""
    parts = re.findall(r"\d+|\D+", path.name.lower())
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def safe_name(text: str) -> str:
    """Letters, digits, dot, dash and underscore only: it becomes a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:_NAME_LENGTH]
