"""Region perturbation (AOPC) after Samek et al. (2017), over boxes."""

import numpy as np


def boxes(shape, edge):
    """Slices of the boxes, first axis slowest; the last along an axis may be smaller."""
    lines = [[slice(i, min(i + e, n)) for i in range(0, n, e)] for n, e in zip(shape, edge, strict=True)]
    found = [()]
    for line in lines:
        found = [(*b, s) for b in found for s in line]
    return found


def region_curve(score, x, fill, values, edge):
    """Scores after 0, 1, ... boxes are hidden, highest mean of the map first; one item."""
    found = boxes(np.shape(values), edge)
    means = [float(np.mean(values[b])) for b in found]
    y, curve = x.clone(), [float(score(x)[0])]
    for i in sorted(range(len(found)), key=lambda i: -means[i]):
        at = (slice(None), slice(None), *found[i])
        y[at] = fill[at]
        curve.append(float(score(y)[0]))
    return curve


def region_perturbation(score, x, fill, values, edge):
    """1 / (L + 1) sum over k = 0 ... L of S(x) - S(x_k)."""
    curve = region_curve(score, x, fill, values, edge)
    return sum(curve[0] - s for s in curve) / len(curve)
