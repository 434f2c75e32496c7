"""A region hidden, shown alone or exchanged with its mirror side: the fall of the score, on what was changed."""

import numpy as np


def ask_by_hand(score, image, mask, do, fills=(), axis=None):
    """The map and the falls by fill; ``score`` takes an image "channel *space", ``fills`` are such images.

    Voxel by voxel: what is hidden takes the fill's value, what is swapped that of its mirror voxel along ``axis``.
    """
    mask = np.asarray(mask, dtype=bool)
    changed = {"hide": mask, "keep": ~mask, "swap": mask | np.flip(mask, axis if axis is not None else 0)}[do]
    others = [np.flip(image, axis + 1)] if do == "swap" else list(fills)
    falls = []
    for other in others:
        seen = np.array(image, dtype=float)
        for place in zip(*np.nonzero(changed), strict=True):
            for channel in range(len(seen)):
                seen[(channel, *place)] = other[(channel, *place)]
        falls.append(float(score(image)) - float(score(seen)))
    return np.where(changed, np.mean(falls), 0.0), falls
