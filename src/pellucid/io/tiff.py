"""One page of a TIFF: depths and layouts that picture libraries flatten to 8 bits."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, TiffFile, TiffPage

from pellucid.core.errors import BadOption, UnreadableImage
from pellucid.io.guard import check_values
from pellucid.io.ome import is_described, layouts

_ORIENTATION = 274
_MOST_TILED = 2**26  # pixels: what is stored in tiles and larger is meant to be read by tiles
_HERE = {COMPRESSION.NONE, COMPRESSION.PACKBITS, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE}
_DEFLATE = {COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE}
_COLORS = {PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE}


@dataclass(frozen=True, eq=False)
class Page:
    """Decoded pixels, the channel last.

    Args:
        values: "row column channel".
        scale: the value that stands for 1; None where values are physical and stay as they are.
        lossy: whether the compression loses detail.
    """

    values: NDArray[Any]
    scale: float | None
    lossy: bool = False


def open_page(path: Path, index: int | None) -> tuple[Page | int, tuple[float, float] | None]:
    """A page of a TIFF, or its number where its compression is one that Pillow decodes (and loses nothing by it).

    Returns:
        The page, and the size of its pixels (rows, columns; mm) where the file says it in an OME or ImageJ header.

    Raises:
        UnreadableImage: too large, a compression that cannot be decoded without loss, or a bomb.
        BadOption: several pages and no index, or an index that does not exist.
    """
    with TiffFile(path, _multifile=False) as file:  # an OME header may name other files, and it may point anywhere
        described = is_described(file)
        page = _choose(file, index, described)
        return decode_page(path, page), _pixel_size(file, page) if described else None


def decode_page(path: Path, page: TiffPage) -> Page | int:
    """The same for a page of an open TIFF.

    Raises:
        UnreadableImage: as ``open_page``.
    """
    if page.is_tiled and page.imagelength * page.imagewidth > _MOST_TILED:
        raise UnreadableImage(
            f"expected a picture, got a whole slide of {page.imagewidth} x {page.imagelength} pixels",
            "explain tiles of it: --tile X,Y --mpp 0.5, or --tiles 4",
        )
    check_values((page.imagelength, page.imagewidth, page.samplesperpixel), "a TIFF page")
    if page.compression not in _HERE or page.photometric not in _COLORS:
        _check_pillow_suffices(page)
        return int(page.index)
    if page.compression in _DEFLATE:
        _check_inflates(path, page)
    values = _channels_last(page.asarray(), page)
    return _finished(values, page)


def _choose(file: TiffFile, index: int | None, described: bool) -> TiffPage:
    pages = [page for page in file.pages if isinstance(page, TiffPage) and not page.is_reduced]
    if not pages:
        raise UnreadableImage("expected a TIFF with a picture, got one without", "export it again")
    stacked = file.series[0].size // max(1, int(np.prod(pages[0].shape))) if file.series else 1
    if len(pages) == 1 and stacked > 1 and file.is_imagej:
        raise UnreadableImage(
            f"expected a TIFF with one picture a page, got an ImageJ stack of {stacked} in one page",
            "save the picture of the stack that is to be explained",
        )
    if index is None and len(pages) > 1:
        axes = [layout.words for layout in layouts(file)] if described else []
        more = f" ({'; '.join(axes)})" if any(axes) else ""
        mend = f"choose one: index 0 to {len(pages) - 1}"
        raise BadOption(
            f"expected a TIFF of one page, got {len(pages)} pages{more}",
            f"{mend}, or a place on each axis: T=0,C=1,Z=3, with Z=: for a volume" if more else mend,
        )
    if not 0 <= (index or 0) < len(pages):
        raise BadOption(f"expected an index from 0 to {len(pages) - 1}, got {index}", "choose a page that exists")
    return pages[index or 0]


def _pixel_size(file: TiffFile, page: TiffPage) -> tuple[float, float] | None:
    """Of the series that the page belongs to, where the page stands upright."""
    tag = page.tags.get(_ORIENTATION)
    for layout in layouts(file):
        row, column = layout.spacing[1:]
        if row and column and any(p is not None and p.index == page.index for p in layout.pages):
            return (row, column) if tag is None or int(tag.value) == 1 else None
    return None


def _check_pillow_suffices(page: TiffPage) -> None:
    """Pillow cuts color of more than 8 bits down to 8 without a word."""
    deep = page.bitspersample not in (1, 2, 4, 8)
    if page.samplesperpixel > 1 and deep:
        raise UnreadableImage(
            f"expected color of 8 bits, or a TIFF without compression, got {page.bitspersample} bits "
            f"with {page.compression.name}",
            "save it uncompressed or with deflate",
        )


def _check_inflates(path: Path, page: TiffPage) -> None:
    """Inflate each strip or tile up to its declared size: one that goes on is a bomb."""
    chunk = int(np.prod(page.chunks)) * max(1, -(-page.bitspersample // 8)) + 1
    with path.open("rb") as stream:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if not count:
                continue
            stream.seek(offset)
            inflating = zlib.decompressobj()
            inflating.decompress(stream.read(count), chunk)
            if inflating.unconsumed_tail and inflating.decompress(inflating.unconsumed_tail, chunk):
                raise UnreadableImage(
                    "expected strips of the size that the TIFF declares, got one that inflates beyond it",
                    "do not open this file; ask for another copy",
                )


def _channels_last(values: NDArray[Any], page: TiffPage) -> NDArray[Any]:
    if page.axes == "YX":
        return values[..., None]
    if page.axes == "SYX":
        return np.moveaxis(values, 0, -1)
    if page.axes == "YXS":
        return values
    raise UnreadableImage(
        f"expected a flat TIFF page, got axes {page.axes}", "save one plane of it, or use a volume format (NIfTI)"
    )


def _finished(values: NDArray[Any], page: TiffPage) -> Page:
    scale = None
    if values.dtype == bool:
        values, scale = values.astype(np.uint8), 1.0
    elif values.dtype.kind == "u" and page.bitspersample <= 16:
        scale = float(2**page.bitspersample - 1)
    if page.photometric == PHOTOMETRIC.PALETTE and page.colormap is not None:
        values, scale = np.moveaxis(page.colormap[:, values[..., 0]], 0, -1), 65535.0
    if page.photometric == PHOTOMETRIC.MINISWHITE and scale is not None:
        values = np.asarray(scale - values)
    tag = page.tags.get(_ORIENTATION)
    return Page(_upright(values, int(tag.value) if tag is not None else 1), scale)


def _upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo the orientation tag (TIFF 6.0: where row 0 and column 0 of the stored data are)."""
    if orientation in (5, 6, 7, 8):
        values = np.swapaxes(values, 0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}
    return np.flip(values, flips.get(orientation, ()))
