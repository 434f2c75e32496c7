"""DeepLIFT's rescale rule after Shrikumar, Greenside and Kundaje (2017), section 3.5.1, as explicit matrices.

A network is a list of stages, each with the values it takes at the image and at the reference and the matrix that
brings differences of its input to differences of its output; multipliers of the whole are their product.
"""

import numpy as np


def linear(matrix, bias):
    """A stage y = M x + b."""
    return lambda x, x0: (matrix @ x + bias, matrix @ x0 + bias, matrix)


def elementwise(function, slope):
    """A stage of single values: (y - y') / (x - x'), the slope where both agree."""

    def stage(x, x0):
        y, y0 = function(x), function(x0)
        d = x - x0
        m = np.where(d == 0, slope(x), (y - y0) / np.where(d == 0, 1, d))
        return y, y0, np.diag(m)

    return stage


def largest(groups):
    """The maximum of each group of indices: a rise goes to the image's largest, a fall to the reference's."""

    def stage(x, x0):
        y, y0 = (np.array([v[g].max() for g in groups]) for v in (x, x0))
        matrix = np.zeros((len(groups), len(x)))
        for row, g in enumerate(groups):
            top = max(y[row], y0[row])
            for of, share in ((x, top - y0[row]), (x0, y[row] - top)):
                i = g[np.argmax(of[g])]
                if x[i] != x0[i]:
                    matrix[row, i] += share / (x[i] - x0[i])
        return y, y0, matrix

    return stage


def standardized(eps):
    """Mean zero, variance one over the whole vector: the change of a product, shared by the two variances."""

    def stage(x, x0):
        n = len(x)
        center = np.eye(n) - 1 / n
        c, c0 = center @ x, center @ x0
        v, v0 = (c**2).mean(), (c0**2).mean()
        r, r0 = (v + eps) ** -0.5, (v0 + eps) ** -0.5
        to_v = ((c + c0) / n) @ center
        to_r = to_v * ((r - r0) / (v - v0) if v != v0 else -0.5 * (v + eps) ** -1.5)
        s = (v + eps) / (v + v0 + 2 * eps)
        return c * r, c0 * r0, (s * r + (1 - s) * r0) * center + np.outer(s * c0 + (1 - s) * c, to_r)

    return stage


def deep_lift(stages, x, x0):
    """Contributions of a vector x against x0 to the last stage's single value."""
    start, start0, total = x, x0, np.eye(len(x))
    for stage in stages:
        x, x0, matrix = stage(x, x0)
        total = matrix @ total
    return (total * (start - start0))[0]
