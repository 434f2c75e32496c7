"""IROF after Rieger and Hansen (2020), scores counted from that of the fill."""

import numpy as np
import torch


def irof(score, x, fill, values, labels, steps):
    """One item: labels of the pieces "*space", from 0; mean share of the score that is gone."""
    pieces = sorted(set(np.ravel(labels).tolist()), key=lambda p: (-float(values[labels == p].mean()), p))
    first, last = float(score(x)[0]), float(score(fill)[0])
    gone = []
    for k in range(1, steps + 1):
        hidden = torch.from_numpy(np.isin(labels, pieces[: round(k * len(pieces) / steps)]))
        gone.append((first - float(score(torch.where(hidden, fill, x))[0])) / (first - last))
    return sum(gone) / steps
