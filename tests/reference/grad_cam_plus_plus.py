"""Grad-CAM++ after Chattopadhay et al. (2018), with the exponential of the paper written out: Y = exp(S - S(x)).

The second and third derivatives of Y along one activation are (dS/dA)^2 Y and (dS/dA)^3 Y where S is piecewise linear;
alpha = Y'' / (2 Y'' + sum_ab A_ab Y'''), w_k = sum_ij alpha relu(dY/dA), L = relu(sum_k w_k A^k).
"""

import numpy as np
import torch


def grad_cam_plus_plus(tail, activation, normalized=False):
    """The map of one item on the layer's cells; ``normalized``: alpha sums to one over the cells of rising gradient."""
    slope = torch.func.jacfwd(lambda a: torch.exp(tail(a)[0] - tail(activation)[0].detach()))(activation)
    out = np.zeros(tuple(activation.shape[2:]))
    for k in range(activation.shape[1]):
        first, channel = slope[0, k].detach().numpy(), activation[0, k].numpy()
        alpha = np.zeros_like(first)
        for cell in np.ndindex(*first.shape):
            second, third = first[cell] ** 2, first[cell] ** 3
            if first[cell] > 0:
                alpha[cell] = second / (2 * second + channel.sum() * third)
        if normalized and alpha.any():
            alpha = alpha / alpha.sum()
        out += (alpha * np.maximum(first, 0)).sum() * channel
    return np.maximum(out, 0)
