"""Selectivity after Montavon, Samek and Mueller (2018): the area under the score while boxes are removed."""

import numpy as np
import torch


def selectivity(score, x, fill, values, edge):
    """One item; boxes by a label for each voxel, hidden from the highest mean down, trapezoid over [0, 1]."""
    index = np.indices(np.shape(values))
    along = [-(-n // e) for n, e in zip(np.shape(values), edge, strict=True)]
    label = np.ravel_multi_index([i // e for i, e in zip(index, edge, strict=True)], along)
    count = int(np.prod(along))
    means = np.array([values[label == i].mean() for i in range(count)])
    order = np.argsort(-means, kind="stable")
    curve = []
    for k in range(count + 1):
        hidden = torch.from_numpy(np.isin(label, order[:k]))
        curve.append(float(score(torch.where(hidden, fill, x))[0]))
    return float(np.mean((np.array(curve[1:]) + np.array(curve[:-1])) / 2))
