"""SmoothGrad after Smilkov et al. (2017): (1/n) sum of dS/dx at x + N(0, sigma^2), with the noise handed over."""

import numpy as np
import torch


def slope(score, x, step=1e-5):
    """dS/dx of one item by central differences, every voxel in turn; ``score`` takes any number of items."""
    units = step * torch.eye(x.numel(), dtype=torch.float64).view(-1, *x.shape[1:])
    return ((score(x + units) - score(x - units)) / (2 * step)).detach().numpy().reshape(x.shape)


def smooth_grad(score, x, noises):
    """Map and standard error of one item; ``noises`` are what is added to ``x``, one after the other."""
    slopes = np.stack([slope(score, x + n) for n in noises])
    return slopes.mean(0), slopes.std(0, ddof=1) / np.sqrt(len(slopes))


def intensity_range(x):
    """Of one channel: between the 1st and 99th percentile of the voxels, but for those of the outside.

    The outside is the most common border value, where it fills a tenth of the border.
    """
    edge = np.ones(x.shape, dtype=bool)
    edge[(slice(1, -1),) * x.ndim] = False
    values, counts = np.unique(x[edge], return_counts=True)
    outside = values[counts.argmax()] if counts.max() >= 0.1 * counts.sum() else np.nan
    body = np.sort(x[x != outside])
    if not body.size:
        return 0.0
    cut = int(0.01 * (body.size - 1))
    low, high = body[cut], body[body.size - 1 - cut]
    return float(high - low) if high > low else float(abs(high - outside))
