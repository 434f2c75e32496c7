"""Occlusion after Zeiler and Fergus (2014), section 4.2: gray out one block at a time and watch the score.

A voxel gets the mean fall over the blocks that cover it. Blocks start at 0, stride, 2 stride, ... until the end of the
axis is covered.
"""

import numpy as np


def corners(length, window, stride):
    """Where blocks start along one axis."""
    out = [0]
    while out[-1] + window < length:
        out.append(out[-1] + stride)
    return out


def occlusion(score, inputs, fills, window, stride):
    """The map of one item: "*space"; inputs of the first input's spatial shape are hidden together."""
    shape = tuple(next(iter(inputs.values())).shape[2:])
    whole = float(score(inputs)[0])
    total, cover = np.zeros(shape), np.zeros(shape)
    grids = np.meshgrid(*(corners(n, w, s) for n, w, s in zip(shape, window, stride, strict=True)), indexing="ij")
    for corner in zip(*(g.ravel() for g in grids), strict=True):
        block = tuple(slice(int(c), int(c) + w) for c, w in zip(corner, window, strict=True))
        hidden = {name: x.clone() for name, x in inputs.items()}
        for name, x in hidden.items():
            if tuple(x.shape[2:]) == shape:
                x[(slice(None), slice(None), *block)] = fills[name][(slice(None), slice(None), *block)]
        total[block] += whole - float(score(hidden)[0])
        cover[block] += 1
    return np.where(cover > 0, total / np.maximum(cover, 1), 0.0)
