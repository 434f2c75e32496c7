"""Krippendorff's alpha of raters who mark or do not: disagreeing pairs within voxels over those among all ratings."""

import numpy as np


def krippendorff_alpha(marks):
    """Of "rater voxel", nothing missing."""
    marks = np.asarray(marks, dtype=bool).reshape(len(marks), -1)
    pairs = [(a, b) for a in range(len(marks)) for b in range(a)]
    within = np.mean([[marks[a, v] != marks[b, v] for a, b in pairs] for v in range(marks.shape[1])])
    ones, every = int(marks.sum()), marks.size
    among = 2 * ones * (every - ones) / (every * (every - 1))
    return float(1 - within / among)
