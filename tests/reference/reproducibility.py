"""Reproducibility after Arun et al. (2021): structural similarity of two maps, window by window."""

import numpy as np


def reproducibility(here, others, window=7):
    """Mean structural similarity with the maps of the others, each map brought to 0 to 1."""
    return np.mean([similarity(*((m - m.min()) / (m.max() - m.min()) for m in (here, o)), window) for o in others])


def similarity(x, y, window):
    """Mean over the windows that lie inside, with Wang's constants for a range of 1 and unbiased variances."""
    found = []
    for corner in np.ndindex(*(n - window + 1 for n in x.shape)):
        box = tuple(slice(c, c + window) for c in corner)
        a, b = x[box].ravel(), y[box].ravel()
        cov = np.cov(a, b)
        light = (2 * a.mean() * b.mean() + 0.01**2) / (a.mean() ** 2 + b.mean() ** 2 + 0.01**2)
        found.append(light * (2 * cov[0, 1] + 0.03**2) / (cov[0, 0] + cov[1, 1] + 0.03**2))
    return np.mean(found)
