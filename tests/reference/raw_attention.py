"""Attention of one layer (Vaswani et al. 2017, eq. 1), from queries and keys."""

import numpy as np


def softmax_of(query, key):
    """softmax(Q K^T / sqrt(d)) per head: (heads, N, d) twice -> (heads, N, N)."""
    logits = query @ np.swapaxes(key, 1, 2) / np.sqrt(query.shape[-1])
    grown = np.exp(logits - logits.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


def seen_from(weights, start):
    """The head-averaged attention, weighted over the rows by ``start``."""
    return start @ weights.mean(0)
