"""Max-sensitivity after Yeh et al. (2019), relative to the map."""

import numpy as np


def max_sensitivity(explain, x, noises):
    """The largest relative change; ``explain`` maps an image to an array."""
    here = np.ravel(explain(x))
    worst = 0.0
    for noise in noises:
        worst = max(worst, np.sqrt(((np.ravel(explain(x + noise)) - here) ** 2).sum() / (here**2).sum()))
    return worst
