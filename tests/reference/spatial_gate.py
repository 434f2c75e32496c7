"""An attention gate over places (Oktay et al. 2018, eqs. 1 and 2), and what replacing it by its mean changes."""

import numpy as np


def gated(values, gate):
    """Features times the gate: (channel, *space) and (*space)."""
    return values * gate[None]


def effect(score_of, values, gate):
    """How much the score loses when the gate is the same everywhere."""
    return score_of(gated(values, gate)) - score_of(gated(values, np.full_like(gate, gate.mean())))
