"""Relevance mass accuracy after Arras et al. (2022): the share of the positive relevance inside the mask."""

import numpy as np


def relevance_mass(values, region):
    """One map, one mask."""
    inside = total = 0.0
    for value, marked in zip(np.ravel(values), np.ravel(region), strict=True):
        if value > 0:
            total += value
            inside += value * bool(marked)
    return inside / total
