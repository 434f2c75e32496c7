"""Whole slides: tiles with their place on the glass, read one by one; a slide never enters memory whole."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import PIL.Image
import PIL.ImageFilter
import torch
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from pellucid.core.case import Case
from pellucid.core.errors import BadOption, UnreadableImage
from pellucid.core.grid import Calibration, Grid, as_affine
from pellucid.core.image import Image, Modality
from pellucid.io.folder import files_of, safe_name
from pellucid.io.formats import Format, find_format
from pellucid.io.guard import check_values
from pellucid.io.pyramid import Level, Pyramid, open_dicom, open_tiff
from pellucid.io.table import PRIMARY

_BLOCK = 2048  # pixels of a side that are read at once for an overview
_MASK_SIDE = 1024
_MEDIAN = 7
_MOST_AT_ONCE = 2**26  # pixels of a level that one tile may cover: 200 MB
_SAME = 0.01  # two sizes of pixels that differ by less are one
_DULL = 0.03  # saturation that differs by less across a slide shows no tissue


@dataclass(frozen=True)
class Tile:
    """A part of a slide.

    Args:
        x: column of its corner, in pixels of the finest level.
        y: row of its corner, likewise.
        width: of the image, in pixels of ``mpp``.
        height: likewise.
        mpp: microns per pixel of the image; None: the pixels of the finest level.
    """

    x: int
    y: int
    width: int = 512
    height: int = 512
    mpp: float | None = None


@dataclass(frozen=True, eq=False)
class Slide:
    """A whole slide that is open for reading tiles; a context that closes its files.

    Args:
        name: pseudonym, of the file's name or of a hash.
        files: that it lies in; never shown.
        pyramid: its levels.
    """

    name: str
    files: tuple[Path, ...]
    pyramid: Pyramid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pyramid.close()

    @property
    def levels(self) -> tuple[Level, ...]:
        """From fine to coarse."""
        return self.pyramid.levels

    @property
    def dimensions(self) -> tuple[int, int]:
        """Columns and rows of the finest level."""
        return self.levels[0].width, self.levels[0].height

    @property
    def mpp(self) -> tuple[float, float] | None:
        """Microns per pixel of the finest level, along columns and rows; None where the file does not say."""
        return self.pyramid.mpp

    def region(self, tile: Tile) -> Image:
        """A part of the slide, from the coarsest level that is fine enough, averaged down where none fits.

        Its grid is calibrated where the slide is: millimeters from the corner of the finest level, columns along
        the first direction of the world. ``traits`` say slide, place, level and microns per pixel.

        Raises:
            BadOption: it reaches beyond the slide, is finer than the slide, or asks for microns that are not known.
            UnreadableImage: damaged, or too large.
        """
        factor = self._factors(tile)
        check_values((tile.width, tile.height, 3), "a tile")
        wide, high = tile.width * factor[0], tile.height * factor[1]
        if (
            tile.x < 0
            or tile.y < 0
            or tile.x + wide > self.dimensions[0] + 0.5
            or tile.y + high > self.dimensions[1] + 0.5
        ):
            raise BadOption(
                f"expected a tile inside {self.dimensions[0]} x {self.dimensions[1]} pixels, "
                f"got {wide:.0f} x {high:.0f} at {tile.x}, {tile.y}",
                "move it or make it smaller",
            )
        number = max(
            i for i, level in enumerate(self.levels) if max(level.shrink) <= min(factor) * (1 + _SAME) or i == 0
        )
        pixels = self._sampled(number, tile, factor)
        data = torch.from_numpy(np.moveaxis(pixels, -1, 0).copy()).to(torch.float32) / 255
        traits: dict[str, str | float] = {
            "format": "slide",
            "lossy": "yes" if self.pyramid.lossy else "no",
            "photometric": "RGB",
            "slide": self.name,
            "slide_x": float(tile.x),
            "slide_y": float(tile.y),
            "level": float(number),
        }
        if self.mpp is not None:
            traits["mpp"] = round(self.mpp[0] * factor[0], 6)
        return Image(data, self._grid(tile, factor), Modality.HISTOLOGY, "[0,1]", traits=traits)

    def case(self, tile: Tile) -> Case:
        """The same as a case; all of one slide are of one patient."""
        name = f"{self.name}-x{tile.x}-y{tile.y}"
        return Case(name, {PRIMARY: self.region(tile)}, patient=self.name, files={PRIMARY: self.files})

    def places(self, size: int = 512, mpp: float | None = None, overlap: int = 0) -> list[Tile]:
        """Tiles that cover the slide, row by row; the last of a row or column is moved back to end at its edge.

        Args:
            size: of each side, in pixels of ``mpp``.
            mpp: microns per pixel; None: the finest level.
            overlap: of neighbors, in pixels of ``mpp``.

        Raises:
            BadOption: an overlap as large as a tile, or a slide smaller than one.
        """
        factor = self._factors(Tile(0, 0, size, size, mpp))
        if not 0 <= overlap < size:
            raise BadOption(f"expected an overlap from 0 to {size - 1}, got {overlap}", "make it smaller")
        columns, rows = (
            _starts(total, size * f, (size - overlap) * f) for total, f in zip(self.dimensions, factor, strict=True)
        )
        return [Tile(x, y, size, size, mpp) for y in rows for x in columns]

    def tiles(
        self, size: int = 512, mpp: float | None = None, overlap: int = 0, least_tissue: float = 0.5
    ) -> Iterator[Case]:
        """Cases of the tiles that hold tissue, each read when its turn comes.

        Args:
            size: see ``places``.
            mpp: see ``places``.
            overlap: see ``places``.
            least_tissue: share of a tile that must be tissue; 0: every tile.
        """
        for tile in self.places(size, mpp, overlap):
            if least_tissue <= 0 or self.tissue_share(tile) >= least_tissue:
                yield self.case(tile)

    def richest(self, count: int, size: int = 512, mpp: float | None = None) -> list[Tile]:
        """The tiles with the largest share of tissue; of equals, the first.

        Raises:
            BadOption: no tile holds any.
        """
        shares = [(self.tissue_share(tile), tile) for tile in self.places(size, mpp)]
        best = sorted((each for each in shares if each[0] > 0), key=lambda each: -each[0])[:count]
        if not best:
            raise BadOption("expected tissue on the slide, got none by its color", "give the place: --tile X,Y")
        return [tile for _, tile in best]

    def thumbnail(self, longest: int = _MASK_SIDE) -> NDArray[np.uint8]:
        """The whole slide as RGB "row column channel", its longer side at most this many pixels; read in blocks."""
        fit = [i for i, level in enumerate(self.levels) if max(level.width, level.height) >= longest]
        number = max(fit, default=0)
        level = self.levels[number]
        shrink = max(1.0, max(level.width, level.height) / longest)
        small = PIL.Image.new("RGB", (max(1, round(level.width / shrink)), max(1, round(level.height / shrink))))
        for y in range(0, level.height, _BLOCK):
            for x in range(0, level.width, _BLOCK):
                wide, high = min(_BLOCK, level.width - x), min(_BLOCK, level.height - y)
                left, top = round(x / shrink), round(y / shrink)
                right, bottom = round((x + wide) / shrink), round((y + high) / shrink)
                if right > left and bottom > top:
                    block = PIL.Image.fromarray(self.pyramid.piece(number, x, y, wide, high))
                    small.paste(block.resize((right - left, bottom - top), PIL.Image.Resampling.BOX), (left, top))
        return np.asarray(small)

    @cached_property
    def tissue(self) -> NDArray[np.bool_]:
        """Where the overview is colored: Otsu on smoothed saturation; pen and dye count too, pale fat does not."""
        _, channel, _ = PIL.Image.fromarray(self.thumbnail()).convert("HSV").split()
        saturation = np.asarray(channel.filter(PIL.ImageFilter.MedianFilter(_MEDIAN)), np.float32) / 255
        if float(saturation.max() - saturation.min()) < _DULL:
            return np.zeros(saturation.shape, bool)
        return np.asarray(saturation > threshold_otsu(saturation))

    def tissue_share(self, tile: Tile) -> float:
        """How much of a tile is tissue, by the overview."""
        factor, mask = self._factors(tile), self.tissue
        ratio = (mask.shape[1] / self.dimensions[0], mask.shape[0] / self.dimensions[1])
        left, top = int(tile.x * ratio[0]), int(tile.y * ratio[1])
        right = max(left + 1, round((tile.x + tile.width * factor[0]) * ratio[0]))
        bottom = max(top + 1, round((tile.y + tile.height * factor[1]) * ratio[1]))
        part = mask[top:bottom, left:right]
        return float(part.mean()) if part.size else 0.0

    def _factors(self, tile: Tile) -> tuple[float, float]:
        """Pixels of the finest level for one of the tile, along columns and rows."""
        if tile.mpp is None:
            return 1.0, 1.0
        if self.mpp is None:
            raise BadOption("expected a slide that states microns per pixel, got one that does not", "leave --mpp out")
        factor = (tile.mpp / self.mpp[0], tile.mpp / self.mpp[1])
        if min(factor) < 1 - _SAME:
            raise BadOption(
                f"expected at least {max(self.mpp):g} microns per pixel, which is what the slide has, got {tile.mpp:g}",
                "take a larger --mpp",
            )
        return factor

    def _sampled(self, number: int, tile: Tile, factor: tuple[float, float]) -> NDArray[np.uint8]:
        level = self.levels[number]
        left, top = tile.x / level.shrink[0], tile.y / level.shrink[1]
        wide, high = (n * f / s for n, f, s in zip((tile.width, tile.height), factor, level.shrink, strict=True))
        x, y = min(int(left), level.width - 1), min(int(top), level.height - 1)
        right, bottom = (
            min(int(np.ceil(left + wide - _SAME)), level.width),
            min(int(np.ceil(top + high - _SAME)), level.height),
        )
        if (right - x) * (bottom - y) > _MOST_AT_ONCE:
            raise BadOption(
                f"expected a tile over at most {_MOST_AT_ONCE} pixels of the slide, got {right - x} x {bottom - y}",
                "make it smaller, or its --mpp",
            )
        piece = self.pyramid.piece(number, x, y, max(1, right - x), max(1, bottom - y))
        if piece.shape[:2] == (tile.height, tile.width):
            return piece
        box = (left - x, top - y, min(left - x + wide, piece.shape[1]), min(top - y + high, piece.shape[0]))
        resized = PIL.Image.fromarray(piece).resize((tile.width, tile.height), PIL.Image.Resampling.BOX, box=box)
        return np.asarray(resized)

    def _grid(self, tile: Tile, factor: tuple[float, float]) -> Grid:
        shape = (tile.height, tile.width)
        if self.mpp is None:
            return Grid.regular(shape)
        across, down = (m / 1000 for m in self.mpp)
        matrix = np.eye(4)
        matrix[:2, 0] = (0.0, down * factor[1])
        matrix[:2, 1] = (across * factor[0], 0.0)
        matrix[:2, 3] = ((tile.x + factor[0] / 2) * across, (tile.y + factor[1] / 2) * down)
        return Grid(shape, as_affine(matrix), Calibration.CALIBRATED)


def open_slide(path: Path) -> Slide:
    """A slide from a TIFF (SVS, generic, OME) or from the DICOM instances of one, a file or a folder.

    Raises:
        UnreadableImage: no slide, damaged, or with tiles too large to be read one by one.
        MissingExtra: tiffslide or wsidicom is not installed.
    """
    files = files_of(path) if path.is_dir() else [path]
    kinds = {file: find_format(file) for file in files if file.is_file()}
    if not path.is_dir() and kinds.get(path) is Format.TIFF:
        return Slide(safe_name(path.name.rpartition(".")[0] or path.name) or "slide", (path,), open_tiff(path))
    dicom = tuple(file for file, kind in kinds.items() if kind is Format.DICOM)
    if not dicom:
        raise UnreadableImage(
            "expected a whole slide (a tiled TIFF, or DICOM), got something else", "leave --tile and --tiles out"
        )
    pyramid = open_dicom(dicom)
    corner = pyramid.piece(len(pyramid.levels) - 1, 0, 0, *_small(pyramid.levels[-1]))
    digest = hashlib.sha256(corner.tobytes() + repr(pyramid.levels).encode()).hexdigest()
    return Slide(f"slide-{digest[:8]}", dicom, pyramid)


def _small(level: Level) -> tuple[int, int]:
    return min(level.width, _BLOCK), min(level.height, _BLOCK)


def _starts(total: int, size: float, step: float) -> list[int]:
    """Where tiles begin along one axis, in pixels of the finest level."""
    if size > total + 0.5:
        raise BadOption(f"expected a slide of at least {size:.0f} pixels a side, got {total}", "take smaller tiles")
    last = int(total - size + 0.5)
    count = int(last / step)
    found = [round(i * step) for i in range(count + 1)]
    return found if found[-1] >= last else [*found, last]
