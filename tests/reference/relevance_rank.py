"""Relevance rank accuracy after Arras et al. (2022): the share of the mask under the top |G| values."""

import numpy as np


def relevance_rank(values, region, draws=None):
    """One map, one mask; ``draws`` random orders of the ties are averaged, None: their expected value."""
    flat, marked = np.ravel(values), np.ravel(region).astype(bool)
    size = int(marked.sum())
    if draws is not None:
        hits = [marked[np.lexsort((draw, -flat))[:size]].mean() for draw in draws]
        return float(np.mean(hits))
    level = np.sort(flat)[::-1][size - 1]
    above, tied = flat > level, flat == level
    return float((marked & above).sum() + (size - above.sum()) * (marked & tied).sum() / tied.sum()) / size
