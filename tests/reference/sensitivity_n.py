"""Sensitivity-n after Ancona et al. (2018): the correlation within one case, for each n, and its mean."""

import numpy as np
import torch


def sensitivity_n(score, x, fill, values, labels, subsets_by_size):
    """Subsets of labels for each n; one item."""
    found = []
    for subsets in subsets_by_size:
        pairs = []
        for subset in subsets:
            y, total = x.clone(), 0.0
            for at in zip(*np.nonzero(np.isin(labels, list(subset))), strict=True):
                where = (slice(None), slice(None), *at)
                y[where] = fill[where]
                total += float(values[at])
            pairs.append((total, float((score(x) - score(torch.clone(y)))[0])))
        a, b = np.array(pairs).T
        a, b = a - a.mean(), b - b.mean()
        found.append(float(a @ b / np.sqrt((a @ a) * (b @ b))))
    return sum(found) / len(found)
