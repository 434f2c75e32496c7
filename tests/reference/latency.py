"""The nearest-rank percentile of a list of times."""

import numpy as np


def latency(seconds, share):
    """The smallest time that at least ``share`` of all do not exceed."""
    ordered = sorted(seconds)
    return ordered[max(1, int(np.ceil(share * len(ordered)))) - 1]
