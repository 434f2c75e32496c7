"""The review's sensitivity-norm (section 3.3.3), as a share of the map's own norm."""

import numpy as np


def sensitivity_norm(explain, x, noises):
    """Mean of ||A(x + e) - A(x)|| / ||A(x)|| over Gaussian e; ``explain`` maps an image to an array."""
    here = np.asarray(explain(x)).reshape(-1)
    total, count = 0.0, 0
    for e in noises:
        away = np.asarray(explain(x + e)).reshape(-1) - here
        total, count = total + np.sqrt(away @ away) / np.sqrt(here @ here), count + 1
    return total / count
