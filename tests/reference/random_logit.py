"""Random logit after Sixt et al. (2020): the map of a class beside the map of another; SSIM after Wang et al. (2004).

SSIM is taken in cubes that lie wholly inside the map (on its own grid, with its own axes), with sample covariances, and
averaged; the constants are (0.01 span)^2 and (0.03 span)^2.
"""

import numpy as np


def cosine(one, other):
    """Of two maps as vectors."""
    a, b = np.ravel(one), np.ravel(other)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def ssim(one, other, span, side=7):
    """Of two maps of any number of axes."""
    first, second = (0.01 * span) ** 2, (0.03 * span) ** 2
    found = []
    for corner in np.ndindex(*(n - side + 1 for n in one.shape)):
        box = tuple(slice(c, c + side) for c in corner)
        a, b = one[box].ravel(), other[box].ravel()
        covariance = ((a - a.mean()) * (b - b.mean())).sum() / (a.size - 1)
        top = (2 * a.mean() * b.mean() + first) * (2 * covariance + second)
        found.append(top / ((a.mean() ** 2 + b.mean() ** 2 + first) * (a.var(ddof=1) + b.var(ddof=1) + second)))
    return float(np.mean(found))
