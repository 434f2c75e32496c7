"""Hidden voxels as a linear mean of their neighbors: little is left to see of where something was hidden."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csc_matrix, diags
from scipy.sparse.linalg import cg, splu

from pellucid.core.errors import CannotDo

_OUTSIDE, _KNOWN = -2, -1
_CLOSE = 1e-9  # relative residual of the iterative solution


def stencil(spacing: Sequence[float]) -> Iterator[tuple[tuple[int, ...], float]]:
    """Offsets of the neighbors and their weights, by the inverse squared distance, 1 in sum.

    In a square grid 1/6 to the sides and 1/12 along the diagonals, as published; in a volume all 26 neighbors.

    Args:
        spacing: of the voxels along each axis, in one unit.
    """
    offsets = [o for o in product((-1, 0, 1), repeat=len(spacing)) if any(o)]
    near = np.array([1 / sum((a * s) ** 2 for a, s in zip(o, spacing, strict=True)) for o in offsets])
    yield from zip(offsets, (near / near.sum()).tolist(), strict=True)


def impute(x: NDArray[np.float64], hidden: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Values of hidden voxels, each the weighted mean of its neighbors, known or hidden, inside the image.

    One sparse linear system for all channels, solved directly in 2-D and by conjugate gradients in 3-D. Reproduces an
    affine ramp exactly away from the border. Values come as "voxel channel".

    Args:
        x: the image, "channel *space".
        hidden: what is to be filled, "*space"; at least one voxel must be known.
        spacing: of the voxels.

    Raises:
        CannotDo: the iterative solution does not settle.
    """
    number = np.full([n + 2 for n in hidden.shape], _OUTSIDE)
    inner = (slice(1, -1),) * hidden.ndim
    number[inner] = _KNOWN
    count = int(hidden.sum())
    number[inner][hidden] = np.arange(count)
    padded = np.pad(x.reshape(len(x), *hidden.shape), [(0, 0)] + [(1, 1)] * hidden.ndim)
    places = [p + 1 for p in np.nonzero(hidden)]
    total, right = np.zeros(count), np.zeros((count, len(x)))
    rows, columns, data = [], [], []
    for offset, weight in stencil(spacing):
        at = tuple(p + o for p, o in zip(places, offset, strict=True))
        who = number[at]
        total += weight * (who != _OUTSIDE)
        right += weight * np.where(who == _KNOWN, padded[(slice(None), *at)], 0).T
        linked = np.flatnonzero(who >= 0)
        rows.append(linked)
        columns.append(who[linked])
        data.append(np.full(len(linked), -weight))
    links = coo_matrix((np.concatenate(data), (np.concatenate(rows), np.concatenate(columns))), (count, count))
    return _solved(csc_matrix(links + diags(total)), right, hidden.ndim)


def _solved(matrix: csc_matrix, right: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """The matrix is symmetric and positive definite as long as one voxel is known."""
    if rank == 2:
        return splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}).solve(
            right
        )
    scale, rows = diags(1 / np.asarray(matrix.diagonal(), dtype=np.float64)), matrix.tocsr()
    found = [cg(rows, b, rtol=_CLOSE, atol=0.0, M=scale) for b in right.T]
    if any(stopped for _, stopped in found):
        raise CannotDo(
            "the imputation of a volume does not settle", "score a crop, or use another metric (DeletionAUC)"
        )
    return np.stack([values for values, _ in found], 1)
