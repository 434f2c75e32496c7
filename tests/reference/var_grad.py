"""VarGrad after Adebayo et al. (2018): the variance of dS/dx at x + N(0, sigma^2); unbiased, n - 1.

Its standard error is that of a sample variance: Var(s^2) = (m4 - s^4 (n - 3) / (n - 1)) / n, m4 from the same sample.
"""

import numpy as np
import torch


def var_grad(score, x, noises, step=1e-5):
    """Map and standard error of one item; slopes by central differences, sums in two rounds over all of them."""
    bumps = step * torch.eye(x.numel(), dtype=torch.float64).view(-1, *x.shape[1:])
    rises = [score(x + n + bumps) - score(x + n - bumps) for n in noises]
    slopes, n = torch.stack(rises).detach().numpy() / (2 * step), len(noises)
    away = slopes - slopes.mean(0)
    variance = (away**2).sum(0) / (n - 1)
    error = np.sqrt(np.maximum((away**4).mean(0) - variance**2 * (n - 3) / (n - 1), 0) / n)
    return variance.reshape(x.shape), error.reshape(x.shape)
