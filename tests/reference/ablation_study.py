"""Unit ablation after Meyes et al. (2019): the score with one channel replaced, for one case after the other."""

import numpy as np
import torch


def ablation_study(tail, activations, channel, how, order):
    """Fall of the score of each case; ``tail`` goes from "1 channel *cells" to a score."""
    falls = np.zeros(len(activations))
    for case in range(len(activations)):
        changed = activations[case : case + 1].clone()
        if how == "zero":
            changed[0, channel] = 0
        elif how == "mean":
            changed[0, channel] = torch.stack(list(activations[:, channel])).mean(0)
        else:
            changed[0, channel] = activations[int(order[case]), channel]
        falls[case] = float(tail(activations[case : case + 1])) - float(tail(changed))
    return falls
