"""Efficient MPRT after Hedstrom et al. (2023): rise of the entropy of the map's histogram, relative to what it was.

Sturges' rule counts the values of the map (not its axes): log2 d + 1 bins, rounded up, of equal width from the least
value to the largest, the last one closed.
"""

import numpy as np


def bins_of(count):
    """Sturges' rule."""
    return int(np.ceil(np.log2(count))) + 1


def entropy(values, bins=None):
    """In nat, of the share of values in each bin."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    bins = bins_of(len(flat)) if bins is None else bins
    low, high = flat.min(), flat.max()
    held = [0] * bins
    for v in flat:
        held[min(int((v - low) / (high - low) * bins), bins - 1)] += 1
    shares = [h / len(flat) for h in held if h]
    return -sum(p * float(np.log(p)) for p in shares)


def rise(before, after, bins=None):
    """0 for a map that stays."""
    return (entropy(after, bins) - entropy(before, bins)) / entropy(before, bins)
