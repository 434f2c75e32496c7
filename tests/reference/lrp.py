"""Layer-wise relevance propagation after Bach et al. (2015) and Montavon et al. (2019), one contribution at a time.

The network is a chain of affine maps with a rectifier between each two. Every map is written out as a matrix and a
bias, and every relevance as a sum over pairs of units: R_i = sum_j c_ij / (sum_i c_ij + ...) R_j.
"""

import numpy as np
import torch


def matrix(affine, shape):
    """(output, input) matrix and (output,) bias of an affine map of one item."""
    size = int(np.prod(shape))
    units = torch.eye(size, dtype=torch.float64).view(size, *shape[1:])
    with torch.no_grad():
        bias = affine(torch.zeros(shape, dtype=torch.float64))
        columns = affine(units) - bias
    return columns.flatten(1).T.numpy(), bias.flatten().numpy()


def away(z, epsilon):
    """Moved away from zero; the sign of zero is plus."""
    return z + epsilon * np.where(z < 0, -1.0, 1.0)


def zero(w, b, x, r, epsilon=0.0, **_):
    c = w * x
    return (c / away(c.sum(1) + b, epsilon)[:, None] * r[:, None]).sum(0)


def alpha_beta(w, b, x, r, alpha=2.0, epsilon=1e-6, biased=True, **_):
    c = w * x
    p, n = np.maximum(c, 0), np.minimum(c, 0)
    up = p.sum(1) + np.maximum(b, 0) * biased + epsilon
    down = n.sum(1) + np.minimum(b, 0) * biased - epsilon
    return ((alpha * p / up[:, None] - (alpha - 1) * n / down[:, None]) * r[:, None]).sum(0)


def gamma(w, b, x, r, raised=0.25, epsilon=1e-6, **_):
    c, out = w * x, np.zeros_like(x)
    for j, y in enumerate(c.sum(1) + b):
        if y == 0:
            continue
        same = (c[j] > 0) if y > 0 else (c[j] < 0)
        own = b[j] if b[j] * y > 0 else 0.0
        share = c[j] + raised * c[j] * same
        out += share / away(share.sum() + b[j] + raised * own, epsilon) * r[j]
    return out


def flat(w, _b, _x, r, read=None, **_):
    a = (w != 0).astype(float) if read is None else read
    return (a / a.sum(1, keepdims=True) * r[:, None]).sum(0)


def w_square(w, _b, _x, r, **_):
    return (w**2 / (w**2).sum(1, keepdims=True) * r[:, None]).sum(0)


def z_box(w, _b, x, r, low=0.0, high=1.0, epsilon=1e-6, **_):
    c = w * x - np.maximum(w, 0) * low - np.minimum(w, 0) * high
    return (c / away(c.sum(1), epsilon)[:, None] * r[:, None]).sum(0)


RULES = {
    "0": zero,
    "epsilon": zero,
    "alpha-beta": alpha_beta,
    "gamma": gamma,
    "flat": flat,
    "w2": w_square,
    "zB": z_box,
}


def lrp(chain, x, weights, rules, options=None, slope=0.0):
    """The relevance of one item ``x``; the score is ``weights`` times the last map's output.

    Args:
        rules: name for each map.
        options: per map, what its rule takes.
        slope: of the rectifier below zero.
    """
    matrices, values = [], []
    for i, affine in enumerate(chain):
        matrices.append(matrix(affine, x.shape))
        values.append(x.flatten().numpy())
        with torch.no_grad():
            y = affine(x)
        x = y if i == len(chain) - 1 else torch.where(y > 0, y, slope * y)
    relevance = weights.flatten().numpy() * y.flatten().numpy()
    for i in reversed(range(len(chain))):
        more = options[i] if options else {}
        relevance = RULES[rules[i]](*matrices[i], values[i], relevance, **more)
    return torch.from_numpy(relevance)
