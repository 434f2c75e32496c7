"""The range of intensities of an image, the unit in which noise is measured."""

import torch
from jaxtyping import Float
from torch import Tensor

_TAIL = 0.01  # of the body's voxels, cut off at either end: metal and dead detector cells are not the image's range
_FRAME = 0.1  # of the border: a value that is rarer there is tissue


def body_range(x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel"]:
    """The intensity range that noise is measured by: between the 1st and 99th percentile of the body's voxels.

    The body is every voxel that differs from the outside (air, padding, the black around a fundus): the most common
    value on the image's border, where it fills a tenth of it. A body of one value has its distance from the outside;
    an image of one value has no range, 0.
    """
    edge = torch.ones(x.shape[2:], dtype=torch.bool, device=x.device)
    edge[(slice(1, -1),) * edge.ndim] = False
    channels = x.flatten(0, 1)
    return torch.stack([_range(values, values[edge]) for values in channels]).view(x.shape[:2])


def _range(values: Tensor, border: Tensor) -> Tensor:
    outside = border.mode().values
    framed = float((border == outside).double().mean()) >= _FRAME
    body = values[values != outside] if framed else values.flatten()
    if not len(body):
        return torch.zeros_like(outside)
    cut = int(_TAIL * (len(body) - 1))
    low, high = body.kthvalue(1 + cut).values, body.kthvalue(len(body) - cut).values
    return high - low if bool(high > low) else (high - outside).abs()
