"""Partitions of an image into the players of a game: pixels, blocks, superpixels, organs."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from skimage.segmentation import slic
from torch import Tensor

from pellucid.core.errors import BadRegion, ShapeMismatch


@dataclass(frozen=True, eq=False)
class Units:
    """A label for each voxel, from 0 to ``count - 1``, every label used.

    Args:
        labels: "*space".
        count: number of units.
        names: of organs or blocks, where they have one.
    """

    labels: Int[Tensor, "*space"]
    count: int
    names: tuple[str, ...] = ()

    def mask(self, shown: Bool[Tensor, " unit"]) -> Float[Tensor, "*space"]:
        """1 where the voxel's unit is shown."""
        return shown.float()[self.labels]

    def means(self, values: Float[Tensor, "*space"]) -> Float[Tensor, " unit"]:
        """Mean of a map over each unit."""
        flat = self.labels.flatten()
        total = torch.zeros(self.count, dtype=values.dtype).index_add_(0, flat, values.flatten())
        return total / torch.bincount(flat, minlength=self.count).to(values)


def voxels(shape: Sequence[int]) -> Units:
    """Every voxel a unit of its own."""
    count = prod(shape)
    return Units(torch.arange(count).view(*shape), count)


def blocks(shape: Sequence[int], size: Sequence[int]) -> Units:
    """Boxes of ``size`` voxels; the last along an axis may be smaller."""
    if len(size) != len(shape) or min(size) < 1:
        raise ShapeMismatch(f"expected a block size for {len(shape)} axes, got {tuple(size)}", "one length per axis")
    label = torch.zeros(tuple(shape), dtype=torch.long)
    for axis, (n, s) in enumerate(zip(shape, size, strict=True)):
        line = (torch.arange(n) // s).view(*(-1 if a == axis else 1 for a in range(len(shape))))
        label = label * (-(-n // s)) + line
    return Units(label, int(label.max()) + 1)


def superpixels(image: Float[Tensor, "channel *space"], count: int, spacing: Sequence[float]) -> Units:
    """Compact pieces of similar intensity (SLIC, Achanta 2012), compact in physical distance."""
    low, high = image.amin(), image.amax()
    plain = ((image - low) / (high - low).clamp_min(1e-12)).movedim(0, -1).double().cpu().numpy()
    found = slic(plain, n_segments=count, compactness=0.1, spacing=tuple(spacing), start_label=0, channel_axis=-1)
    return from_labels(torch.from_numpy(found.astype(np.int64)))


def from_labels(labels: Int[Tensor, "*space"], names: Sequence[str] = ()) -> Units:
    """Units from any label map (organs, lobes); labels are renumbered from 0 without gaps.

    Raises:
        BadRegion: only one label: nothing to compare.
    """
    values, dense = torch.unique(labels, return_inverse=True)
    if len(values) < 2:
        raise BadRegion("the label map holds a single label", "give a map with at least two")
    return Units(dense, len(values), tuple(names))
