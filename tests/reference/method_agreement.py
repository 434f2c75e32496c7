"""Agreement of several maps after Krishna et al. (2024): mean rank correlation over pairs, and its jackknife error."""

import numpy as np


def ranks(values):
    """From 1, ties share the mean."""
    values = np.ravel(np.asarray(values, dtype=float))
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def method_agreement(maps):
    """Mean over pairs of Spearman's correlation of the positive parts."""
    found = [np.maximum(m, 0) for m in maps]
    return np.mean(
        [
            np.corrcoef(ranks(found[i]), ranks(found[j]))[0, 1]
            for i in range(len(found))
            for j in range(i + 1, len(found))
        ]
    )


def jackknife_error(maps):
    """Standard error of the mean over pairs when a map is left out at a time (Efron)."""
    count = len(maps)
    without = [method_agreement([m for k, m in enumerate(maps) if k != out]) for out in range(count)]
    return np.sqrt((count - 1) / count * ((np.array(without) - np.mean(without)) ** 2).sum())
