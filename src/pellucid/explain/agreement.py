"""Weigh down those frequencies of a map on which its independent parts disagree: chance, mostly."""

from collections.abc import Sequence
from math import ceil

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import isotonic_regression
from torch import Tensor

_HIGHEST = 1.25  # cycles per cell: a map of masks that are linear between nodes has next to nothing beyond
_LEAST = 0.05  # weight that is always left, so that a map of few masks keeps its shape


def weighed(
    pooled: Float[Tensor, "batch *space"], parts: Float[Tensor, "stream batch *space"], cell: Sequence[float]
) -> Float[Tensor, "batch *space"]:
    """The map with each frequency weighed by the share of its power on which the parts agree.

    Wiener's filter, ``signal / (signal + noise)`` in bands of spatial frequency (cosine transform), the noise from the
    spread of the parts. The share never rises with frequency (isotonic fit). The mean over the image stays. With ever
    more masks every share becomes 1.

    Args:
        pooled: the map of all masks.
        parts: the maps of independent parts of them, at least two.
        cell: distance of the masks' nodes along each axis, in voxels.
    """
    shape = pooled.shape[1:]
    lines = [_cosines(n, min(n, ceil(2 * _HIGHEST * n / c) + 1)) for n, c in zip(shape, cell, strict=True)]
    bands = _bands(shape, cell, [len(line) for line in lines])
    found = _transformed(parts, lines)
    weights = torch.stack([_weights(found[:, i], bands) for i in range(len(pooled))])
    rest = weights.flatten(1).amin(1).view(-1, *(1,) * len(shape))  # of what is finer than the highest band
    coarse = _transformed(pooled, lines)
    change = _transformed((weights - rest) * coarse, [line.T for line in lines])
    return rest * pooled + change


def _cosines(length: int, count: int) -> Float[Tensor, "frequency voxel"]:
    """The first rows of the orthonormal cosine transform."""
    place = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    rows = (torch.pi * torch.arange(count, dtype=torch.float64)[:, None] * place).cos() * (2 / length) ** 0.5
    rows[0] /= 2**0.5
    return rows


def _transformed(maps: Tensor, lines: Sequence[Tensor]) -> Tensor:
    """A matrix applied along each of the last axes."""
    first = maps.ndim - len(lines)
    for axis, line in enumerate(lines, first):
        maps = (maps.movedim(axis, -1) @ line.T.to(maps)).movedim(-1, axis)
    return maps


def _bands(shape: Sequence[int], cell: Sequence[float], counts: Sequence[int]) -> Tensor:
    """Number of the band of each frequency, one step of the cosine transform wide; -1: the mean over the image."""
    steps = [c / (2 * n) for n, c in zip(shape, cell, strict=True)]  # cycles per cell
    axes = [torch.arange(k, dtype=torch.float64) * s for k, s in zip(counts, steps, strict=True)]
    squares = torch.stack(torch.meshgrid(*[a**2 for a in axes], indexing="ij")).sum(0)
    bands = (squares.sqrt().clamp_max(_HIGHEST) / max(steps)).long()
    bands[(0,) * len(shape)] = -1
    return bands


def _weights(found: Float[Tensor, "stream *frequency"], bands: Tensor) -> Tensor:
    """Of one item's frequencies: the share of a band's power that is not spread of the parts."""
    where = (bands + 1).flatten().to(found.device)
    mean = found.mean(0)
    spread = found.var(0) / len(found)

    def banded(values: Tensor) -> np.ndarray:
        return torch.zeros(int(where.max()) + 1).to(found).index_add_(0, where, values.flatten())[1:].cpu().numpy()

    power, noise = banded(mean**2), banded(spread)
    known = power > 0
    if not known.any():
        return torch.ones_like(mean)
    share = isotonic_regression(1 - noise[known] / power[known], weights=power[known], increasing=False).x
    weights = np.full(len(power) + 1, _LEAST)
    weights[0] = 1
    weights[1:][known] = np.clip(share, _LEAST, 1)
    return torch.from_numpy(weights).to(found)[where].view_as(mean)
