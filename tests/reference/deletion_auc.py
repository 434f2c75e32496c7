"""Deletion after Petsiuk, Das and Saenko (2018): hide the most relevant units first, area under the score.

y_k = S(x with the k highest units of the map at the fill), t = k / d, trapezoid over t in [0, 1] with both ends.
"""

import numpy as np
import torch


def deletion_curve(score, x, fill, values, counts):
    """The score of one item after hiding 0, ..., d units; the mask is shared by the channels."""
    flat = [float(v) for v in np.asarray(values).ravel()]
    order = sorted(range(len(flat)), key=lambda i: -flat[i])  # Python's sort keeps the order of ties
    curve = []
    for count in counts:
        y = x.clone().flatten(2)
        chosen = torch.tensor(order[:count], dtype=torch.long)
        y[:, :, chosen] = fill.flatten(2)[:, :, chosen]
        curve.append(float(score(y.view(x.shape))[0]))
    return np.array(curve)


def deletion_auc(score, x, fill, values, counts):
    """The area over t = count / d."""
    curve, t = deletion_curve(score, x, fill, values, counts), np.asarray(counts) / np.asarray(values).size
    return float(sum((t[i + 1] - t[i]) * (curve[i] + curve[i + 1]) / 2 for i in range(len(t) - 1)))
