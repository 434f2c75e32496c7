"""Partial dependence after Friedman (2001), with the single curves of Goldstein et al. (2015), case by case."""

import numpy as np


def brighter(x, part, value):
    """One image with the mean over ``part`` brought to ``value`` by adding a constant there."""
    changed = x.clone()
    changed[:, part] += value - float(x[:, part].double().mean())
    return changed


def single_curves(score, images, part, values):
    """By point and case: the score of each image at each value of the part's mean."""
    return np.array([[float(score(brighter(x, part, v)[None])) for x in images] for v in values])


def partial_dependence(curves):
    """The mean over the cases."""
    return curves.mean(1)
