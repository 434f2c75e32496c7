"""Average increase after Chattopadhay et al. (2018), for one case: whether the score rises."""

import torch


def average_increase(score, x, fill, values):
    """1 or 0, of one item."""
    weights = torch.as_tensor(values).clamp(min=0)
    return float(score(x * weights / weights.max() + fill * (1 - weights / weights.max()))[0] > score(x)[0])
