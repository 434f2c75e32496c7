"""Relative representation stability after Agarwal et al. (2022), means for sums, neighbors of the same class only."""

import numpy as np


def rms_of_ratio(before, after, least):
    """Of after / before - 1 over the entries that are not zero."""
    total, count, largest = 0.0, 0, np.abs(before).max()
    for b, a in zip(np.ravel(before), np.ravel(after), strict=True):
        if abs(b) > least * largest:
            total, count = total + (a / b - 1) ** 2, count + 1
    return (total / count) ** 0.5 if count else 0.0


def relative_representation_stability(explain, decide, layer, x, noises, least, floor):
    """The largest ratio over the neighbors that ``decide`` takes for the same; NaN without any."""
    ratios = [
        rms_of_ratio(explain(x), explain(x + e), least) / max(rms_of_ratio(layer(x), layer(x + e), least), floor)
        for e in noises
        if decide(x + e) == decide(x)
    ]
    return max(ratios, default=np.nan)
