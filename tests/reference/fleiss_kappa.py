"""Fleiss' (1971) kappa of raters who mark or do not: the share of pairs that agree, voxel by voxel."""

import numpy as np


def fleiss_kappa(marks):
    """Of "rater voxel"."""
    marks = np.asarray(marks, dtype=bool).reshape(len(marks), -1)
    pairs = [(a, b) for a in range(len(marks)) for b in range(a)]
    agreed = np.mean([[marks[a, v] == marks[b, v] for a, b in pairs] for v in range(marks.shape[1])])
    chance = marks.mean() ** 2 + (1 - marks.mean()) ** 2
    return float((agreed - chance) / (1 - chance))
