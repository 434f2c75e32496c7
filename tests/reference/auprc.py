"""Average precision: precision at each threshold, weighted by the recall gained there."""

import numpy as np


def auprc(values, region):
    """One map, one mask; every distinct value is a threshold."""
    flat, marked = np.ravel(values), np.ravel(region).astype(bool)
    total, before = 0.0, 0.0
    for level in np.unique(flat)[::-1]:
        chosen = flat >= level
        recall = (marked & chosen).sum() / marked.sum()
        total += (recall - before) * (marked & chosen).sum() / chosen.sum()
        before = recall
    return float(total)
