"""Cohen's (1960) kappa of two raters, voxel by voxel; a rater who marks in part is the mean over random marks."""

import numpy as np


def cohen_kappa(one, other):
    """Chance agreement from how often each of them marks."""
    one, other = (np.asarray(m, dtype=np.float64).ravel() for m in (one, other))
    agreed = np.mean(one * other + (1 - one) * (1 - other))
    chance = one.mean() * other.mean() + (1 - one.mean()) * (1 - other.mean())
    return float((agreed - chance) / (1 - chance))
