"""From voxels to the pixels of a pane: gray levels, sizes, outlines; every layer of a pane is cut the same way."""

from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from scipy.ndimage import zoom

from pellucid.core.image import Image, Modality
from pellucid.show.palette import Palette
from pellucid.show.rules import Display, Map
from pellucid.show.words import RANGE, number

Pixels = NDArray[np.float32]
_SUV_WINDOW = (0.0, 7.0)  # fixed, inverted gray: never the image's own maximum
_TAILS = (0.5, 99.5)


@dataclass(frozen=True)
class Window:
    """Values shown as black and white, and how they were chosen."""

    low: float
    high: float
    words: str


def window_of(image: Image) -> Window:
    """The image's own window; for PET a fixed one in SUV; else what its unit or its percentiles give."""
    unit = "" if image.unit in ("a.u.", "[0,1]") else f" {image.unit}"
    if image.window is not None:
        low, high = image.window
        return Window(low, high, f"window {number(low)} to {number(high)}{unit}")
    values = image.data.detach().cpu().float().numpy()
    if image.modality is Modality.PET and "SUV" in image.unit.upper():
        return Window(*_SUV_WINDOW, f"window 0 to 7{unit}")
    least, most = float(values.min()), float(values.max())
    if least >= 0 and most <= 255 and (image.unit == "[0,1]" or len(values) == 3):
        top = 1.0 if most <= 1 else 255.0
        return Window(0.0, top, f"window 0 to {number(top)}")
    step = max(1, values.size // 500_000)  # percentiles of a regular sample: a reader cannot see the difference
    low, high = (float(v) for v in np.percentile(values.ravel()[::step], _TAILS))
    if high <= low:
        low, high = least, most
    return Window(low, high, f"window {number(low)} to {number(high)}{unit} (percentiles 0.5{RANGE}99.5 of this image)")


def is_color(image: Image) -> bool:
    """Whether three channels are red, green and blue (and not one gray image stored three times)."""
    data = image.data
    if len(data) != 3:
        return False
    return not bool((data[0] == data[1]).all() and (data[0] == data[2]).all())


def paint_base(channels: Pixels, window: Window, palette: Palette) -> Pixels:
    """RGB in [0, 1] of "channel row column" values: one channel through the modality's gray, three as color."""
    width = window.high - window.low
    shown = np.clip((channels - window.low) / (width if width > 0 else 1.0), 0, 1)
    if len(shown) == 3:
        return np.moveaxis(shown, 0, -1).astype(np.float32)
    return colormaps[palette.base](shown[0])[..., :3].astype(np.float32)


def gray_of(rgb: Pixels) -> Pixels:
    """The luminance of a color picture (ITU-R BT.601), so that a wash over it keeps its own hue."""
    return np.repeat((rgb @ np.asarray([0.299, 0.587, 0.114], np.float32))[..., None], 3, -1)


def paint_map(values: Map, display: Display, palette: Palette, alone: bool = False) -> Pixels:
    """RGBA of a map: fully transparent wherever the display rules paint nothing.

    Args:
        values: of the map, on the pixels of the picture.
        display: what may be shown.
        palette: of the modality.
        alone: the map stands beside the image and not over it, so that it is opaque.
    """
    low, high = display.limits
    share = np.clip((values - low) / (high - low), 0, 1)
    rgba = palette.colormap(display.signed, alone)(share).astype(np.float32)
    alpha = display.alpha(values)
    rgba[..., 3] = np.where(alpha > 0, 1.0, 0.0) if alone else alpha
    return rgba


def linear(values: NDArray[np.generic], shape: tuple[int, int]) -> Pixels:
    """A picture at ``shape`` pixels: means of blocks where it shrinks, linear between pixel centers where it grows."""
    reduced = np.asarray(values, np.float32)
    for axis, size in enumerate(shape):
        edges = _edges(reduced.shape[axis], size)
        counts = np.diff([*edges, reduced.shape[axis]]).astype(np.float32)
        reduced = np.add.reduceat(reduced, edges, axis) / (counts[:, None] if axis == 0 else counts)
    if reduced.shape == shape:
        return reduced
    factors = [n / m for n, m in zip(shape, reduced.shape, strict=True)]
    return zoom(reduced, factors, order=1, mode="nearest", grid_mode=True).astype(np.float32)


def peaks(values: NDArray[np.generic], shape: tuple[int, int], smooth: bool) -> Pixels:
    """A map at ``shape`` pixels that loses no peak: of each block the value of largest magnitude.

    Args:
        values: "row column".
        shape: of the pane.
        smooth: whether the map is smooth at the scale of a pixel; else each value stays a square, since interpolating
            a lone peak would lower it.
    """
    high = low = np.asarray(values, np.float32)
    for axis, size in enumerate(shape):
        edges = _edges(high.shape[axis], size)
        high, low = np.maximum.reduceat(high, edges, axis), np.minimum.reduceat(low, edges, axis)
    reduced = np.where(high >= -low, high, low)
    if smooth:
        return linear(reduced, shape)
    index = [((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, reduced.shape, strict=True)]
    return reduced[np.ix_(*index)]


def _edges(count: int, size: int) -> NDArray[np.int64]:
    """First voxels of the blocks that become one pixel each; every voxel its own block where there are few."""
    blocks = min(count, size)
    return np.arange(blocks) * count // blocks
