"""Morris (1991) over knobs in [0, 1]: every effect by itself, and the mean magnitude of Campolongo et al. (2007)."""

import numpy as np


def acquisition_sensitivity(score, paths, cases):
    """By knob: the mean magnitude, and the signed mean; ``score`` takes a case's number and the knobs."""
    effects = {}
    for path in paths:
        for step in range(len(path) - 1):
            before, after = path[step], path[step + 1]
            (knob,) = np.flatnonzero(before != after)
            for case in range(cases):
                slope = (score(case, after) - score(case, before)) / (after[knob] - before[knob])
                effects.setdefault(int(knob), []).append(slope)
    return {knob: (float(np.abs(v).mean()), float(np.mean(v))) for knob, v in effects.items()}
