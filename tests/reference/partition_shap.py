"""Owen values on a binary hierarchy (Owen 1977), by recursion over every setting of the sibling groups.

A hierarchy is a player's number, or a pair of hierarchies.
"""

import numpy as np


def players(tree):
    """Who is in it."""
    return [tree] if isinstance(tree, int) else players(tree[0]) + players(tree[1])


def owen(value, tree, count):
    """One value per player."""
    values = np.zeros(count)

    def share(part, shown, weight):
        if isinstance(part, int):
            values[part] += weight * (value([*shown, part]) - value(shown))
            return
        first, second = part
        for own, sibling in ((first, second), (second, first)):
            share(own, shown, weight / 2)
            share(own, shown + players(sibling), weight / 2)

    share(tree, [], 1.0)
    return values
