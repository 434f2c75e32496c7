"""Permutation importance after Breiman (2001): exchange one part between cases, and see how the loss rises.

PI_j = mean over permutations and cases of L(y, f(x with part j of another case)) - L(y, f(x)).
"""

import numpy as np
import torch


def permutation_importance(losses, x, part, orders):
    """Mean increase for each case; ``losses(x)`` one per case, ``part`` true where values are exchanged."""
    before = losses(x)
    increase = np.zeros(len(x))
    for order in orders:
        changed = x.clone()
        for case, other in enumerate(order):
            changed[case] = torch.where(part, x[int(other)], x[case])
        increase += (losses(changed) - before) / len(orders)
    return increase


def log_losses(score, positive):
    """One against the rest: minus the logarithm of what is given to what is true."""
    return np.array([-np.log(s if p else 1 - s) for s, p in zip(score, positive, strict=True)])
