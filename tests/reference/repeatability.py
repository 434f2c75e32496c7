"""Repeatability after Arun et al. (2021): rank correlation and overlap of the top share, by loops."""

import numpy as np


def ranks(values):
    """From 1, ties share the mean."""
    values = np.asarray(values, dtype=float)
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def repeatability(here, others):
    """Mean Spearman correlation with the maps of the others."""
    return np.mean([np.corrcoef(ranks(np.ravel(here)), ranks(np.ravel(m)))[0, 1] for m in others])


def iou_of_top(here, other, count):
    """Of two maps without ties."""
    one, two = (set(np.argsort(-np.ravel(m))[:count].tolist()) for m in (here, other))
    return len(one & two) / len(one | two)
