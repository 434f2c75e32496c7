"""The energy-based pointing game after Wang et al. (2020), with one box for each connected part of a mask."""

import numpy as np


def boxes(region):
    """True inside the box around each part; voxels that touch, also by a corner, are one part."""
    region, out = np.asarray(region, bool), np.zeros(np.shape(region), bool)
    left = {tuple(p) for p in np.argwhere(region)}
    while left:
        part, front = set(), [left.pop()]
        while front:
            place = front.pop()
            part.add(place)
            near = {q for q in left if max(abs(a - b) for a, b in zip(place, q, strict=True)) <= 1}
            left -= near
            front += near
        corner, end = np.min(list(part), axis=0), np.max(list(part), axis=0) + 1
        out[tuple(slice(a, b) for a, b in zip(corner, end, strict=True))] = True
    return out


def energy_pointing(values, region):
    """One map, one mask."""
    positive = np.maximum(values, 0)
    return float((positive * boxes(region)).sum() / positive.sum())
