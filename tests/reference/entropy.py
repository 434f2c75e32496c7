"""Complexity after Bhatt et al. (2020): the entropy of each voxel's share of the map's magnitude, in nat."""

import numpy as np


def entropy(values):
    """One map."""
    sizes = np.abs(np.ravel(values))
    return float(-sum(p * np.log(p) for p in sizes / sizes.sum() if p > 0))
