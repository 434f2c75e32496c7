"""Deconvolution after Zeiler and Fergus (2014): the backward signal itself is rectified, R_in = R_out * 1[R_out > 0].

Transposed maps are taken by the inner product, <A e_i, R> for each unit vector e_i; the image enters only where the
first map is affine, so it does not enter at all.
"""

import torch


def transposed(affine, shape, relevance):
    """``A^T R`` of one item, one inner product per voxel."""
    out = torch.zeros(shape, dtype=torch.float64)
    with torch.no_grad():
        zero = affine(out)
        for i in range(out.numel()):
            unit = torch.zeros(shape, dtype=torch.float64)
            unit.view(-1)[i] = 1
            out.view(-1)[i] = float(((affine(unit) - zero) * relevance).sum())
    return out


def deconvolution(chain, x, weights):
    """The map of one item shaped as ``x``; the score is ``weights`` times the last map's output."""
    shapes = [x.shape]
    for affine in chain[:-1]:
        with torch.no_grad():
            x = affine(x)
        shapes.append(x.shape)
    relevance = weights
    for i in reversed(range(len(chain))):
        if i < len(chain) - 1:
            relevance = torch.where(relevance > 0, relevance, torch.zeros_like(relevance))
        relevance = transposed(chain[i], shapes[i], relevance)
    return relevance
