"""The completeness axiom of Sundararajan, Taly and Yan (2017) as a gap."""

import numpy as np


def completeness_gap(values, at_image, at_reference):
    """Share of the score's difference that the sum of the values misses."""
    promised = float(at_image) - float(at_reference)
    return abs(float(np.sum(values)) - promised) / abs(promised)
