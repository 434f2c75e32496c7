"""Insertion after Petsiuk, Das and Saenko (2018): show the most relevant units first, area under the score.

y_k = S(fill with the k highest units of the map shown), t = k / d, trapezoid over t in [0, 1] with both ends.
"""

import numpy as np
import torch


def insertion_curve(score, x, fill, values, counts):
    """The score of one item after showing 0, ..., d units; the mask is shared by the channels."""
    remaining = np.asarray(values, dtype=np.float64).ravel().copy()
    y = fill.clone().flatten(2)
    curve, shown = [], 0
    for count in counts:
        while shown < count:
            best = int(np.argmax(remaining))  # the first of equals
            y[:, :, best] = x.flatten(2)[:, :, best]
            remaining[best] = -np.inf
            shown += 1
        curve.append(float(score(torch.clone(y).view(x.shape))[0]))
    return np.array(curve)


def insertion_auc(score, x, fill, values, counts):
    """The area over t = count / d."""
    curve, t = insertion_curve(score, x, fill, values, counts), np.asarray(counts) / np.asarray(values).size
    return float(np.sum(np.diff(t) * (curve[1:] + curve[:-1]) / 2))
