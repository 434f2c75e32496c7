"""Grad-CAM after Selvaraju et al. (2017), equations 1 and 2.

alpha_k = 1/Z sum_ij dy/dA^k_ij and L = ReLU(sum_k alpha_k A^k), where the score y is a function of the layer's output A
alone. Derivatives are central differences, one cell at a time.
"""

import numpy as np


def grad_cam(tail, activation, step=1e-6):
    """The map of one item on the layer's cells: "*space", not divided by its maximum."""
    channels, cells = activation.shape[1], activation[0, 0].numel()
    combined = np.zeros(tuple(activation.shape[2:]))
    for k in range(channels):
        slope = 0.0
        for cell in range(cells):
            up, down = activation.clone(), activation.clone()
            up[0, k].view(-1)[cell] += step
            down[0, k].view(-1)[cell] -= step
            slope += float(tail(up)[0] - tail(down)[0]) / (2 * step)
        combined += slope / cells * activation[0, k].numpy()
    return np.maximum(combined, 0)
