"""What an attack after Ghorbani et al. (2019) is worth: the worst of the images that keep bound, decision and score."""

import numpy as np


def change(here, there, count):
    """Share of the ``count`` strongest that are no longer among them; maps without ties."""
    one, two = (set(np.argsort(-np.ravel(m), kind="stable")[:count].tolist()) for m in (here, there))
    return 1 - len(one & two) / count


def explanation_attack(explain, decide, score, x, images, bound, tolerance, count):
    """The largest change over ``images`` that are admitted; None where none is."""
    worst, here = None, explain(x)
    for image in images:
        near = np.abs(image - x).max() <= bound * (1 + 1e-9)
        alike = decide(image) == decide(x) and abs(score(image) - score(x)) <= tolerance
        if near and alike:
            worst = max(worst or 0.0, change(here, explain(image), count))
    return worst
