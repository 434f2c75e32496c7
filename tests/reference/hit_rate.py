"""The pointing game after Zhang et al. (2018), with tied maxima at the expected value of a random choice among them."""

import numpy as np


def hit_rate(values, region, spacing=None, radius=0.0):
    """Share of the tied maxima within ``radius`` (same unit as ``spacing``) of a voxel of the region."""
    values, region = np.asarray(values), np.asarray(region)
    steps = np.ones(values.ndim) if spacing is None else np.asarray(spacing)
    inside = np.argwhere(region) * steps
    peaks = np.argwhere(values == values.max())
    hits = [float(np.sqrt(((inside - p * steps) ** 2).sum(1)).min()) <= radius for p in peaks]
    return sum(hits) / len(hits)
