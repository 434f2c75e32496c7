"""Relative output stability after Agarwal et al. (2022), with means for sums and neighbors of the same class only."""

import numpy as np


def relative_output_stability(explain, decide, head, x, noises, least, floor):
    """The largest ratio over the neighbors that ``decide`` takes for the same; NaN without any."""
    here, worst = np.ravel(explain(x)), np.nan
    real = np.abs(here) > least * np.abs(here).max()
    for e in noises:
        if decide(x + e) != decide(x):
            continue
        there = np.ravel(explain(x + e))
        map_change = np.sqrt(np.mean((there[real] / here[real] - 1) ** 2))
        step = np.ravel(head(x + e)) - np.ravel(head(x))
        worst = np.fmax(worst, map_change / max(np.sqrt(np.mean(step**2)), floor))
    return worst
