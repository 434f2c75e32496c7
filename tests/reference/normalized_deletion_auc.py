"""The deletion area of Petsiuk, Das and Saenko (2018) less that of given orders, in shares of the score's change."""

import numpy as np


def area(score, x, fill, order, counts):
    """Trapezoids of the score with the first of an order hidden."""
    curve = []
    for count in counts:
        y = x.clone().flatten(2)
        for unit in order[:count]:
            y[:, :, unit] = fill.flatten(2)[:, :, unit]
        curve.append(float(score(y.view(x.shape))[0]))
    return float(np.trapezoid(curve, np.asarray(counts) / len(order)))


def normalized_deletion_auc(score, x, fill, values, counts, others):
    """One item: x and fill "1 channel *space"; without other orders from the fill (0) to the image (1)."""
    order = np.argsort(-np.ravel(values), kind="stable")
    image, nothing = float(score(x)[0]), float(score(fill)[0])
    here = area(score, x, fill, order, counts)
    if not others:
        return (here - nothing) / (image - nothing)
    return (here - np.mean([area(score, x, fill, o, counts) for o in others])) / abs(image - nothing)
