"""Where the cases of a data set lie in a folder: paths that fit, and templates that are filled in for each."""

import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pellucid.core.errors import UnreadableImage
from pellucid.io.collections.declared import Templates, Where, first_of
from pellucid.io.folder import natural

Look = Callable[[str], str | None]
_FIELD = re.compile(r"\{([^{}]+)\}")
_BEFORE = r"(?P<root>(?:[^/]+/)*?)"  # the user may give the folder around the data set
_HEAD = 1 << 12


@dataclass(frozen=True)
class Place:
    """A path that is a case.

    Args:
        folder: that the user gave.
        path: below it, with ``/``.
        fields: named parts of the path.
    """

    folder: Path
    path: str
    fields: Mapping[str, str]

    def look(self, name: str) -> str | None:
        """A field; None: the path has none of that name.

        Args:
            name: of the field.
        """
        return self.fields.get(name)

    def files(self, templates: Templates, look: Look | None = None) -> list[Path]:
        """What lies where a template says: of several templates, for the first with anything there.

        Args:
            templates: with fields, and ``*`` for any part of a name.
            look: of the fields; None: those of the path.
        """
        for template in first_of(templates):
            filled = expand(template, look or self.look, escaped=True)
            if filled is None or ".." in Path(filled).parts or Path(filled).is_absolute():
                continue
            found = sorted(self.folder.glob(filled), key=natural) if filled else [self.folder]
            if found:
                return found
        return []


def expand(template: str, look: Look, escaped: bool = False) -> str | None:
    """A template with its fields filled in; None where one of them is not known.

    Args:
        template: text with ``{field}``.
        look: what a field holds.
        escaped: keep what a field holds from being read as a pattern.
    """
    parts = []
    for place, part in enumerate(_FIELD.split(template)):
        value = look(part) if place % 2 else part
        if value is None:
            return None
        parts.append(glob.escape(value) if escaped and place % 2 else value)
    return "".join(parts)


def places(folder: Path, where: Where) -> Iterator[Place]:
    """Every path of a folder that is a case, in natural order.

    Args:
        folder: that the user gave.
        where: which paths are cases.
    """
    pattern = re.compile(_BEFORE + where.path)
    for path in _walk(folder, where.of == "folder"):
        found = pattern.fullmatch(path)
        if found is None:
            continue
        parts = {name: value for name, value in found.groupdict().items() if value is not None}
        place = Place(folder, path, {"path": path, "dir": path[: path.rfind("/") + 1], **parts})
        if _holds(place, where):
            yield place


def _holds(place: Place, where: Where) -> bool:
    beside = [place.files(template) for template in where.beside]
    if not all(beside):
        return False
    if not where.text:
        return True
    with beside[0][0].open("rb") as stream:
        return where.text.encode() in stream.read(_HEAD)


def _walk(folder: Path, folders: bool) -> Iterator[str]:
    """Files, or folders, below a folder."""

    def refuse(error: OSError) -> None:
        raise UnreadableImage(
            f"expected a folder that can be opened, got {type(error).__name__}", "check the path and its permissions"
        ) from None

    for here, inner, files in os.walk(folder, onerror=refuse):
        inner[:] = sorted((n for n in inner if not n.startswith((".", "__MACOSX"))), key=_order)
        base = Path(here).relative_to(folder).as_posix()
        for name in inner if folders else sorted((n for n in files if not n.startswith(".")), key=_order):
            yield name if base == "." else f"{base}/{name}"


def _order(name: str) -> list[tuple[bool, int, str]]:
    return natural(Path(name))
