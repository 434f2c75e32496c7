"""Input x gradient after Shrikumar et al. (2017): x_i * dS/dx_i.

The derivative is taken in forward mode, one direction for each voxel, not by backpropagation.
"""

import torch


def input_x_gradient(score, inputs, name):
    """The map of one item: "1 channel *space"."""
    x = inputs[name]
    flat = torch.func.jacfwd(lambda v: score({**inputs, name: v.view(x.shape)})[0])(x.flatten())
    out = torch.zeros_like(x).flatten()
    for i, value in enumerate(x.flatten()):
        out[i] = float(value) * float(flat[i].detach())
    return out.view(x.shape)
