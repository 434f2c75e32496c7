"""One part hidden at a time, all others shown: the fall of the score."""

import numpy as np


def one_at_a_time(score, count):
    """By part; ``score`` takes which parts are shown."""
    whole = np.ones(count, dtype=bool)
    falls = []
    for part in range(count):
        shown = whole.copy()
        shown[part] = False
        falls.append(float(score(whole)) - float(score(shown)))
    return np.array(falls)
