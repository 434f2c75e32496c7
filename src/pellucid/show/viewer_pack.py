"""Arrays for the viewer: NIfTI of 8 or 16 bits, compressed, with how far its values are rounded."""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pellucid.core.grid import Calibration, Grid

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # LPS to RAS, which NIfTI counts in
_MOST_VOXELS = 14_000_000  # of the image in a page: about 20 MB of text
_MOST_TOGETHER = 60_000_000  # of the image and all its maps
_FINE_TOGETHER = 8_000_000  # of all maps: up to here they keep 16 bits
_FAST_BYTES = 8_000_000  # beyond it the quickest compression
_NEAR = 1e-5

Reducer = Literal["mean", "peak", "any"]


@dataclass(frozen=True, eq=False)
class Packed:
    """An array as the page holds it.

    Args:
        content: NIfTI-1, compressed by gzip; its axes run in the reverse order of the grid's.
        rounding: largest distance of a value from the original; 0: every value is the original's.
    """

    content: bytes
    rounding: float

    @property
    def text(self) -> str:
        """The content in base64."""
        return base64.b64encode(self.content).decode("ascii")


def blocks_for(grid: Grid, maps: int) -> tuple[int, ...]:
    """Voxels of the file that become one of the page, along each axis: ones, unless image and maps are too large.

    The finest axis is halved first.
    """
    most = min(_MOST_VOXELS, _MOST_TOGETHER // (1 + maps))
    blocks = [1] * grid.rank
    while np.prod([ceil(n / b) for n, b in zip(grid.shape, blocks, strict=True)]) > most:
        steps = [s * b if n > b else np.inf for s, b, n in zip(grid.spacing, blocks, grid.shape, strict=True)]
        blocks[int(np.argmin(steps))] += 1
    return tuple(blocks)


def map_bits(grid: Grid, maps: int) -> Literal[8, 16]:
    """Bits for each value of a map, on the grid of the page."""
    return 16 if maps * int(np.prod(grid.shape)) <= _FINE_TOGETHER else 8


def reduced_grid(grid: Grid, blocks: Sequence[int]) -> Grid:
    """The grid of ``reduce``: the last voxels reach beyond the image where its size is no multiple of the block."""
    shape = tuple(ceil(n / b) for n, b in zip(grid.shape, blocks, strict=True))
    whole = tuple(n * b for n, b in zip(shape, blocks, strict=True))
    return grid if max(blocks) == 1 else grid.cropped((0,) * grid.rank, whole).resized(shape)


def reduce(values: NDArray[Any], blocks: Sequence[int], how: Reducer) -> NDArray[Any]:
    """Blocks of voxels as one: their mean, their value of largest magnitude, or whether any is set."""
    if max(blocks) == 1:
        return values
    spare = [(0, -n % b) for n, b in zip(values.shape, blocks, strict=True)]
    padded = np.pad(values, spare, mode="edge") if any(after for _, after in spare) else values
    if how == "any":
        return _merged(padded, blocks, np.logical_or)
    if how == "mean":
        return _merged(padded.astype(np.float32, copy=False), blocks, np.add) / np.float32(np.prod(blocks))
    high, low = _merged(padded, blocks, np.maximum), _merged(padded, blocks, np.minimum)
    return np.where(high >= -low, high, low)


def _merged(values: NDArray[Any], blocks: Sequence[int], merge: np.ufunc) -> NDArray[Any]:
    """Every block as one, an axis at a time: whole slices at once are 20 times as fast as a reduction of small axes."""
    for axis, block in enumerate(blocks):
        parts = [values[(slice(None),) * axis + (slice(k, None, block),)] for k in range(block)]
        values = parts[0] if block == 1 else merge(parts[0], parts[1])
        for part in parts[2:]:
            merge(values, part, out=values)
    return values


def pack_image(values: NDArray[np.float32], grid: Grid) -> Packed:
    """A one-channel image: exact where its values are whole numbers or 255ths, else in 16 bits."""
    low, high = float(values.min()), float(values.max())
    for step in (1.0, 1 / 255):
        whole = np.round(values / step)
        if high / step - low / step < 65_000 and float(np.abs(values / step - whole).max()) < _NEAR * max(1, 1 / step):
            middle = round((low + high) / 2 / step)
            return _packed((whole - middle).astype(np.int16), grid, step, middle * step, 0.0)
    step = (high - low) / 65_000
    middle = (low + high) / 2
    return _packed(np.round((values - middle) / step).astype(np.int16), grid, step, middle, step / 2)


def pack_map(values: NDArray[np.float32], grid: Grid, bits: Literal[8, 16]) -> Packed:
    """A map: 0 stays 0, and both signs have the same step."""
    most = 2 ** (bits - 1) - 1
    step = float(np.abs(values).max()) / most or 1.0
    kind = np.int8 if bits == 8 else np.int16
    return _packed(np.round(values / step).astype(kind), grid, step, 0.0, step / 2 if values.any() else 0.0)


def pack_mask(values: NDArray[np.bool_], grid: Grid) -> Packed:
    """A region."""
    return _packed(values.astype(np.uint8), grid, 1.0, 0.0, 0.0)


def pack_color(values: NDArray[np.float32], grid: Grid, top: float) -> Packed:
    """Red, green and blue ("channel *space", ``top`` is full) in 8 bits each."""
    bytes_ = np.clip(np.round(np.moveaxis(values, 0, -1) * (255 / top)), 0, 255).astype(np.uint8)
    exact = np.abs(values * (255 / top) - np.round(values * (255 / top))).max() < _NEAR * 255
    return _packed(bytes_, grid, 1.0, 0.0, 0.0 if exact else 0.5)


def _packed(values: NDArray[Any], grid: Grid, step: float, start: float, rounding: float) -> Packed:
    header = nib.Nifti1Header()
    color = values.ndim > grid.rank
    header.set_data_dtype("RGB" if color else values.dtype)
    header.set_data_shape((*reversed(grid.shape), *([1] * (3 - grid.rank))))
    header["scl_slope"], header["scl_inter"] = step, start
    header.set_zooms((*reversed(grid.spacing), *([1.0] * (3 - grid.rank))))
    _place(header, grid)
    header["vox_offset"] = 352
    plain = header.binaryblock + b"\0\0\0\0" + np.ascontiguousarray(values).tobytes()
    level = 1 if len(plain) > _FAST_BYTES else 6
    return Packed(gzip.compress(plain, level, mtime=0), rounding)


def _place(header: Any, grid: Grid) -> None:
    """The affine, with the axes in reverse order; without sides, rows run down the screen as in the report."""
    header.set_xyzt_units("unknown" if grid.calibration is Calibration.NONE else "mm")
    if grid.rank == 3 and grid.calibration is Calibration.PATIENT:
        header.set_sform(_FLIP @ grid.matrix[:, [2, 1, 0, 3]], code="scanner")
        return
    across, down, *through = reversed(grid.spacing)
    header.set_sform(np.diag([across, -down, *(through or [1.0]), 1.0]), code="aligned")
