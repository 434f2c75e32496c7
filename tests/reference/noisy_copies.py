"""Noisy copies of one item as the metrics of robustness promise to draw them: one draw for all items of a batch."""

import numpy as np
import torch


def intensity_range(x):
    """Of one channel: between the 1st and 99th percentile of the voxels that are not the outside."""
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


def noises(x, shape, size, samples, seed):
    """What is added to "channel *space" of one image, one copy after the other."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(samples):
        if shape == "gaussian":
            drawn = torch.randn(x.shape, generator=generator)
        else:
            drawn = torch.rand(x.shape, generator=generator) * 2 - 1
        yield torch.stack([size * intensity_range(c.numpy()) * d for c, d in zip(x, drawn.double(), strict=True)])
