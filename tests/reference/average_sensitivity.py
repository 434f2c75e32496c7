"""Average sensitivity after Bhatt et al. (2020), relative to the map."""

import numpy as np


def average_sensitivity(explain, x, noises):
    """Mean and standard error of the relative change; ``explain`` maps an image to an array."""
    here = np.ravel(explain(x))
    changes = [np.linalg.norm(np.ravel(explain(x + n)) - here) / np.linalg.norm(here) for n in noises]
    return np.mean(changes), np.std(changes, ddof=1) / np.sqrt(len(changes))
