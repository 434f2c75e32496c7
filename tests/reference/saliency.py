"""Saliency after Simonyan, Vedaldi and Zisserman (2014): M = max over channels of |dS/dI|.

The derivative is a central difference, one voxel at a time: no automatic differentiation.
"""

import torch


def slopes(score, inputs, name, step=1e-6):
    """dS/dI of one item with respect to ``inputs[name]``; ``score`` takes named inputs of any batch size."""
    x = inputs[name]
    out = torch.zeros(x.numel(), dtype=torch.float64)
    for first in range(0, x.numel(), 256):
        index = torch.arange(first, min(first + 256, x.numel()))
        bump = torch.zeros(len(index), x.numel(), dtype=x.dtype)
        bump[torch.arange(len(index)), index] = step
        bump = bump.view(len(index), *x.shape[1:])
        many = {k: v.expand(len(index), *v.shape[1:]) for k, v in inputs.items()}
        rise = score({**many, name: x + bump}) - score({**many, name: x - bump})
        out[index] = rise.detach().double() / (2 * step)
    return out.view(x.shape)


def saliency(score, inputs, name):
    """The map of one item: "1 *space"."""
    return slopes(score, inputs, name).abs().max(dim=1).values
