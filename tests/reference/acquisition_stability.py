"""Changes of an image as another acquisition makes them, one axis at a time, and the change of a map under each."""

import numpy as np


def along(x, axis, row):
    """``row`` of every line of an axis."""
    return np.apply_along_axis(row, axis, x)


def blurred(x, sigma):
    """Gaussian of three standard deviations, reflected at the borders."""
    radius = max(1, int(np.ceil(3 * sigma)))
    t = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (t / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in range(x.ndim):
        mode = "reflect" if radius < x.shape[axis] else "edge"
        x = along(x, axis, lambda r, mode=mode: np.convolve(np.pad(r, radius, mode=mode), kernel, "valid"))
    return x


def scaled(x, shape):
    """Linear interpolation between centers of voxels."""
    for axis, n in enumerate(shape):
        old = x.shape[axis]
        at = (np.arange(n) + 0.5) * old / n - 0.5
        x = along(x, axis, lambda r, at=at: np.interp(at, np.arange(len(r)), r))
    return x


def changed(x, knob, strength):
    """One channel under one knob."""
    low, width = x.min(), x.max() - x.min()
    if knob == "blur":
        return blurred(x, strength)
    if knob == "gamma":
        return low + width * ((x - low) / width) ** strength
    if knob == "window":
        return np.clip(x, low + strength / 2 * width, low + (1 - strength / 2) * width)
    if knob == "bias field":
        return low + (x - low) * (1 + strength * np.linspace(-1, 1, x.shape[-1]))
    if knob == "resampling":
        return scaled(scaled(x, [max(1, round(n / strength)) for n in x.shape]), x.shape)
    half = strength // 2
    return along(x, x.ndim - 1, lambda r: np.convolve(np.pad(r, half, mode="reflect"), np.ones(strength), "valid")) / (
        strength
    )


def acquisition_stability(explain, score, x, strengths):
    """Of one item "channel *space": change of the map, and of the score, by knob."""
    here, found = np.ravel(explain(x)), {}
    for knob, strength in strengths.items():
        there = np.stack([changed(c, knob, strength) for c in x])
        found[knob] = (np.linalg.norm(np.ravel(explain(there)) - here) / np.linalg.norm(here), score(there) - score(x))
    return found
