"""From an image to a network's input and back: every step is a Grid or an affine of intensities, so both invert."""

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import BadOption, ShapeMismatch
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image
from pellucid.core.space import resample

_FIELD_LEVEL = 0.1  # of the value range: what is darker everywhere on a photograph is the mask around the field


@dataclass(frozen=True)
class InputSpec:
    """One named input of a model, as it was trained.

    Args:
        name: of the argument.
        rank: spatial axes, 2 or 3; 0 for a plain vector.
        channels: expected by the network.
        order: ``gray``, ``rgb``, ``bgr``, or ``gray-repeated`` (one gray channel copied to all).
        orientation: letters toward which the axes grow, such as ``RAS``; None: as stored.
        spacing: mm per voxel along the network's axes; None: follows from size.
        size: voxels of the network's input; None: what spacing gives, rounded up to ``multiple``.
        multiple: sizes must be divisible by it.
        fit: how an image of another shape is brought to ``size``: ``stretch``, ``letterbox`` (keep the aspect, pad),
            ``cover`` (keep the aspect, cut the longer side) or ``crop`` (no resampling: center crop or pad).
        crop: ``none``, or ``field``: first cut to the bounding box of the bright field (fundus, endoscopy).
        window: values mapped to 0 and 1; clips.
        percentiles: the same with percentiles of the image; clips.
        scale: after clipping: ``none``, ``unit`` (to [0, 1]) or ``zscore``.
        mean: subtracted last, per channel.
        std: divided by last, per channel.
        pad: what lies beyond the image: a value in network units, or ``edge``.
        columns: of a vector, the covariates that it holds, in order; empty: the one that is named as it is.
        unit: of the values before ``window`` and ``scale``; PET is brought into it where its header allows; None: any.

    Raises:
        BadOption: a number that is not positive, or not one for each axis or channel.

    Example:
        >>> lung = InputSpec(rank=3, spacing=(1.0, 1.0, 1.0), window=(-1350, 150), scale="unit", multiple=16)
        >>> scan = Image(torch.full((1, 20, 64, 64), -600.0), Grid.regular((20, 64, 64), (2.0, 0.7, 0.7)))
        >>> prepare(scan, lung).tensor.shape
        torch.Size([1, 48, 48, 48])
    """

    name: str = "image"
    rank: int = 2
    channels: int = 1
    order: Literal["gray", "rgb", "bgr", "gray-repeated"] = "gray"
    orientation: str | None = None
    spacing: tuple[float, ...] | None = None
    size: tuple[int, ...] | None = None
    multiple: int = 1
    fit: Literal["stretch", "letterbox", "cover", "crop"] = "stretch"
    crop: Literal["none", "field"] = "none"
    window: tuple[float, float] | None = None
    percentiles: tuple[float, float] | None = None
    scale: Literal["none", "unit", "zscore"] = "none"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pad: float | Literal["edge"] = 0.0
    columns: tuple[str, ...] = ()
    unit: Literal["HU", "Bq/ml", "SUVbw", "SUVlbm", "SUVlbm-james"] | None = None

    def __post_init__(self) -> None:
        if self.columns and (self.rank or len(self.columns) != self.channels):
            raise BadOption(
                f"input {self.name!r}: expected columns of a vector of {self.channels} value(s), got {self.columns}",
                "name a covariate for each value, of an input of rank 0",
            )
        for name, values in (("spacing", self.spacing), ("size", self.size)):
            if values is not None and (len(values) != self.rank or min(values) <= 0):
                raise BadOption(
                    f"input {self.name!r}: expected {self.rank} positive numbers as {name}, got {values}",
                    "give one for each spatial axis",
                )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise BadOption(
                    f"input {self.name!r}: expected {name} for {self.channels} channel(s), got {values}",
                    "give one number for each channel",
                )
        if self.multiple < 1 or (self.std is not None and min(self.std) <= 0):
            raise BadOption(
                f"input {self.name!r}: expected multiple and std above zero, got {self.multiple} and {self.std}",
                "correct the number that is not",
            )
        if self.window is not None and self.window[0] >= self.window[1]:
            raise BadOption(
                f"input {self.name!r}: expected a window (low, high), got {self.window}", "write the lower value first"
            )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network input with what is needed to bring a map back to the image.

    Args:
        tensor: "channel *space", in network units.
        grid: the network's lattice in the same world as the image.
        source: the image's own grid.
        shift: per channel; network value = (clipped image value - shift) / scale.
        scale: per channel.
        notes: steps a reader should know of.
    """

    tensor: Float[Tensor, "channel *space"]
    grid: Grid
    source: Grid
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    notes: tuple[str, ...] = ()

    def restore(
        self, x: Float[Tensor, "batch channel *space"], mode: str = "linear"
    ) -> Float[Tensor, "batch channel *size"]:
        """A map on the network's grid, brought onto the image's grid; 0 where the network saw nothing."""
        return resample(x, self.grid, self.source, mode)

    @property
    def seen(self) -> Tensor:
        """Where on the image's grid the network looked: "*size", bool."""
        ones = torch.ones(1, 1, *self.grid.shape)
        return resample(ones, self.grid, self.source, "nearest")[0, 0] > 0.5

    def physical(self, value: float) -> Float[Tensor, " channel"]:
        """A value in the image's unit (HU, SUV) as the network sees it, per channel."""
        return (value - torch.tensor(self.shift)) / torch.tensor(self.scale)


