"""Surrogates by hand: least squares, a greedy regression tree, and the share of the held-out variance they reproduce.

R^2 = 1 - sum (S - g)^2 / sum (S - mean S)^2, each case predicted by a surrogate that has not seen it.
"""

import numpy as np


def least_squares(x, y):
    """Slopes for one unit, and the prediction."""
    full = np.c_[np.ones(len(x)), x]
    found = np.linalg.lstsq(full, y, rcond=None)[0]
    return found[1:], lambda z: np.c_[np.ones(len(z)), z] @ found


def tree(x, y, depth):
    """A function that predicts by the splits that lower the squared error most, halfway between two values."""
    best = None
    for k in range(x.shape[1]):
        values = np.unique(x[:, k])
        for threshold in (values[1:] + values[:-1]) / 2:
            left = x[:, k] <= threshold
            error = ((y[left] - y[left].mean()) ** 2).sum() + ((y[~left] - y[~left].mean()) ** 2).sum()
            if best is None or error < best[0] - 1e-12:
                best = (error, k, threshold)
    if depth == 0 or best is None or np.ptp(y) == 0:
        return lambda z: np.full(len(z), y.mean())
    _, k, threshold = best
    left = x[:, k] <= threshold
    low, high = tree(x[left], y[left], depth - 1), tree(x[~left], y[~left], depth - 1)
    return lambda z: np.where(z[:, k] <= threshold, low(z), high(z))


def held_out(fit, x, y, folds):
    """R^2 with every case predicted by a fit to the other folds."""
    said = np.empty(len(y))
    for held in folds:
        train = np.setdiff1d(np.arange(len(y)), held)
        said[held] = fit(x[train], y[train])(x[held])
    return 1 - ((y - said) ** 2).sum() / ((y - y.mean()) ** 2).sum()
