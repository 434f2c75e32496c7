"""LayerCAM after Jiang et al. (2021): every cell weighted by its own rising gradient, L = relu(sum_k relu(g_k) A^k)."""

import numpy as np
import torch


def layer_cam(tail, activation):
    """The map of one item on the layer's cells: "*space"."""
    slope = torch.func.jacfwd(lambda a: tail(a)[0])(activation).detach().numpy()[0]
    out = np.zeros(tuple(activation.shape[2:]))
    for cell in np.ndindex(*out.shape):
        for k in range(activation.shape[1]):
            if slope[(k, *cell)] > 0:
                out[cell] += slope[(k, *cell)] * float(activation[(0, k, *cell)])
    return np.maximum(out, 0)
