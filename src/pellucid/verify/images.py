"""The real images of the comparison: those of the demo, which lie in installed packages, made small."""

from functools import cache
from itertools import islice, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.demo.cases import packaged

# image of the demo, and where it is cut: (first, last) share of each axis
_CUTS = {
    "retina": ("retina", ((0.1, 0.9), (0.1, 0.9))),
    "retina-close": ("retina", ((0.3, 0.6), (0.5, 0.8))),
    "film": ("chest-film-audit", ((0.0, 1.0), (0.0, 1.0))),
    "brain": ("left-hippocampus", ((0.2, 0.8), (0.15, 0.85), (0.2, 0.8))),
}
_GRID = (5, 8)  # patches


@cache
def _packaged() -> dict[str, Tensor]:
    return {one.case.name: one.case.images["image"].data.double() for one in islice(packaged(), 3)}


@cache
def picture(name: str, shape: tuple[int, ...]) -> Tensor:
    """A real image, cut and reduced to ``shape``, with mean 0 and standard deviation 1: "1 channel *space".

    Args:
        name: ``retina`` (3 channels), ``retina-close``, ``film`` or ``brain`` (3-D).
        shape: of the result.
    """
    case, cut = _CUTS[name]
    whole = _packaged()[case]
    parts = [slice(round(a * n), round(b * n)) for (a, b), n in zip(cut, whole.shape[1:], strict=True)]
    part = whole[(slice(None), *parts)][None]
    small = F.interpolate(part, shape, mode="area")  # the mean over each new voxel: nothing aliases
    return (small - small.mean()) / small.std()


def patches(shape: tuple[int, ...]) -> Tensor:
    """Forty patches of the retina side by side as a batch, with mean 0 and standard deviation 1 over all of them."""
    whole = _packaged()["retina"]
    edges = [[round(k * n / count) for k in range(count + 1)] for n, count in zip(whole.shape[1:], _GRID, strict=True)]
    cut = [whole[None, :, a:b, c:d] for a, b in pairwise(edges[0]) for c, d in pairwise(edges[1])]
    small = torch.cat([F.interpolate(part, shape, mode="area") for part in cut])
    return (small - small.mean()) / small.std()


def pair(shape: tuple[int, ...]) -> Tensor:
    """Two different views of the retina as a batch."""
    return torch.cat([picture("retina", shape), picture("retina-close", shape)])
