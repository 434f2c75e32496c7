"""KernelSHAP after Lundberg and Lee (2017): weighted regression on coalitions, with its two constraints kept exactly.

The constraints are Lagrange multipliers here: nobody's score is the intercept, everybody's is the sum.
"""

import numpy as np


def choose(n, k):
    """Binomial coefficient."""
    out = 1
    for i in range(k):
        out = out * (n - i) // (i + 1)
    return out


def kernel(count, size):
    """Weight of one coalition of this size; the empty and the full one are constraints."""
    return (count - 1) / (choose(count, size) * size * (count - size))


def coalitions(count):
    """All but nobody and everybody."""
    return [[p for p in range(count) if number >> p & 1] for number in range(1, 2**count - 1)]


def regress(shown, paid, weight, empty, full):
    """Values that sum to full - empty and fit ``paid`` best; ``shown`` is "coalition player" of 0 and 1."""
    count = shown.shape[1]
    normal = np.zeros((count + 1, count + 1))
    normal[:count, :count] = shown.T @ (weight[:, None] * shown)
    normal[count, :count] = normal[:count, count] = 1
    right = np.append(shown.T @ (weight * (paid - empty)), full - empty)
    return np.linalg.solve(normal, right)[:count]


def kernel_shap(value, count):
    """One value per player from every coalition."""
    every = coalitions(count)
    shown = np.array([[float(p in c) for p in range(count)] for c in every])
    paid = np.array([value(c) for c in every])
    weight = np.array([kernel(count, len(c)) for c in every])
    return regress(shown, paid, weight, value([]), value(list(range(count))))
