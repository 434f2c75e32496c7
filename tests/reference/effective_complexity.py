"""Effective complexity after Nguyen and Martinez (2020): the fewest top voxels that bring the score near enough."""

import numpy as np


def effective_complexity(score, x, fill, values, counts, tolerance):
    """One item: x and fill "1 channel *space", counts ascending, the last all voxels."""
    order = np.argsort(-np.ravel(values), kind="stable")
    whole, nothing = float(score(x)[0]), float(score(fill)[0])
    for count in counts:
        shown = fill.clone()
        for place in order[:count]:
            at = np.unravel_index(place, np.shape(values))
            shown[(slice(None), slice(None), *at)] = x[(slice(None), slice(None), *at)]
        if abs(float(score(shown)[0]) - whole) <= tolerance * abs(whole - nothing):
            return count
    return counts[-1]
