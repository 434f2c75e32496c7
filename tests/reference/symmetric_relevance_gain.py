"""Symmetric relevance gain after Bluecher, Vielhaben and Strodthoff (2024): LeRF area less MoRF area."""

import numpy as np


def area(score, x, fill, order, counts):
    """Trapezoid over the share of voxels hidden in the given order."""
    curve = []
    for count in counts:
        y = x.clone().flatten(2)
        for i in order[:count]:
            y[:, :, i] = fill.flatten(2)[:, :, i]
        curve.append(float(score(y.view(x.shape))[0]))
    share = np.asarray(counts) / len(order)
    return float(np.sum((share[1:] - share[:-1]) * (np.array(curve[1:]) + np.array(curve[:-1])) / 2))


def symmetric_relevance_gain(score, x, fill, values, counts):
    """One item; the counts must be the same read from either end, the map without ties."""
    most = [int(i) for i in np.argsort(-np.ravel(values), kind="stable")]
    return area(score, x, fill, most[::-1], counts) - area(score, x, fill, most, counts)
