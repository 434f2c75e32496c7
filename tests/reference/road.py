"""ROAD after Rong et al. (2022): a dense linear system, one equation for each hidden voxel, solved voxel by voxel."""

import numpy as np
import torch


def imputed(x, hidden):
    """One channel: each hidden voxel is the mean of its neighbors inside the image, weighted by 1 / distance^2."""
    places = [tuple(p) for p in np.argwhere(hidden)]
    number = {p: i for i, p in enumerate(places)}
    system, right = np.zeros((len(places), len(places))), np.zeros(len(places))
    for i, place in enumerate(places):
        for offset in np.ndindex(*(3,) * x.ndim):
            step = np.array(offset) - 1
            there = tuple(int(v) for v in np.array(place) + step)
            if not step.any() or any(not 0 <= v < n for v, n in zip(there, x.shape, strict=True)):
                continue
            weight = 1.0 / float(step @ step)
            system[i, i] += weight
            if there in number:
                system[i, number[there]] -= weight
            else:
                right[i] += weight * x[there]
    out = x.copy()
    out[hidden] = np.linalg.solve(system, right)
    return out


def road(score, x, values, counts):
    """Mean fall of the score of one item with the top voxels imputed, without noise."""
    order = np.argsort(-np.ravel(values), kind="stable")
    falls = []
    for count in counts:
        hidden = np.zeros(np.size(values), dtype=bool)
        hidden[order[:count]] = True
        filled = np.stack([imputed(channel, hidden.reshape(np.shape(values))) for channel in x[0].numpy()])
        falls.append(float(score(x)[0]) - float(score(torch.from_numpy(filled)[None])[0]))
    return float(np.mean(falls))
