"""Tensor operations that do not know how many spatial axes there are. Shapes are "batch channel *space"."""

from collections.abc import Sequence
from math import ceil, prod

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import ShapeMismatch
from pellucid.core.grid import Grid

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_SLAB_VOXELS = 4_000_000  # a sampling grid of this many voxels is at most 48 MB


def axes(x: Tensor) -> tuple[int, ...]:
    """The spatial axes of a "batch channel *space" tensor."""
    return tuple(range(2, x.ndim))


def per_item(x: Float[Tensor, " batch"], like: Tensor) -> Tensor:
    """One value per item, shaped to broadcast over ``like``."""
    return x.reshape(-1, *(1,) * (like.ndim - 1))


def resize(x: Float[Tensor, "batch channel *space"], shape: Sequence[int]) -> Float[Tensor, "batch channel *size"]:
    """Linear interpolation to ``shape`` with half-pixel centers."""
    if tuple(x.shape[2:]) == tuple(shape):
        return x
    return F.interpolate(x, size=tuple(shape), mode=_LINEAR[x.ndim - 2], align_corners=False)


def blur(x: Float[Tensor, "batch channel *space"], sigma: Sequence[float]) -> Float[Tensor, "batch channel *space"]:
    """Gaussian blur with one standard deviation per axis, in voxels; borders are reflected (edge where too thin)."""
    for axis, s in zip(axes(x), sigma, strict=True):
        if s <= 0:
            continue
        radius = max(1, ceil(3 * s))
        t = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
        kernel = torch.exp(-0.5 * (t / s) ** 2)
        x = _correlate(x, kernel / kernel.sum(), axis)
    return x


def box_mean(x: Float[Tensor, "batch channel *space"], size: Sequence[int]) -> Float[Tensor, "batch channel *space"]:
    """Mean over a centered box of odd ``size`` voxels per axis."""
    for axis, n in zip(axes(x), size, strict=True):
        x = _correlate(x, torch.full((n,), 1 / n, device=x.device, dtype=x.dtype), axis)
    return x


