"""Monotonicity after Arya et al. (2019), as the share of steps: blocks are shown by ascending magnitude of the map."""

import numpy as np
import torch


def monotonicity(score, x, fill, values, labels):
    """One item; labels of the blocks from 0."""
    sizes = [abs(float(values[labels == i].sum())) for i in range(labels.max() + 1)]
    y, last, kept = fill.clone(), float(score(fill)[0]), 0
    for i in np.argsort(sizes, kind="stable"):
        y = torch.where(torch.from_numpy(labels == i), x, y)
        now = float(score(y)[0])
        kept += now >= last
        last = now
    return kept / len(sizes)
