"""Seg-XRes-CAM after Hasany et al. (2023): the gradient averaged over windows, enlarged again, times the activation.

Block b of m on n cells reaches from floor(b n / m) to ceil((b + 1) n / m); enlarged linearly between block centers.
"""

import numpy as np
import torch


def blocks(length, window):
    """First and last cell (excluded) of each block along one axis."""
    count = -(-length // window)
    return [(b * length // count, -(-(b + 1) * length // count)) for b in range(count)]


def seg_x_res_cam(tail, activation, window, upsample):
    """The map of one item on the layer's cells: "*space"."""
    slope = torch.func.jacfwd(lambda a: tail(a)[0])(activation).detach().numpy()[0]
    shape = tuple(activation.shape[2:])
    axes = [blocks(n, window) for n in shape]
    out = np.zeros(shape)
    for k in range(activation.shape[1]):
        small = np.zeros([len(a) for a in axes])
        for place in np.ndindex(*small.shape):
            block = tuple(slice(*axes[axis][b]) for axis, b in enumerate(place))
            small[place] = slope[k][block].mean()
        out += upsample(small, shape) * activation[0, k].numpy()
    return np.maximum(out, 0)
