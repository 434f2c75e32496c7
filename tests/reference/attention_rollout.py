"""Attention rollout (Abnar and Zuidema 2020), dense, and the windows, shifts and merging of Swin by brute force."""

import numpy as np


def rollout(layers, start):
    """``start`` times the product of (A + I) / 2, last layer first; rows of each made to sum to one.

    Args:
        layers: dense head-averaged attention (N, N) in order, or pairs ("merge", coarse by fine) between them.
        start: weight of each token of the last layer.
    """
    whole = None
    for layer in layers:
        if isinstance(layer, tuple):
            matrix = layer[1]
        else:
            shares = layer / layer.sum(1, keepdims=True)
            matrix = (shares + np.eye(len(layer))) / 2
        whole = matrix if whole is None else matrix @ whole
    return start @ whole


def dense(weights, grid, window, shift):
    """The N by N matrix of one layer of shifted windows.

    Args:
        weights: (windows, tokens, tokens), windows and tokens in row-major order.
        grid: cells per axis, before padding to a multiple of the window.
        window: tokens per axis of a window.
        shift: by which the grid was rolled back before it was cut into windows.
    """
    count = [-(-g // w) for g, w in zip(grid, window, strict=True)]
    padded = [c * w for c, w in zip(count, window, strict=True)]
    matrix = np.zeros((int(np.prod(grid)),) * 2)
    for number, corner in enumerate(np.ndindex(*count)):
        cells = []
        for inner in np.ndindex(*window):
            place = [(c * w + i + s) % p for c, w, i, s, p in zip(corner, window, inner, shift, padded, strict=True)]
            inside = all(p < g for p, g in zip(place, grid, strict=True))
            cells.append(int(np.ravel_multi_index(place, grid)) if inside else None)
        for a, row in enumerate(cells):
            for b, column in enumerate(cells):
                if row is not None and column is not None:
                    matrix[row, column] += weights[number, a, b]
    return matrix


def merging(grid):
    """The matrix (coarse, fine) of merging 2 cells per axis: each merged cell is the mean of those it is made of."""
    coarse = [-(-g // 2) for g in grid]
    matrix = np.zeros((int(np.prod(coarse)), int(np.prod(grid))))
    for row, corner in enumerate(np.ndindex(*coarse)):
        for inner in np.ndindex(*(2 for _ in grid)):
            place = [2 * c + i for c, i in zip(corner, inner, strict=True)]
            if all(p < g for p, g in zip(place, grid, strict=True)):
                matrix[row, np.ravel_multi_index(place, grid)] = 1
    return matrix / matrix.sum(1, keepdims=True)
