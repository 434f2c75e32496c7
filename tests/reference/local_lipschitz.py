"""The local Lipschitz estimate after Alvarez-Melis and Jaakkola (2018), over given neighbors."""

import numpy as np


def local_lipschitz(explain, x, noises):
    """The largest ||A(x + e) - A(x)|| / ||e||; ``explain`` maps an image to an array."""
    here = np.ravel(explain(x))
    slopes = [np.linalg.norm(np.ravel(explain(x + e)) - here) / np.linalg.norm(np.ravel(e.numpy())) for e in noises]
    return max(slopes)
