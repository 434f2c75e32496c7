"""The files of a folder in the order that a reader expects, and names that may become file names."""

import re
from pathlib import Path

from pellucid.core.errors import UnreadableImage

_NAME_LENGTH = 64


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


def natural(path: Path) -> list[tuple[bool, int, str]]:
    """slice2 before slice10."""
    parts = re.findall(r"\d+|\D+", path.name.lower())
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def safe_name(text: str) -> str:
    """Letters, digits, dot, dash and underscore only: it becomes a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:_NAME_LENGTH]
