"""The levels of a whole slide, each read piece by piece: TIFF through tiffslide, DICOM through wsidicom."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from math import ceil, isfinite, prod
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.misc import is_dicom
from pydicom.uid import DeflatedExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage
from tifffile import TiffFile

from pellucid.core.errors import MissingExtra, UnreadableImage
from pellucid.io.guard import MAX_VALUES, check_values, reading
from pellucid.io.ome import is_described, layouts

_MOST_PIECE = 2**26  # values of one tile or strip, which is decoded whole
_MICRONS = (0.02, 100.0)  # a pixel of a slide; beyond them stand the resolutions of printers
_TAGS = ("SOPClassUID", "SeriesInstanceUID", "Rows", "Columns", "SamplesPerPixel", "LossyImageCompression")
_EXPECTED = ("a complete slide", "copy or export the slide again")


@dataclass(frozen=True)
class Level:
    """One resolution of a slide.

    Args:
        width: pixels.
        height: pixels.
        shrink: how many pixels of the finest level one pixel spans, along columns and rows.
    """

    width: int
    height: int
    shrink: tuple[float, float]


class Pyramid(ABC):
    """Levels from fine to coarse, and the size of a pixel of the finest."""

    levels: tuple[Level, ...]
    mpp: tuple[float, float] | None
    lossy: bool

    @abstractmethod
    def piece(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """RGB "row column channel" of a box inside a level.

        Args:
            level: number, from the finest.
            x: first column, in pixels of that level.
            y: first row.
            width: columns.
            height: rows.
        """

    @abstractmethod
    def close(self) -> None:
        """Close its files."""


@final
@dataclass(frozen=True, eq=False)
class TiffPyramid(Pyramid):
    """SVS, generic and OME pyramids in TIFF.

    Args:
        slide: opened by tiffslide.
        levels: fine to coarse.
        mpp: microns per pixel of the finest level, along columns and rows; None: not stated.
        lossy: whether the compression loses detail.
    """

    slide: Any
    levels: tuple[Level, ...]
    mpp: tuple[float, float] | None
    lossy: bool

    def piece(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """See ``Pyramid.piece``."""
        shrink = self.levels[level].shrink
        # its location counts pixels of the finest level, and it divides by the same number again
        at = (ceil(x * shrink[0]), ceil(y * shrink[1]))
        with reading(*_EXPECTED):
            return _rgb(np.asarray(self.slide.read_region(at, level, (width, height), as_array=True)))

    def close(self) -> None:
        """See ``Pyramid.close``."""
        self.slide.close()


@final
@dataclass(frozen=True, eq=False)
class DicomPyramid(Pyramid):
    """DICOM whole-slide images, one instance a level.

    Args:
        slide: opened by wsidicom.
        numbers: how wsidicom calls each level.
        levels: fine to coarse.
        mpp: microns per pixel of the finest level, along columns and rows.
        lossy: whether the compression loses detail.
    """

    slide: Any
    numbers: tuple[int, ...]
    levels: tuple[Level, ...]
    mpp: tuple[float, float] | None
    lossy: bool

    def piece(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """See ``Pyramid.piece``."""
        with reading(*_EXPECTED):
            return _rgb(np.asarray(self.slide.read_region((x, y), self.numbers[level], (width, height), threads=1)))

    def close(self) -> None:
        """See ``Pyramid.close``."""
        self.slide.close()


def open_tiff(path: Path) -> TiffPyramid:
    """The pyramid of a TIFF.

    Raises:
        UnreadableImage: damaged, not RGB of 8 bits, or tiles too large to be decoded one by one.
        MissingExtra: tiffslide is not installed.
    """
    slides = _needed("tiffslide")
    with reading(*_EXPECTED):
        with TiffFile(path, _multifile=False) as file:
            named = layouts(file) if is_described(file) else []
            lossy = _check_pieces(file)
        slide = slides.TiffSlide(path, tifffile_options={"_multifile": False})
        sizes = [(int(w), int(h)) for w, h in slide.level_dimensions]
        stated: list[object] = [slide.properties.get(f"tiffslide.mpp-{axis}") for axis in "xy"]
        if named:
            down, across = named[0].spacing[1:]
            stated = [across * 1000, down * 1000] if down and across else []
        return TiffPyramid(slide, _levels(sizes), _microns(stated), lossy)


def open_dicom(paths: Sequence[Path]) -> DicomPyramid:
    """The pyramid of DICOM whole-slide instances of one series.

    Raises:
        UnreadableImage: none among the files, damaged, or of several series.
        MissingExtra: wsidicom is not installed.
    """
    with reading(*_EXPECTED):
        found = {path: _header(path) for path in paths}
        slides = {path: h for path, h in found.items() if h.get("SOPClassUID") == VLWholeSlideMicroscopyImageStorage}
    if not slides:
        raise UnreadableImage("expected a DICOM whole slide, got none", "give the folder of its series")
    if len({str(header.get("SeriesInstanceUID", "")) for header in slides.values()}) > 1:
        raise UnreadableImage("expected one slide, got several series", "put the one to explain into a folder")
    for header in slides.values():
        _check_piece((int(header.Rows), int(header.Columns), int(header.get("SamplesPerPixel", 1))))
    wsi = _needed("wsidicom")
    with reading(*_EXPECTED):
        slide = wsi.WsiDicom.open(list(slides))
        levels = sorted(slide.levels, key=lambda level: -level.size.width)
        sizes = [(int(level.size.width), int(level.size.height)) for level in levels]
        mpp = _microns([levels[0].mpp.width, levels[0].mpp.height])
        lossy = any(str(h.get("LossyImageCompression", "")) == "01" for h in slides.values())
        return DicomPyramid(slide, tuple(int(level.level) for level in levels), _levels(sizes), mpp, lossy)


def is_slide_dicom(path: Path) -> bool:
    """Whether a DICOM file is an instance of a whole slide."""
    with reading(*_EXPECTED):
        return bool(_header(path).get("SOPClassUID") == VLWholeSlideMicroscopyImageStorage)


def _levels(sizes: list[tuple[int, int]]) -> tuple[Level, ...]:
    if not sizes or min(min(size) for size in sizes) < 1:
        raise UnreadableImage("expected a slide with at least one pixel, got none", "export it again")
    width, height = sizes[0]
    return tuple(Level(w, h, (width / w, height / h)) for w, h in sizes)


def _microns(stated: Sequence[object]) -> tuple[float, float] | None:
    try:
        x, y = (float(str(value)) for value in stated)
    except ValueError:
        return None
    low, high = _MICRONS
    return (x, y) if all(isfinite(v) and low <= v <= high for v in (x, y)) else None


def _check_pieces(file: TiffFile) -> bool:
    """Refuse what tiffslide would have to decode whole; returns whether the compression loses detail."""
    lossy = False
    for level in file.series[0].levels:
        page = level.keyframe
        if page.dtype != np.uint8 or page.samplesperpixel not in (3, 4) or level.axes not in ("YXS", "SYX"):
            raise UnreadableImage(
                f"expected a slide in RGB of 8 bits, got {level.axes} of {page.dtype}", "export it as RGB of 8 bits"
            )
        _check_piece(tuple(int(n) for n in page.chunks))
        lossy = lossy or "JPEG" in page.compression.name or "JP2" in page.compression.name
    return lossy


def _check_piece(shape: Sequence[int]) -> None:
    check_values(shape, "a tile")
    if prod(shape) > min(_MOST_PIECE, MAX_VALUES):
        raise UnreadableImage(
            f"expected tiles or strips of at most {_MOST_PIECE} values, got {' x '.join(str(n) for n in shape)}",
            "save the slide as a tiled pyramid",
        )


def _rgb(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels[..., :3], dtype=np.uint8)


def _needed(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError:
        raise MissingExtra(
            f"reading a slide needs the package {package}, which is not installed", "pip install 'pellucid[slides]'"
        ) from None


def _header(path: Path) -> Dataset:
    """What tells an instance of a slide; its pixels may be many gigabytes, so the bound on files does not hold here."""
    if not is_dicom(path) or read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return Dataset()  # a deflated object would be inflated whole
    return dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
