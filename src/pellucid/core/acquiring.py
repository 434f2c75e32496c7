"""An image as another scanner, dose or operator would have made it, simulated on the network's grid.

Every function takes "batch channel *space" and treats each item and channel by itself.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.space import axes, box_mean, resize

Images = Float[Tensor, "batch channel *space"]


def gamma(x: Images, exponent: float) -> Images:
    """Another contrast: intensities between the minimum and the maximum to the power of ``exponent``."""
    low, width = _span(x)
    return low + width * ((x - low) / width).clamp(0, 1) ** exponent


def window(x: Images, share: float) -> Images:
    """A narrower display window: the outer ``share`` of the range is cut, half at either end."""
    low, width = _span(x)
    cut = share / 2 * width
    return torch.minimum(torch.maximum(x, low + cut), low + width - cut)


def shaded(x: Images, share: float) -> Images:
    """A smooth bias field: along the last axis one side is darker by ``share`` and the other as much brighter."""
    low, _ = _span(x)
    line = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype, device=x.device)
    return low + (x - low) * (1 + share * line)


def resampled(x: Images, factor: float) -> Images:
    """Acquired on a grid that is coarser by ``factor``, and brought back."""
    coarse = [max(1, round(n / factor)) for n in x.shape[2:]]
    return resize(resize(x, coarse), x.shape[2:])


def smeared(x: Images, length: int) -> Images:
    """Motion along the last axis while the image was taken: the mean over an odd ``length`` of voxels."""
    return box_mean(x, [1] * (x.ndim - 3) + [length])


def _span(x: Tensor) -> tuple[Tensor, Tensor]:
    low, high = x.amin(axes(x), keepdim=True), x.amax(axes(x), keepdim=True)
    return low, (high - low).clamp_min(1e-12)
