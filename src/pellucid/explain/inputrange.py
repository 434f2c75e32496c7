"""The values that a model's input can take, in network units."""

import torch
from torch import Tensor

from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe


def input_range(probe: Probe, name: str) -> tuple[Tensor, Tensor]:
    """Least and greatest value per channel: by the model's card, or of the image itself where the card sets no limit.

    What was padded beside the image may lie outside the card's range; the bounds are widened to hold every voxel.

    Returns:
        Two tensors "batch channel *ones".
    """
    x = probe.inputs[name]
    axes = list(range(2, x.ndim))
    low, high = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
    spec = next(s for s in probe.model.inputs if s.name == name)
    declared = _declared(spec, probe)
    if declared is None:
        return low, high
    shape = (1, -1, *(1,) * (x.ndim - 2))
    ends = [torch.tensor(end).to(x).view(shape).expand_as(low) for end in declared]
    return torch.minimum(ends[0], low), torch.maximum(ends[1], high)


def _declared(spec: InputSpec, probe: Probe) -> tuple[list[float], list[float]] | None:
    """Both ends per channel; None: the card sets none."""
    if spec.window is not None and spec.name in probe.scene.affine:
        shift, scale = probe.scene.affine[spec.name]
        low, high = ([(end - a) / b for a, b in zip(shift, scale, strict=True)] for end in spec.window)
        return low, high
    if spec.scale == "unit":
        mean, std = spec.mean or (0.0,) * spec.channels, spec.std or (1.0,) * spec.channels
        low, high = ([(end - a) / b for a, b in zip(mean, std, strict=True)] for end in (0.0, 1.0))
        return low, high
    return None
