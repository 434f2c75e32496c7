"""Input x gradient after Shrikumar et al. (2017): x_i * dS/dx_i.

The derivative is taken in forward mode, direction by direction, not by backpropagation.
"""

import torch


def input_x_gradient(score, inputs, name):
    """The map of one item: "1 channel *space"."""
    x = inputs[name]

    def of(value):
        return score({**inputs, name: value})[0]

    out = torch.zeros_like(x)
    for i in range(x.numel()):
        direction = torch.zeros(x.numel(), dtype=x.dtype)
        direction[i] = x.flatten()[i]
        # the derivative along x_i e_i is x_i dS/dx_i at once
        out.view(-1)[i] = torch.func.jvp(of, (x,), (direction.view_as(x),))[1]
    return out
