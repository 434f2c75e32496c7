"""Effective complexity after Nguyen and Martinez (2020): the fewest top voxels that bring the score near enough."""

import numpy as np


def effective_complexity(score, x, fill, values, counts, tolerance):
    """One item: x and fill "1 channel *space", counts ascending to all voxels, narrowed twice by sevenths."""
    order = np.argsort(-np.ravel(values), kind="stable")
    whole, nothing = float(score(x)[0]), float(score(fill)[0])

    def enough(count):
        shown = fill.clone()
        for place in order[:count]:
            at = np.unravel_index(place, np.shape(values))
            shown[(slice(None), slice(None), *at)] = x[(slice(None), slice(None), *at)]
        return count == np.size(values) or abs(float(score(shown)[0]) - whole) <= tolerance * abs(whole - nothing)

    low, high = 0, None
    for _ in range(3):
        for count in counts:
            if enough(count):
                high = count
                break
            low = count
        counts = [int(np.ceil(low + (high - low) * part / 7)) for part in range(1, 7)] + [high]
    return high
