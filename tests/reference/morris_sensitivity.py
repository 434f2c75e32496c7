"""Elementary effects after Morris (1991), one switch after the other; mu* after Campolongo et al. (2007)."""

import numpy as np


def morris_sensitivity(score, design, count):
    """mu, mu* and sigma of each part; rows of ``design`` are states, ``count + 1`` to a trajectory."""
    effects = [[] for _ in range(count)]
    for first in range(0, len(design), count + 1):
        values = [float(score(design[first + step])) for step in range(count + 1)]
        for step in range(count):
            before, after = design[first + step], design[first + step + 1]
            (part,) = [k for k in range(count) if before[k] != after[k]]
            rise = values[step + 1] - values[step]
            effects[part].append(rise if after[part] else -rise)
    found = np.array(effects)
    return found.mean(1), np.abs(found).mean(1), found.std(1, ddof=1)
