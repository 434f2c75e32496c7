"""Correlation of the change of the score with the change of the map, over images given one by one."""

import numpy as np


def prediction_saliency_correlation(score, explain, x, images):
    """``score`` and ``explain`` take one image; the distance of two maps is the sum of their absolute differences."""
    one = np.array([abs(score(y) - score(x)) for y in images])
    other = np.array([np.abs(np.ravel(explain(y)) - np.ravel(explain(x))).sum() for y in images])
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


def pushed(x, slope, spans, pairs, size, draw):
    """Copies with a box pushed along the slope's sign, then against it; ``draw(n)`` is a whole number below n."""
    for pair in range(pairs):
        edges = [max(1, round(size * n)) for n in x.shape[1:]]
        corner = [draw(n - e + 1) for n, e in zip(x.shape[1:], edges, strict=True)]
        box = (slice(None), *(slice(c, c + e) for c, e in zip(corner, edges, strict=True)))
        y = x.copy()
        for channel, span in enumerate(spans):
            part = (channel, *box[1:])
            y[part] += (1 - 2 * (pair % 2)) * span * np.sign(slope[part])
        yield y
