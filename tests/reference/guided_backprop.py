"""Guided backpropagation after Springenberg et al. (2015): at each ReLU R_in = R_out * 1[x > 0] * 1[R_out > 0].

The network is a chain of affine maps with a ReLU between each two. Every map is written out as a matrix, one unit
vector at a time, so that nothing is differentiated automatically.
"""

import numpy as np
import torch


def matrix(affine, shape):
    """(output, input) of an affine map of one item."""
    size = int(np.prod(shape))
    units = torch.eye(size, dtype=torch.float64).view(size, *shape[1:])
    with torch.no_grad():
        columns = affine(units) - affine(torch.zeros(shape, dtype=torch.float64))
    return columns.flatten(1).T.numpy()


def guided_backprop(chain, x, weights, keep=lambda before: before > 0):
    """The map of one item ``x``; the score is ``weights`` times the last map's output.

    Args:
        keep: slope of the forward ReLU at its input.
    """
    matrices, before = [], []
    for affine in chain:
        matrices.append(matrix(affine, x.shape))
        with torch.no_grad():
            value = affine(x)
        before.append(value.flatten().numpy())
        x = torch.relu(value)
    relevance = weights.flatten().numpy()
    for i in reversed(range(len(chain))):
        if i < len(chain) - 1:
            relevance = np.where(relevance > 0, relevance, 0) * keep(before[i])
        relevance = matrices[i].T @ relevance
    return torch.from_numpy(relevance)
