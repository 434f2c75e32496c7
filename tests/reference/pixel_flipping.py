"""Pixel flipping after Bach et al. (2015), as the mean fall of Samek et al. (2017): one voxel after another."""

import numpy as np


def pixel_flipping(score, x, fill, values, counts):
    """Mean of S(x) - S(x with the k highest hidden) over the counts k, of one item "1 channel *space"."""
    order = sorted(range(np.size(values)), key=lambda i: -float(np.ravel(values)[i]))
    y, done, falls = x.clone(), 0, []
    for count in counts:
        for i in order[done:count]:
            at = (slice(None), slice(None), *np.unravel_index(i, np.shape(values)))
            y[at] = fill[at]
        done = count
        falls.append(float(score(x)[0]) - float(score(y)[0]))
    return sum(falls) / len(falls)
