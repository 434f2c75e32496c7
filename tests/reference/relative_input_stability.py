"""Relative input stability after Agarwal et al. (2022), with means for sums and neighbors of the same class only."""

import numpy as np


def relative(before, after, least):
    """Root mean square of (after - before) / before over the entries that are not zero."""
    before, after = np.ravel(before), np.ravel(after)
    real = np.abs(before) > least * np.abs(before).max()
    return np.sqrt(np.mean(((after[real] - before[real]) / before[real]) ** 2))


def relative_input_stability(explain, decide, x, noises, least, floor):
    """The largest ratio over the neighbors that ``decide`` takes for the same; NaN without any."""
    worst = np.nan
    for e in noises:
        if decide(x + e) == decide(x):
            step = max(relative(x.numpy(), (x + e).numpy(), least), floor)
            worst = np.fmax(worst, relative(explain(x), explain(x + e), least) / step)
    return worst
