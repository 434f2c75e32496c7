"""Score-CAM after Wang et al. (2020): each channel, brought to the image's size and to [0, 1], masks the image.

C_k = S(H_k x + (1 - H_k) fill) - S(fill); L = relu(sum_k softmax(C)_k A^k). A constant channel is passed over.
"""

import numpy as np
import torch


def score_cam(score, inputs, fills, name, activation, upsample):
    """The map of one item on the layer's cells; inputs of the spatial shape of ``name`` are masked together."""
    shape = tuple(inputs[name].shape[2:])
    empty = float(score(fills)[0])
    gains = {}
    for k, channel in enumerate(activation[0].numpy()):
        if channel.max() == channel.min():
            continue
        mask = upsample(channel, shape)
        mask = torch.from_numpy((mask - mask.min()) / (mask.max() - mask.min()))
        shown = {n: mask * x + (1 - mask) * fills[n] if tuple(x.shape[2:]) == shape else x for n, x in inputs.items()}
        gains[k] = float(score(shown)[0]) - empty
    total = sum(np.exp(gain) for gain in gains.values())
    out = np.zeros(tuple(activation.shape[2:]))
    for k, gain in gains.items():
        out += np.exp(gain) / total * activation[0, k].numpy()
    return np.maximum(out, 0)
