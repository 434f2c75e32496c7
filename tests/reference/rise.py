"""RISE after Petsiuk et al. (2018), section 3: smooth random masks, and the mean score while a voxel is shown, less the
mean score.

A mask is a grid of zeros and ones, one cell apart, moved by its own shift and interpolated linearly.
"""

import numpy as np


def soft_mask(bits, shift, cell, shape):
    """One mask, voxel by voxel: the corners of the cell it lies in, each by the opposite volume."""
    mask = np.zeros(shape)
    for voxel in np.ndindex(*shape):
        place = [v / c + s for v, c, s in zip(voxel, cell, shift, strict=True)]
        corner = [int(np.floor(p)) for p in place]
        for step in np.ndindex(*(2,) * len(shape)):
            weight = np.prod([p - k if up else 1 - (p - k) for p, k, up in zip(place, corner, step, strict=True)])
            if weight:
                mask[voxel] += weight * bits[tuple(k + up for k, up in zip(corner, step, strict=True))]
    return mask


def rise(score, x, fill, masks, estimator="ratio", variance=None):
    """The map of one item; ``masks`` are arrays of the image's shape, ``variance`` of a voxel over their family."""
    total, shown, both, n = 0.0, 0.0, 0.0, len(masks)
    for mask in masks:
        f = float(score(mask * x + (1 - mask) * fill)[0])
        total, shown, both = total + f, shown + mask, both + f * mask
    if estimator == "ratio":
        return both / shown - total / n
    return (both / n - total / n * shown / n) / variance
