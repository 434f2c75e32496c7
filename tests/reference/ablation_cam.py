"""Ablation-CAM after Desai and Ramaswamy (2020), weights not divided by the score: relu(sum_k (S - S_k) A^k)."""

import numpy as np


def ablation_cam(tail, activation):
    """The map of one item on the layer's cells: "*space"; ``S_k`` is the score with channel ``k`` at zero."""
    out = np.zeros(tuple(activation.shape[2:]))
    for k in range(activation.shape[1]):
        without = activation.clone()
        without[:, k] = 0
        out += float(tail(activation)[0] - tail(without)[0]) * activation[0, k].numpy()
    return np.maximum(out, 0)
