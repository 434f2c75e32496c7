"""What the pages of a TIFF are: named axes and lengths, from OME-XML or an ImageJ header."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any
from xml.etree import ElementTree

import numpy as np
from tifffile import TiffFile, TiffPage, TiffPageSeries

from pellucid.core.errors import BadOption, UnreadableImage

_WORDS = {"T": "time", "C": "channel", "Z": "slice"}
_MM = {"m": 1000.0, "cm": 10.0, "mm": 1.0, "um": 1e-3, "\u00b5m": 1e-3, "\u03bcm": 1e-3, "micron": 1e-3, "nm": 1e-6}


@dataclass(frozen=True, eq=False)
class Layout:
    """One series of a TIFF: planes along named axes.

    Args:
        axes: letter and count of each axis before the plane's own, slowest first: T time, C channel, Z slice.
        pages: the planes in that order.
        spacing: mm between slices, rows and columns; None where the file does not say.
    """

    axes: tuple[tuple[str, int], ...]
    pages: tuple[Any, ...]
    spacing: tuple[float | None, float | None, float | None] = (None, None, None)

    @property
    def words(self) -> str:
        """The axes, for a message."""
        return ", ".join(f"{count} along {letter} ({_WORDS.get(letter, 'unnamed')})" for letter, count in self.axes)

    def page(self, at: Mapping[str, int]) -> TiffPage:
        """The plane at a place of every axis.

        Raises:
            BadOption: a place beyond an axis.
        """
        counts = [count for _, count in self.axes]
        place = [at.get(letter, 0) for letter, _ in self.axes]
        beyond = [(a, n) for (a, n), p in zip(self.axes, place, strict=True) if not 0 <= p < n]
        if beyond:
            letter, count = beyond[0]
            raise BadOption(
                f"expected {letter} from 0 to {count - 1}, got {at[letter]}", "choose an entry that the file has"
            )
        page = self.pages[int(np.ravel_multi_index(place, counts)) if counts else 0]
        if page is None:
            raise UnreadableImage(
                "expected every plane in this file, its OME header puts some into others", "save it as one file"
            )
        found: TiffPage = page.aspage()
        return found


def is_described(file: TiffFile) -> bool:
    """Whether the file names its axes; a header that declares entities is refused first.

    Raises:
        UnreadableImage: OME-XML with a document type or entities.
    """
    if not file.is_ome:
        return bool(file.is_imagej)
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", file.ome_metadata or "", re.IGNORECASE):
        raise UnreadableImage(
            "expected an OME header without a document type, got one that could name other files",
            "save the image again as OME-TIFF",
        )
    return True


def layouts(file: TiffFile) -> list[Layout]:
    """Every series of a TIFF that names its axes; a pyramid by its finest level.

    Raises:
        UnreadableImage: planes that are in other files, or a stack that ImageJ keeps in one page.
    """
    lengths = _ome_lengths(file) if file.is_ome else [_imagej_lengths(file)]
    found = []
    for number, series in enumerate(file.series):
        if series.kind not in ("ome", "imagej"):
            continue
        spacing = lengths[number] if number < len(lengths) else (None, None, None)
        found.append(Layout(_axes(series), tuple(series.pages), spacing))
    return found


def _axes(series: TiffPageSeries) -> tuple[tuple[str, int], ...]:
    count = len(series.pages)
    outer = [(letter, int(n)) for letter, n in zip(series.axes, series.shape, strict=True) if letter not in "YXS"]
    if prod(n for _, n in outer) != count or any(letter not in _WORDS for letter, n in outer if n > 1):
        raise UnreadableImage(
            f"expected a plane a page along T, C and Z, got {count} pages for axes {series.axes}",
            "save the planes as pages of an OME-TIFF",
        )
    return tuple(outer)


def _ome_lengths(file: TiffFile) -> list[tuple[float | None, float | None, float | None]]:
    found = []
    for pixels in ElementTree.fromstring(file.ome_metadata or "").iter():
        if pixels.tag.rpartition("}")[2] == "Pixels":
            z, y, x = (
                _mm(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit", "\u00b5m")) for a in "ZYX"
            )
            found.append((z, y, x))
    return found


def _imagej_lengths(file: TiffFile) -> tuple[float | None, float | None, float | None]:
    said = file.imagej_metadata or {}
    unit = str(said.get("unit", "")).replace("\\u00B5", "\u00b5")
    first = file.pages[0].aspage()
    steps: list[float | None] = [_mm(said.get("spacing"), unit)]
    for name in ("YResolution", "XResolution"):
        tag = first.tags.get(name)
        ratio = tag.value if tag is not None else (0, 1)
        steps.append(_mm(ratio[1] / ratio[0], unit) if ratio[0] else None)
    return steps[0], steps[1], steps[2]


def _mm(value: object, unit: str) -> float | None:
    scale = _MM.get(unit.strip())
    try:
        length = float(str(value)) * (scale or 0.0)
    except ValueError:
        return None
    return length if isfinite(length) and length > 0 else None
