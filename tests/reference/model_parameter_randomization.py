"""Cascading randomization after Adebayo et al. (2018): fresh weights from the top down, rank correlation.

Spearman's correlation is Pearson's of the ranks; tied values share the mean of their ranks.
"""

import numpy as np
import torch


def ranks(values):
    """Ranks from 1, ties at their mean."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    return np.array([(flat < v).sum() + ((flat == v).sum() + 1) / 2 for v in flat])


def spearman(one, other):
    """Of two maps; NaN where one is constant."""
    a, b = ranks(one), ranks(other)
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm > 0 else float("nan")


def cascade(module, explain, layers, seed):
    """Correlation with the first map after each layer of ``layers`` is drawn anew, in this order, and stays so.

    ``explain`` maps a module to a map; the i-th layer is drawn with ``seed + i``. The module is changed.
    """
    first = np.array(explain(module))
    curve = []
    state = torch.get_rng_state()
    for i, name in enumerate(layers):
        torch.manual_seed(seed + i)
        module.get_submodule(name).reset_parameters()
        torch.set_rng_state(state)
        curve.append(spearman(first, explain(module)))
    return curve


def one_by_one(module, explain, layers, seed):
    """Correlation with the first map when the i-th layer alone is drawn anew, with ``seed + i``."""
    first, curve, state = np.array(explain(module)), [], torch.get_rng_state()
    trained = {k: v.clone() for k, v in module.state_dict().items()}
    for i, name in enumerate(layers):
        module.load_state_dict(trained)
        torch.manual_seed(seed + i)
        module.get_submodule(name).reset_parameters()
        torch.set_rng_state(state)
        curve.append(spearman(first, explain(module)))
    return curve
