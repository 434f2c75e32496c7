"""Dice (1945) of the map's highest voxels and the region: the mean over random orders of tied voxels."""

import numpy as np


def dice_of_sets(chosen, region):
    """2 |M and G| / (|M| + |G|)."""
    chosen, region = np.asarray(chosen, dtype=bool), np.asarray(region, dtype=bool)
    return 2 * int((chosen & region).sum()) / (int(chosen.sum()) + int(region.sum()))


def dice(values, region, area, draws=1, seed=0):
    """Mean over ``draws`` random orders of the ties; without ties one draw is exact."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    generator = np.random.default_rng(seed)
    total = 0.0
    for _ in range(draws):
        order = np.lexsort((generator.random(flat.size), -flat))
        chosen = np.zeros(flat.size, dtype=bool)
        chosen[order[:area]] = True
        total += dice_of_sets(chosen, np.asarray(region).ravel())
    return total / draws
