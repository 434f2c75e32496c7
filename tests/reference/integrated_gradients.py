"""Integrated gradients after Sundararajan, Taly and Yan (2017), equation 1.

IG_i(x) = (x_i - x'_i) * integral over a in [0, 1] of dF(x' + a (x - x')) / dx_i, by any rule of nodes and weights. The
derivative is taken in forward mode, all inputs on one path.
"""

import numpy as np
import torch


def midpoints(n):
    """Nodes and weights of the midpoint rule."""
    return (np.arange(n) + 0.5) / n, np.full(n, 1 / n)


def gauss(n):
    """Nodes and weights of Gauss and Legendre on [0, 1]: exact for polynomials of degree 2n - 1."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (nodes + 1) / 2, weights / 2


def integrated_gradients(score, inputs, baseline, rule):
    """The maps of one item, by input name."""
    maps = {name: torch.zeros_like(x) for name, x in inputs.items()}
    for node, weight in zip(*rule, strict=True):
        point = {name: baseline[name] + float(node) * (x - baseline[name]) for name, x in inputs.items()}
        for name in inputs:
            slope = torch.func.jacfwd(lambda v, n=name, p=point: score({**p, n: v})[0])(point[name])
            maps[name] += float(weight) * slope.detach()
    return {name: (inputs[name] - baseline[name]) * m for name, m in maps.items()}
