"""Distances between outlines after Nikolov et al. (2021): every corner where an outline passes against every other."""

import numpy as np


def corners(mask):
    """Corners of voxels that touch inside and outside, each with the bits of its neighborhood (first is highest)."""
    mask = np.pad(np.asarray(mask, dtype=bool), 1)
    found = {}
    for place in np.ndindex(*(n - 1 for n in mask.shape)):
        corner = tuple(p + 1 for p in place)
        around = [mask[tuple(c - s for c, s in zip(corner, side, strict=True))] for side in _sides(mask.ndim)]
        if any(around) and not all(around):
            found[corner] = tuple(bool(a) for a in around)
    return found


def _sides(rank):
    return [tuple(1 - s for s in side) for side in np.ndindex(*(2,) * rank)]


def length(around, spacing):
    """Of a contour in one 2-D neighborhood: straight through it, or cutting off corners."""
    a, b, c = around[:3]
    cut = np.hypot(*spacing) / 2
    if sum(around) == 2:
        if a == b:
            return spacing[1]
        return spacing[0] if a == c else 2 * cut
    return cut


def surface_distance(marked, region, spacing, size=length):
    """95% Hausdorff distance, mean over both outlines, and the mean of each way."""
    ours, theirs = corners(marked), corners(region)
    there, back = _nearest(ours, theirs, spacing), _nearest(theirs, ours, spacing)
    weight = [np.array([size(a, spacing) for a in side.values()]) for side in (ours, theirs)]
    total = (there @ weight[0] + back @ weight[1]) / (weight[0].sum() + weight[1].sum())
    return {
        "hausdorff95": max(_keeps(there, weight[0]), _keeps(back, weight[1])),
        "average": float(total),
        "map to region": float(there @ weight[0] / weight[0].sum()),
        "region to map": float(back @ weight[1] / weight[1].sum()),
    }


def _nearest(of, to, spacing):
    steps = np.asarray(spacing)
    one, other = (np.array(list(side)) * steps for side in (of, to))
    return np.array([np.sqrt(((other - p) ** 2).sum(1)).min() for p in one])


def _keeps(distance, weight):
    """The least distance within which 95% of an outline lies."""
    for level in np.unique(distance):
        if weight[distance <= level].sum() >= 0.95 * weight.sum() * (1 - 1e-12):
            return float(level)
    return float(distance.max())
