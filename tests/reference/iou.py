"""Intersection over union after Jaccard (1912), for memberships between 0 and 1: sum of min over sum of max."""

import numpy as np


def top_area(values, area):
    """Membership of the ``area`` highest voxels; voxels tied at the last place share what is left."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    out, left = np.zeros(flat.size), float(area)
    for level in np.unique(flat)[::-1]:
        tied = flat == level
        out[tied] = min(1.0, left / tied.sum())
        left -= min(left, float(tied.sum()))
    return out.reshape(np.shape(values))


def otsu(values):
    """Membership above Otsu's (1979) threshold: the bin of 256 that parts the values with the least variance within."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    edges = np.linspace(flat.min(), flat.max(), 257)
    centers = (edges[1:] + edges[:-1]) / 2
    place = np.clip(((flat - flat.min()) / (flat.max() - flat.min()) * 256).astype(int), 0, 255)
    best, chosen = np.inf, centers[0]
    for cut in range(255):
        low, high = centers[place[place <= cut]], centers[place[place > cut]]
        within = (low.size * low.var() if low.size else 0.0) + (high.size * high.var() if high.size else 0.0)
        if within < best - 1e-12:
            best, chosen = within, centers[cut]
    return (np.asarray(values) > chosen).astype(float)


def iou(membership, region):
    """Of two fuzzy sets."""
    region = np.asarray(region, dtype=np.float64)
    return float(np.minimum(membership, region).sum() / np.maximum(membership, region).sum())
