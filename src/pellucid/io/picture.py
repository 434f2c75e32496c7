"""PNG, JPEG, BMP, GIF and TIFF as images in [0, 1], with nothing lost and nothing guessed."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from PIL import ImageOps
from tifffile import TiffPage
from torch import Tensor

from pellucid.core.errors import BadOption, UnreadableImage
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image, Modality
from pellucid.io.formats import Format
from pellucid.io.guard import check_values, reading
from pellucid.io.tiff import Page, decode_page, open_page

_AGAIN = "copy or export the picture again"
_ORIENTATION = 274
_HEADER_BYTES = 26  # a PNG signature and header, up to the color type


def read_picture(path: Path, kind: Format, modality: Modality | None = None, index: int | None = None) -> Image:
    """A photograph or exported picture, in pixels and without any direction in the patient.

    Unsigned integers become [0, 1] by their bit depth; floating point and signed values stay as they are. A palette
    is expanded, the EXIF orientation applied, gray stays one channel, and the resolution tags are not believed: only
    what OME or ImageJ write of the size of a pixel is.

    Args:
        path: of the file.
        kind: as ``image_format`` found it.
        modality: what made the image, where known.
        index: page of a TIFF with several, from 0.

    Raises:
        UnreadableImage: truncated, too large, transparent, or with other channels than gray or RGB.
        BadOption: several pages and no index, or an index that does not exist.
    """
    with reading(f"a complete {kind}", _AGAIN):
        spacing = None
        if kind is Format.TIFF:
            page, spacing = open_page(path, index)
        else:
            page = _only(kind, index)
        plane = _plane(page if isinstance(page, Page) else _decode(path, kind, page))
    traits = {"format": str(kind), "lossy": "yes" if kind is Format.JPEG or plane.lossy else "no"}
    calibration = Calibration.CALIBRATED if spacing else None
    grid = Grid.regular(tuple(plane.data.shape[1:]), spacing, calibration)
    return Image(plane.data, grid, modality or Modality.UNKNOWN, plane.unit, traits=traits)


class Plane(NamedTuple):
    """A decoded picture.

    Args:
        data: "channel row column".
        unit: ``[0,1]``, or ``a.u.`` for physical values.
        lossy: whether the compression loses detail.
    """

    data: Tensor
    unit: str
    lossy: bool


def plane_of(path: Path, page: TiffPage) -> Plane:
    """One page of an open TIFF.

    Raises:
        UnreadableImage: too large, transparent, or a compression that cannot be decoded without loss.
    """
    found = decode_page(path, page)
    return _plane(found if isinstance(found, Page) else _decode(path, Format.TIFF, found))


def _plane(page: Page) -> Plane:
    channels = _opaque(page.values, page.scale)
    data = torch.from_numpy(np.ascontiguousarray(np.moveaxis(channels, -1, 0), dtype=np.float32))
    return Plane(data / page.scale if page.scale else data, "[0,1]" if page.scale else "a.u.", page.lossy)


def _only(kind: Format, index: int | None) -> int:
    if index not in (None, 0):
        raise BadOption(f"a {kind} holds a single picture, got index {index}", "leave the index out")
    return 0


def _decode(path: Path, kind: Format, index: int) -> Page:
    """By Pillow: PNG, JPEG and the TIFF compressions it bounds by the declared size."""
    with _opened(path, kind) as picture:
        check_values((*picture.size, len(picture.getbands())), "a picture")
        if kind in (Format.PNG, Format.GIF):
            _refuse_animation(picture, kind)
        if kind is Format.PNG:
            picture.verify()  # all chunks to the end: decoding alone takes a small file that was cut short
    depth, color = _png_depth(path) if kind is Format.PNG else (8, 0)
    if depth == 16 and color != 0:
        return Page(_deep_png(path, color), 65535.0)
    with _opened(path, kind) as picture:
        if kind is Format.TIFF:
            picture.seek(index)
        picture.load()
        values = _plain(ImageOps.exif_transpose(picture))
        lossy = kind is Format.TIFF and "jpeg" in str(picture.info.get("compression", ""))
    if values.dtype == bool:
        return Page(values.astype(np.uint8), 1.0, lossy)
    return Page(values, float(np.iinfo(values.dtype).max) if values.dtype.kind == "u" else None, lossy)


def _opened(path: Path, kind: Format) -> PIL.Image.Image:
    try:
        return PIL.Image.open(path, formats=[kind.upper()])
    except PIL.Image.DecompressionBombError:
        raise UnreadableImage(
            f"expected a picture of at most {2 * (PIL.Image.MAX_IMAGE_PIXELS or 0)} pixels, its header declares more",
            "export the part or the resolution that the model needs",
        ) from None


def _refuse_animation(picture: PIL.Image.Image, kind: Format) -> None:
    count = getattr(picture, "n_frames", 1)
    if count > 1:
        raise UnreadableImage(f"expected a single picture, got an animated {kind} of {count}", "export one frame of it")


def _png_depth(path: Path) -> tuple[int, int]:
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    return head[24], head[25]


def _deep_png(path: Path, color: int) -> NDArray[np.uint16]:
    """Color of 16 bits per channel: Pillow keeps one byte of two, so it is decoded once for each byte."""
    mode = {2: "RGB", 6: "RGBA"}.get(color)
    if mode is None:
        raise UnreadableImage("expected a PNG in gray or RGB, got 16-bit gray with alpha", "save it without alpha")
    with _opened(path, Format.PNG) as picture:
        if picture.getexif().get(_ORIENTATION, 1) != 1:  # this loads, so it has an opening of its own
            raise UnreadableImage("expected an upright 16-bit PNG, got one turned by EXIF", "save it upright")
    high, low = (_bytes_of(path, f"{mode};16{end}") for end in "BL")
    return high.astype(np.uint16) * 256 + low


def _bytes_of(path: Path, layout: str) -> NDArray[np.uint8]:
    with _opened(path, Format.PNG) as picture:
        picture.tile = [tile._replace(args=layout) for tile in picture.tile]
        return np.asarray(picture)


def _plain(picture: PIL.Image.Image) -> NDArray[Any]:
    """Gray, RGB or with alpha, as an array with the channel last."""
    mode = picture.mode
    if mode in ("P", "PA") or "transparency" in picture.info:
        transparent = mode == "PA" or "transparency" in picture.info
        picture = picture.convert("RGBA" if transparent else "RGB")
    elif mode not in ("1", "L", "LA", "RGB", "RGBA", "F", "I", "I;16", "I;16B", "I;16L"):
        if mode != "YCbCr":
            raise UnreadableImage(f"expected a picture in gray or RGB, got color mode {mode}", "convert it to RGB")
        picture = picture.convert("RGB")
    values = np.asarray(picture)
    values = values.astype(values.dtype.newbyteorder("="))
    return values if values.ndim == 3 else values[..., None]


def _opaque(values: NDArray[Any], scale: float | None) -> NDArray[Any]:
    """Without the alpha channel, which must say nothing."""
    count = values.shape[-1]
    if count in (2, 4):
        alpha = values[..., -1]
        full = scale if scale is not None else 1.0
        if not bool((alpha == full).all()):
            share = float((alpha != full).mean())
            raise UnreadableImage(
                f"expected an opaque picture, got one with {share:.1%} of its pixels transparent",
                "flatten it onto a background of your choice",
            )
        return values[..., :-1]
    if count not in (1, 3):
        raise UnreadableImage(f"expected a picture of 1 or 3 channels, got {count}", "save the channels that count")
    return values
