"""Which of several images of one file is meant: a number, or a range of them."""

import re

from pellucid.core.errors import BadOption

_MOST = 1000
_WRITE = "write --index 3, or --index 0:100:10"

Index = int | range | None


def parse_index(text: str | None) -> Index:
    """A number, or START:STOP:STEP.

    Raises:
        BadOption: something else, or a range of none or too many.

    Example:
        >>> parse_index("7"), parse_index("0:10:5")
        (7, range(0, 10, 5))
    """
    if text is None:
        return None
    plain = text.replace(" ", "")
    if re.fullmatch(r"\d{1,9}", plain):
        return int(plain)
    if re.fullmatch(r"\d{1,9}:\d{1,9}(:\d{1,9})?", plain):
        return _range([int(part) for part in plain.split(":")])
    raise BadOption(f"expected a number or a range for --index, got {text[:40]!r}", _WRITE)


def _range(parts: list[int]) -> range:
    start, stop, step = (*parts, 1)[:3]
    found = range(start, stop, step) if step else range(0)
    if not found:
        raise BadOption("expected a range with at least one entry, got an empty one", _WRITE)
    if len(found) > _MOST:
        raise BadOption(f"expected at most {_MOST} images of one file, got {len(found)}", "take a larger step")
    return found
