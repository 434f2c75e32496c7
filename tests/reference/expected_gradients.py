"""Expected gradients after Erion et al. (2021), equation 3: integrated gradients averaged over references.

EG_i(x) = E over x' and a ~ U(0, 1) of (x_i - x'_i) * dF(x' + a (x - x')) / dx_i. The expectation is taken over given
draws (reference, a); the derivative in forward mode.
"""

import numpy as np
import torch


def terms(score, inputs, draws):
    """What each draw (reference by input name, a) contributes: one map by input name."""
    found = []
    for reference, a in draws:
        point = {name: reference[name] + a * (x - reference[name]) for name, x in inputs.items()}
        slopes = {
            name: torch.func.jacfwd(lambda v, n=name, p=point: score({**p, n: v})[0])(point[name]) for name in inputs
        }
        found.append({name: ((inputs[name] - reference[name]) * slopes[name]).detach() for name in inputs})
    return found


def expected_gradients(score, inputs, draws):
    """The maps of one item, by input name."""
    found = terms(score, inputs, draws)
    return {name: sum(term[name] for term in found) / len(found) for name in inputs}


def standard_error(values, neighbors):
    """Root of s^2 / n, with s^2 half the mean square of the difference between values marked as neighbors."""
    values = np.asarray(values, dtype=float)
    differences = np.array([b - a for a, b, near in zip(values, values[1:], neighbors[1:], strict=False) if near])
    return np.sqrt(np.mean(differences**2, axis=0) / 2 / len(values))
