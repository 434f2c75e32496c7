"""Deep Taylor decomposition after Montavon et al. (2017), one unit at a time.

Each unit's relevance is divided among its positive contributions, without the bias (Eq. z+); the first map divides by
the squared weights, or within the box of what an input can be. The review's Eq. 3 lacks the divisor.
"""

import numpy as np
import torch


def unit_weights(affine, shape, j):
    """Weights of the j-th output of an affine map, shaped as its input: differences of unit inputs."""
    out = np.zeros(int(np.prod(shape)))
    with torch.no_grad():
        base = affine(torch.zeros(shape, dtype=torch.float64)).flatten()[j]
        for i in range(len(out)):
            unit = torch.zeros(shape, dtype=torch.float64)
            unit.view(-1)[i] = 1
            out[i] = float(affine(unit).flatten()[j] - base)
    return out


def parts(w, x, how, low, high):
    """What of one unit's relevance each input gets, not yet divided by the sum."""
    if how == "w2":
        return w**2
    if how == "zB":
        return x * w - low * np.clip(w, 0, None) - high * np.clip(w, None, 0)
    return np.clip(x * w, 0, None)


def deep_taylor(chain, x, pick, first="z+", low=0.0, high=1.0):
    """The relevance of one item: of the last map's output ``pick``, where it is positive; zeros where it is not."""
    values = [x]
    for affine in chain[:-1]:
        with torch.no_grad():
            values.append(torch.relu(affine(values[-1])))
    with torch.no_grad():
        last = chain[-1](values[-1]).flatten()
    relevance = np.zeros(len(last))
    relevance[pick] = max(float(last[pick]), 0.0)
    for i in reversed(range(len(chain))):
        a = values[i].flatten().numpy()
        out = np.zeros(len(a))
        for j in np.flatnonzero(relevance):
            part = parts(unit_weights(chain[i], values[i].shape, j), a, first if i == 0 else "z+", low, high)
            out += part / part.sum() * relevance[j] if part.sum() > 0 else 0.0
        relevance = out
    return torch.from_numpy(relevance)
