"""A gate over channels (Hu et al. 2018, eq. 4), and to first order what its preferences add at each place."""

import numpy as np


def cells(slope, gate, features):
    """sum_c dS/dy_c (g_c - mean g) A_c.

    Args:
        slope: of the score with respect to the gated features, (channel, *space).
        gate: (channel).
        features: before the gate, (channel, *space).
    """
    over = gate - gate.mean()
    return np.tensordot(over, slope * features, axes=1)
