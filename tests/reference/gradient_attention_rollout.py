"""Gradient attention rollout (Chefer et al. 2021, Generic Attention-model Explainability, eqs. 5 and 6), dense."""

import numpy as np


def relevancy(pairs, start, normalized=False):
    """``start`` times R, where R starts as the identity and each layer adds mean_h (gradient * attention)^+ R.

    Args:
        pairs: (attention, gradient) per layer in order, each (heads, N, N).
        start: weight of each token of the last layer.
        normalized: rows of I + A made to sum to one, as in their earlier paper.
    """
    count = pairs[0][0].shape[-1]
    whole = np.eye(count)
    for attention, gradient in pairs:
        rising = np.maximum(attention * gradient, 0).mean(0)
        if normalized:
            layer = np.eye(count) + rising
            whole = (layer / layer.sum(1, keepdims=True)) @ whole
        else:
            whole = whole + rising @ whole
    return start @ whole
