"""Which of several images of one file is meant: a number, a range of them, or a place on named axes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pellucid.core.errors import BadOption

_MOST = 1000
_AXES = "TCZS"
_WRITE = "write --index 3, --index 0:100:10, or --index T=0,C=1,Z=: (one place of each axis, a whole stack as volume)"


@dataclass(frozen=True)
class Axes:
    """A place on the named axes of a file, such as those of OME-TIFF.

    Args:
        at: number of the entry, from 0, by letter: T time, C channel, Z slice, S series.
        whole: the axis of which all entries are taken, as a volume: Z, or none.
    """

    at: Mapping[str, int] = field(default_factory=dict)
    whole: str = ""


Index = int | range | Axes | None


def parse_index(text: str | None) -> Index:
    """A number, START:STOP:STEP, or AXIS=NUMBER with commas between.

    Raises:
        BadOption: something else, or a range of too many.

    Example:
        >>> parse_index("7"), parse_index("0:10:5"), parse_index("C=1,Z=:")
        (7, range(0, 10, 5), Axes(at={'C': 1}, whole='Z'))
    """
    if text is None:
        return None
    plain = text.replace(" ", "")
    if re.fullmatch(r"\d{1,9}", plain):
        return int(plain)
    if re.fullmatch(r"\d{1,9}:\d{1,9}(:\d{1,9})?", plain):
        return _range([int(part) for part in plain.split(":")])
    parts = re.findall(rf"([{_AXES}])=(\d{{1,9}}|:)(?:,|$)", plain.upper())
    at = {axis: int(value) for axis, value in parts if value != ":"}
    whole = [axis for axis, value in parts if value == ":"]
    if not parts or len(",".join("=".join(p) for p in parts)) != len(plain) or whole not in ([], ["Z"]):
        raise BadOption(f"expected a number, a range or axes for --index, got {text[:40]!r}", _WRITE)
    if len({axis for axis, _ in parts}) < len(parts):
        raise BadOption("expected each axis once in --index, got one twice", _WRITE)
    return Axes(at, "".join(whole))


def _range(parts: list[int]) -> range:
    start, stop, step = (*parts, 1)[:3]
    found = range(start, stop, step) if step else range(0)
    if not found:
        raise BadOption("expected a range with at least one entry, got an empty one", _WRITE)
    if len(found) > _MOST:
        raise BadOption(f"expected at most {_MOST} images of one file, got {len(found)}", "take a larger step")
    return found
