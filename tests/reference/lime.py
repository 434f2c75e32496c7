"""LIME after Ribeiro et al. (2016), section 3.4: a weighted linear fit to the scores of masked images.

The authors' code: weight sqrt(exp(-d^2 / w^2)), d the cosine distance of the binary vectors, ridge. captum's:
exp(-d^2 / (2 w^2)), d between the images, lasso with scikit-learn's scaling.
"""

import numpy as np


def masked(x, fill, labels, shown):
    """The image with the players that are not shown filled."""
    keep = np.asarray(shown)[labels]
    return np.where(keep > 0, x, fill)


def cosine_distance(a, b):
    """1 - cos; 1 where one of both is zero."""
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return 1 - float(np.dot(a.ravel(), b.ravel()) / length) if length else 1.0


def weights_lime(tosses, width):
    """Of each sample, from its binary vector alone."""
    away = np.array([cosine_distance(z, np.ones_like(z)) for z in tosses])
    return np.sqrt(np.exp(-(away**2) / width**2))


def weights_captum(x, images, width):
    """Of each sample, from its image."""
    away = np.array([cosine_distance(i, x) for i in images])
    return np.exp(-(away**2) / (2 * width**2))


def ridge(tosses, scores, weights, alpha):
    """(X'WX + a I)^-1 X'Wy with a column of ones, which is not penalized: effects and constant."""
    x = np.column_stack([tosses, np.ones(len(tosses))])
    penalty = np.diag([alpha] * tosses.shape[1] + [0.0])
    found = np.linalg.solve(x.T @ (weights[:, None] * x) + penalty, x.T @ (weights * scores))
    return found[:-1], found[-1]


def lasso(tosses, scores, weights, alpha, sweeps=5000):
    """min of sum w (y - c - x b)^2 / (2 sum w) + alpha |b|_1, one coordinate after the other."""
    share = weights / weights.sum()
    x, y = tosses - share @ tosses, scores - share @ scores
    b = np.zeros(x.shape[1])
    for _ in range(sweeps):
        for j in range(len(b)):
            rest = y - x @ b + x[:, j] * b[j]
            along, square = share @ (x[:, j] * rest), share @ x[:, j] ** 2
            b[j] = np.sign(along) * max(abs(along) - alpha, 0) / square
    return b, share @ scores - share @ tosses @ b
