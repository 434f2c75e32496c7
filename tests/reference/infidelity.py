"""Infidelity after Yeh et al. (2019), with their optimal scaling."""

import numpy as np


def infidelity(score, x, values, changes, scaled=True):
    """One item: changes I "sample *space" that are subtracted from every channel, values the map that predicts them."""
    first = float(score(x)[0])
    predicted = np.array([float(np.sum(change * values)) for change in changes[0]])
    happened = np.array([first - float(score(y)[0]) for y in changes[1]])
    beta = float(np.dot(predicted, happened) / np.dot(predicted, predicted)) if scaled else 1.0
    return float(np.mean((beta * predicted - happened) ** 2))
