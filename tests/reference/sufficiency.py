"""Sufficiency after DeYoung et al. (2020): the fall of the score with only the top shares of the map shown."""

import numpy as np
import torch


def sufficiency(score, x, fill, values, counts):
    """Mean over the numbers of voxels shown; one item."""
    falls = []
    for count in counts:
        shown = np.zeros(np.size(values), dtype=bool)
        shown[np.argsort(-np.ravel(values), kind="stable")[:count]] = True
        y = torch.where(torch.from_numpy(shown.reshape(np.shape(values))), x, fill)
        falls.append(float(score(x)[0]) - float(score(y)[0]))
    return float(np.mean(falls))
