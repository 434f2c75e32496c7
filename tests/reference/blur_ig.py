"""Blur integrated gradients after Xu, Venugopalan and Sundararajan (2020), equation 5.

The image is blurred by solving the discrete heat equation with insulated edges: d L / d(variance) = A L / 2 along each
axis, A the second difference, solved through the eigenvectors of A. BlurIG is the integral of
dF(L(s))/dL * dL(s)/ds over the standard deviation s from the strongest to 0.
"""

import numpy as np
import torch


def second_difference(n):
    """The second difference of n voxels; nothing passes the edges."""
    matrix = np.diag(np.full(n, -2.0)) + np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)
    matrix[0, 0] = matrix[-1, -1] = -1.0 if n > 1 else 0.0
    return matrix


def _apply(matrix, x, axis):
    return np.moveaxis(np.tensordot(matrix, x, axes=(1, axis)), 0, axis)


def blurred(x, sigma, spacing):
    """The image (batch, channel, *space) with a standard deviation of ``sigma`` in the unit of the spacing."""
    x = x.numpy()
    for axis, width in enumerate(spacing, start=2):
        values, vectors = np.linalg.eigh(second_difference(x.shape[axis]))
        x = _apply(vectors * np.exp((sigma / width) ** 2 / 2 * values) @ vectors.T, x, axis)
    return torch.from_numpy(x)


def derivative(x, sigma, spacing):
    """d blurred / d sigma, from the heat equation."""
    now = blurred(x, sigma, spacing).numpy()
    return torch.from_numpy(
        sum(
            sigma / width**2 * _apply(second_difference(x.shape[axis]), now, axis)
            for axis, width in enumerate(spacing, start=2)
        )
    )


def slopes(score, point, names):
    """Gradient of the score of one item with respect to each named input, in forward mode."""
    return {n: torch.func.jacfwd(lambda v, n=n: score({**point, n: v})[0])(point[n]).detach() for n in names}


def blur_ig(score, inputs, spacing, strongest, steps):
    """The maps of one item for images named in ``spacing``: straight pieces between blurs, gradient at their middle.

    The blurs are equally spaced in the root of their standard deviation.
    """
    scales = [strongest * ((steps - i) / steps) ** 2 for i in range(steps + 1)]
    maps = {n: torch.zeros_like(inputs[n]) for n in spacing}
    for i in range(steps):
        ends = [{n: blurred(inputs[n], s, spacing[n]) for n in spacing} for s in scales[i : i + 2]]
        middle = {**inputs, **{n: (ends[0][n] + ends[1][n]) / 2 for n in spacing}}
        for n, slope in slopes(score, middle, spacing).items():
            maps[n] += slope * (ends[1][n] - ends[0][n])
    return maps


def integral(score, inputs, spacing, strongest, nodes):
    """The maps by the formula as printed: exact derivative in the scale, Gauss and Legendre over it."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    maps = {n: torch.zeros_like(inputs[n]) for n in spacing}
    for place, weight in zip(places, weights, strict=True):
        s = float(strongest * (place + 1) / 2)
        point = {**inputs, **{n: blurred(inputs[n], s, spacing[n]) for n in spacing}}
        for n, slope in slopes(score, point, spacing).items():
            maps[n] -= float(weight) * strongest / 2 * slope * derivative(inputs[n], s, spacing[n])
    return maps
