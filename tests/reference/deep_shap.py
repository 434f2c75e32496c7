"""DeepSHAP after Lundberg and Lee (2017), section 4.2: the mean of DeepLIFT's contributions over references.

The standard error is that of a mean of independent draws: the root of s^2 / n.
"""

import numpy as np


def deep_shap(contributions):
    """The mean, and its standard error, of contributions to each reference (one map each)."""
    each = np.stack(contributions)
    return each.mean(0), np.sqrt(each.var(0, ddof=1) / len(each))


def exact_linear(weight, x, references):
    """Shapley values of a linear score: each voxel's weight times its distance from the mean reference."""
    return weight * (x - np.mean(references, axis=0))
