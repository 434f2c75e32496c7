"""The Gini coefficient after Chalasani et al. (2020), as half the mean difference over all pairs over the mean."""

import numpy as np


def sparseness(values):
    """One map."""
    sizes = np.abs(np.ravel(values))
    return float(np.abs(sizes[:, None] - sizes[None]).mean() / (2 * sizes.mean()))