def _correlate(x: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Correlate along one axis: windows of a view times the kernel, a fifth of the time and memory of ``conv1d``."""
    radius = len(kernel) // 2
    moved = x.movedim(axis, -1)
    rows = moved.reshape(-1, 1, moved.shape[-1])
    mode = "reflect" if radius < rows.shape[-1] else "replicate"
    out = F.pad(rows, (radius, radius), mode=mode).unfold(-1, len(kernel), 1) @ kernel
    return out.reshape(moved.shape).movedim(-1, axis)


def starts(length: int, window: int, stride: int) -> list[int]:
    """First voxels of windows that cover an axis; the last window may reach beyond it."""
    return [stride * i for i in range(ceil(max(length - window, 0) / stride) + 1)]


def resample(
    x: Float[Tensor, "batch channel *space"],
    source: Grid,
    target: Grid,
    mode: str = "linear",
    outside: float | None = 0.0,
) -> Float[Tensor, "batch channel *size"]:
    """Values of ``x`` (on ``source``) at the voxel centers of ``target``: through the world, so that both line up.

    Where the target is coarser, ``linear`` first blurs with the second moment of a triangle filter as wide as the
    target's voxel, so that nothing is missed between samples.

    Args:
        mode: ``linear`` or ``nearest`` (masks and labels).
        outside: value beyond the source's outermost voxel faces; None: the nearest edge value.

    Raises:
        ShapeMismatch: one grid has 2 axes and the other 3.
    """
    if source.rank != target.rank:
        raise ShapeMismatch(
            f"expected two grids of one rank, got {source.rank}-D and {target.rank}-D",
            "choose a slice, or an image and a mask of the same rank",
        )
    chain = np.linalg.inv(source.matrix) @ target.matrix  # target index -> source index
    rank = source.rank
    matrix = np.delete(np.delete(chain, 2, 0), 2, 1) if rank == 2 else chain
    if _is_identity(matrix) and source.shape == target.shape:
        return x
    if _keeps_voxels(matrix, target.shape):
        return _rearranged(x, np.round(matrix).astype(int), target.shape, outside)
    if mode == "linear":
        # source voxels per target voxel along each source axis; variances add, so a mere rotation does not blur
        step = np.linalg.norm(matrix[:rank, :rank], axis=1)
        x = blur(x, [float(np.sqrt(max(s * s - 1, 0) / 6)) for s in step])
    rows = max(1, _SLAB_VOXELS // max(1, prod(target.shape[1:])))
    slabs = [
        _sample(x, matrix, (first, min(first + rows, target.shape[0])), target.shape[1:], mode, outside)
        for first in range(0, target.shape[0], rows)
    ]
    return torch.cat(slabs, 2)


def _is_identity(matrix: np.ndarray) -> bool:
    return bool(np.abs(matrix - np.eye(len(matrix))).max() < 1e-6)


def _keeps_voxels(matrix: np.ndarray, shape: Sequence[int]) -> bool:
    """Whether every target voxel is a source voxel (moved, turned or flipped), to a thousandth of a voxel."""
    rank = len(shape)
    drift = np.abs(matrix - np.round(matrix))[:rank] @ np.array([*shape, 1])
    turn = np.abs(np.round(matrix[:rank, :rank]))
    return bool(drift.max() < 1e-3 and (turn.sum(0) == 1).all() and (turn.sum(1) == 1).all())


def _rearranged(x: Tensor, matrix: np.ndarray, shape: Sequence[int], outside: float | None) -> Tensor:
    """The voxels themselves in another order; interpolation would cost time and the last digits."""
    rank = len(shape)
    order = np.abs(matrix[:rank, :rank]).argmax(0)  # the source axis along each target axis
    x = x.permute(0, 1, *(2 + int(axis) for axis in order))
    inside = torch.ones(1, dtype=torch.bool, device=x.device)
    for target, (axis, length) in enumerate(zip(order, shape, strict=True)):
        have = x.shape[2 + target]
        index = torch.arange(length, device=x.device) * int(matrix[axis, target]) + int(matrix[axis, rank])
        x = x.index_select(2 + target, index.clamp(0, have - 1))
        inside = inside & ((index >= 0) & (index < have)).view(*(-1 if a == target else 1 for a in range(rank)))
    return x if outside is None else torch.where(inside, x, torch.as_tensor(outside, dtype=x.dtype, device=x.device))


def _sample(
    x: Tensor, matrix: np.ndarray, rows: tuple[int, int], rest: Sequence[int], mode: str, outside: float | None
) -> Tensor:
    """Sample ``x`` at the target voxels whose first index lies in ``rows``."""
    rank = len(matrix) - 1
    extents = (range(*rows), *(range(n) for n in rest))
    where: list[Tensor] = []
    for axis in range(rank):
        index = torch.tensor(matrix[axis, rank], dtype=torch.float64)
        for other, extent in enumerate(extents):
            line = torch.tensor(list(extent), dtype=torch.float64) * matrix[axis, other]
            index = index + line.view(*(-1 if a == other else 1 for a in range(rank)))
        where.append(index.expand(*(len(e) for e in extents)))
    sizes = x.shape[2:]
    normal = [(2 * i + 1) / n - 1 for i, n in zip(where, sizes, strict=True)]  # half-pixel centers
    grid = torch.stack(normal[::-1], -1).to(x)[None].expand(len(x), *([-1] * (rank + 1)))
    way = "nearest" if mode == "nearest" else "bilinear"
    out = F.grid_sample(x, grid, mode=way, padding_mode="border", align_corners=False)
    if outside is None:
        return out
    # half a voxel beyond the outermost centers still belongs to the image; 1e-4 forgives rounding
    inside = torch.stack([(i >= -0.5001) & (i <= n - 0.4999) for i, n in zip(where, sizes, strict=True)]).all(0)
    return torch.where(inside.to(x.device), out, torch.as_tensor(outside, dtype=x.dtype, device=x.device))
