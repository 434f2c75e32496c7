"""Eigen-Grad-CAM as its code defines it: the first principal component of gradient times activation, all channels."""

import numpy as np
import torch


def eigen_grad_cam(tail, activation):
    """The map of one item on the layer's cells: "*space", oriented along the evidence for the score."""
    slope = torch.func.jacfwd(lambda a: tail(a)[0])(activation).detach()
    product = (slope * activation)[0].flatten(1).numpy()
    centered = product - product.mean(axis=1, keepdims=True)
    u, _, _ = np.linalg.svd(centered, full_matrices=False)
    along = u[:, 0] @ centered
    sign = 1.0 if np.dot(along, np.maximum(product, 0).sum(axis=0)) >= 0 else -1.0
    return np.maximum(sign * along, 0).reshape(tuple(activation.shape[2:]))
