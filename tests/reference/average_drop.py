"""Average drop after Chattopadhay et al. (2018), for one case; scores count from that of the fill."""

import numpy as np
import torch


def weighted(x, fill, values):
    """The image weighted by the map's positive part over its maximum."""
    weights = torch.from_numpy(np.where(values > 0, values, 0.0) / np.max(values))
    return fill + weights * (x - fill)


def average_drop(score, x, fill, values):
    """Share of the score that is lost."""
    first, last, left = (float(score(v)[0]) for v in (x, fill, weighted(x, fill, values)))
    return max(0.0, first - left) / (first - last)
