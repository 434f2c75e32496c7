"""Class activation mapping after Zhou et al. (2016): M = sum_k w_k A^k, the weights found without a gradient.

A channel of ones has the pooled value one: the score then rises by exactly its weight.
"""

import numpy as np
import torch


def cam(tail, activation):
    """The map of one item on the layer's cells: "*space", with its sign."""
    nothing = torch.zeros_like(activation)
    out = np.zeros(tuple(activation.shape[2:]))
    for k in range(activation.shape[1]):
        ones = nothing.clone()
        ones[:, k] = 1
        out += float(tail(ones)[0] - tail(nothing)[0]) * activation[0, k].numpy()
    return out
