"""Eigen-CAM after Muhammad and Yeasin (2020), centered as the usual code does: a full singular value decomposition."""

import numpy as np


def eigen_cam(activation):
    """The map of one item on the layer's cells: "*space", oriented so that it goes along with what is active."""
    shape = tuple(activation.shape[2:])
    rows = activation[0].reshape(activation.shape[1], -1).T.numpy()
    centered = rows - rows.mean(axis=0)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    along = u[:, 0] * s[0]
    if np.dot(along, np.maximum(rows, 0).sum(axis=1)) < 0:
        along = -along
    return np.maximum(along, 0).reshape(shape)
