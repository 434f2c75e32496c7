"""SquareGrad ("SmoothGrad-Squared") after Hooker et al. (2019): (1/n) sum of (dS/dx)^2 at x + N(0, sigma^2)."""

import numpy as np
import torch


def square_grad(score, x, noises):
    """Map and standard error of one item; the slopes are taken in forward mode."""
    slopes = [torch.func.jacfwd(score)(x + n).detach().numpy().reshape(x.shape) for n in noises]
    squares = np.array(slopes) ** 2
    spread = ((squares - squares.mean(0)) ** 2).sum(0) / (len(noises) - 1)
    return squares.mean(0), np.sqrt(spread / len(noises))
