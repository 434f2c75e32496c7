"""Faithfulness correlation after Bhatt, Weller and Moura (2020), over given subsets of labeled blocks."""

import numpy as np
import torch


def faithfulness_correlation(score, x, fill, values, labels, subsets):
    """Pearson of the map's sum over each subset (a list of labels) and the fall of the score; one item."""
    first, sums, falls = float(score(x)[0]), [], []
    for subset in subsets:
        hidden = np.isin(labels, list(subset))
        sums.append(float(values[hidden].sum()))
        falls.append(first - float(score(torch.where(torch.from_numpy(hidden), fill, x))[0]))
    return float(np.corrcoef(sums, falls)[0, 1])