def prepare(image: Image, spec: InputSpec) -> Prepared:
    """Bring an image to what the network expects: channels, crop, intensities, geometry, in this order.

    Raises:
        ShapeMismatch: wrong rank or channel count.
        BadOption: the card asks for millimeters or an orientation that the image does not have.
    """
    if image.grid.rank != spec.rank:
        raise ShapeMismatch(
            f"the model's input {spec.name!r} takes {spec.rank}-D images, got a {image.grid.rank}-D one",
            "choose a slice or a model for this rank",
        )
    data, notes = _channels(image, spec)
    box, region = _source_box(data, image.grid, spec)
    low, high = _limits(data[box], spec)
    clipped = data.clamp(low, high) if low is not None and high is not None else data
    shift, scale = _affine(clipped[box], spec, low, high)
    grid = _network_grid(region, spec)
    pad = None if spec.pad == "edge" else 0.0
    moved = resample(((clipped - _column(shift, data)) / _column(scale, data))[None], image.grid, grid, outside=pad)[0]
    if spec.pad not in ("edge", 0.0):
        inside = resample(torch.ones_like(data[:1])[None], image.grid, grid, "nearest")[0] > 0.5
        moved = torch.where(inside, moved, torch.as_tensor(float(spec.pad), dtype=moved.dtype))
    return Prepared(moved, grid, image.grid, tuple(shift), tuple(scale), notes)


def _column(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype).view(-1, *(1,) * (like.ndim - 1))


def _channels(image: Image, spec: InputSpec) -> tuple[Tensor, tuple[str, ...]]:
    data = image.data.float()
    count = len(data)
    if count == 3 and spec.channels == 1 and bool((data[0] == data[1]).all() and (data[0] == data[2]).all()):
        return data[:1], ("a gray image stored as RGB: one channel taken",)
    if count == 1 and spec.channels > 1 and spec.order == "gray-repeated":
        return data.expand(spec.channels, *data.shape[1:]), ()
    if count != spec.channels:
        raise ShapeMismatch(
            f"the model's input {spec.name!r} takes {spec.channels} channel(s) ({spec.order}), got {count}",
            "convert the image, or set order = 'gray-repeated' in the card if the network was trained on copies",
        )
    return (data.flip(0) if spec.order == "bgr" else data), ()


def _source_box(data: Tensor, grid: Grid, spec: InputSpec) -> tuple[tuple[slice, ...], Grid]:
    """The part of the image that is used, as slices (with the channel axis) and as a grid."""
    if spec.crop == "none":
        return (slice(None),) * data.ndim, grid
    bright = data.amax(0) > data.amin() + _FIELD_LEVEL * (data.amax() - data.amin())
    spans = []
    for axis in range(bright.ndim):
        others = tuple(a for a in range(bright.ndim) if a != axis)
        hit = torch.nonzero(bright.any(dim=others) if others else bright).flatten()
        if not len(hit):
            raise BadOption("the image is uniform: no bright field to crop to", "check that the file is not blank")
        spans.append((int(hit[0]), int(hit[-1]) + 1))
    box = (slice(None), *(slice(a, b) for a, b in spans))
    return box, grid.cropped([a for a, _ in spans], [b - a for a, b in spans])


def _limits(values: Tensor, spec: InputSpec) -> tuple[float | None, float | None]:
    if spec.window is not None:
        return spec.window
    if spec.percentiles is None:
        return None, None
    low, high = np.percentile(values.numpy(), spec.percentiles)
    return float(low), float(high)


def _affine(values: Tensor, spec: InputSpec, low: float | None, high: float | None) -> tuple[list[float], list[float]]:
    """Shift and scale per channel; a constant image gets scale 1, so that nothing divides by zero."""
    channels = len(values)
    shift, scale = 0.0, 1.0
    if spec.scale == "unit":
        shift = float(values.min()) if low is None else low
        top = float(values.max()) if high is None else high
        scale = top - shift
    elif spec.scale == "zscore":
        shift, scale = float(values.mean()), float(values.std(unbiased=False))
    scale = scale if scale > 1e-12 else 1.0
    mean = spec.mean or (0.0,) * channels
    std = spec.std or (1.0,) * channels
    return [shift + scale * m for m in mean], [scale * s for s in std]


def _network_grid(region: Grid, spec: InputSpec) -> Grid:
    grid = region.reoriented(spec.orientation) if spec.orientation else region
    extent = np.asarray(grid.shape, float)
    if spec.spacing is not None:
        if grid.calibration is Calibration.NONE:
            raise BadOption(
                f"the model expects voxels of {spec.spacing} mm, the image has no millimeters",
                "give an image with spacing (DICOM, NIfTI), or a model without",
            )
        step = np.asarray(spec.spacing, float) / np.asarray(grid.spacing)
        step = np.where(np.abs(step - 1) < 1e-3, 1.0, step)  # voxels of the right size are not resampled
    elif spec.size is None or spec.fit == "crop":
        step = np.ones(grid.rank)
    elif spec.fit == "stretch":
        step = extent / np.asarray(spec.size)
    else:
        ratios = extent / np.asarray(spec.size)
        step = np.full(grid.rank, ratios.max() if spec.fit == "letterbox" else ratios.min())
    # a spacing off by rounding in the header must not add a voxel
    size = spec.size or tuple(
        spec.multiple * ceil((n / s - 1e-3) / spec.multiple) for n, s in zip(extent, step, strict=True)
    )
    return grid.centered(step.tolist(), size)
