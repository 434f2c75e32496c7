"""Parts of a mask: one connected component, the border."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool
from skimage import measure
from torch import Tensor

from pellucid.core.errors import BadRegion

_MAX_POOL = {2: F.max_pool2d, 3: F.max_pool3d}


def component(mask: Bool[Tensor, "batch *space"], rank: int) -> Bool[Tensor, "batch *space"]:
    """The ``rank``-th largest connected component of each item's mask; voxels that share a corner are connected.

    Raises:
        BadRegion: an item has fewer components.
    """
    return torch.stack([_component(m, rank) for m in mask])


def _component(mask: Tensor, rank: int) -> Tensor:
    labels = torch.from_numpy(np.asarray(measure.label(mask.cpu().numpy(), connectivity=mask.ndim), dtype=np.int64))
    count = int(labels.max())
    if rank > count:
        raise BadRegion(
            f"there is no component {rank}: the region has {count}", "count from 1, the largest first, or leave it out"
        )
    sizes = torch.bincount(labels.flatten())[1:]
    chosen = int(sizes.argsort(descending=True, stable=True)[rank - 1]) + 1
    return (labels == chosen).to(mask.device)


def border(mask: Bool[Tensor, "batch *space"]) -> Bool[Tensor, "batch *space"]:
    """Voxels of the mask that touch, also at a corner, a voxel outside it; the image's edge is no border."""
    outside = (~mask).float()[:, None]
    near = _MAX_POOL[mask.ndim - 1](outside, 3, stride=1, padding=1)[:, 0] > 0
    return mask & near
