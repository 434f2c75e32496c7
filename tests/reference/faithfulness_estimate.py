"""Faithfulness estimate after Alvarez-Melis and Jaakkola (2018), over labeled blocks."""

import numpy as np
import torch


def faithfulness_estimate(score, x, fill, values, labels):
    """Pearson over blocks of the map's sum and the fall of the score when the block alone is hidden; one item."""
    pairs = [
        (values[labels == i].sum(), float(score(x)[0] - score(torch.where(torch.from_numpy(labels == i), fill, x))[0]))
        for i in range(labels.max() + 1)
    ]
    return float(np.corrcoef(np.array(pairs).T)[0, 1])
