"""Shapley values after Shapley (1953): a player's gain when it joins, averaged over every order of the players."""

import numpy as np
import torch


def payoff(score, inputs, fills, labels):
    """v(coalition): the score of one item with the other players' voxels filled; ``labels`` is "*space"."""
    known = {}

    def value(coalition):
        key = tuple(sorted(coalition))
        if key not in known:
            hidden = torch.from_numpy(~np.isin(labels, key))
            shown = {}
            for name, x in inputs.items():
                alike = tuple(x.shape[2:]) == labels.shape
                shown[name] = x.clone() if alike else x
                if alike:
                    shown[name][..., hidden] = fills[name][..., hidden]
            known[key] = float(score(shown)[0])
        return known[key]

    return value


def orders(players):
    """Every order of the players."""
    if not players:
        yield []
    for i, first in enumerate(players):
        for rest in orders(players[:i] + players[i + 1 :]):
            yield [first, *rest]


def shapley(value, count):
    """One value per player, from all orders (few players only)."""
    gains, number = np.zeros(count), 0
    for order in orders(list(range(count))):
        number += 1
        for place, player in enumerate(order):
            gains[player] += value(order[: place + 1]) - value(order[:place])
    return gains / number


def spread(values, labels):
    """Each value over its voxels, in equal parts."""
    out = np.zeros(labels.shape)
    for player, value in enumerate(values):
        out[labels == player] = value / (labels == player).sum()
    return out
