"""The map and the expert's region that a localization metric compares, and why there may be nothing to compare."""

import torch
from torch import Tensor

from pellucid.core.errors import BadRegion
from pellucid.core.explanation import Answer, Attribution
from pellucid.core.grid import Grid
from pellucid.core.metric import Metric, Score
from pellucid.core.probe import Probe

NOT_FINITE = "the map is not finite"


def compared(metric: Metric, probe: Probe, answer: Answer, region: Tensor | None) -> tuple[Tensor, Tensor] | Score:
    """The maps ("batch *space") and the region, on the CPU; a Score that is undefined where one is missing.

    Args:
        metric: that compares.
        probe: of the case.
        answer: on the network's grid.
        region: mask on the network's grid; None where there is none.

    Raises:
        BadRegion: the region is empty, everything or of another shape.
    """
    if region is None:
        return Score.undefined(metric, probe.batch, "no expert or planted region")
    if not isinstance(answer, Attribution):
        return Score.undefined(metric, probe.batch, "the answer is not a map")
    _check(region, probe.grid)
    return answer.collapsed(probe.model.primary).detach().cpu(), region.cpu()


def finite(maps: Tensor) -> list[bool]:
    """Whether each item's map is finite everywhere."""
    return torch.isfinite(maps).flatten(1).all(1).tolist()


def _check(region: Tensor, grid: Grid) -> None:
    if tuple(region.shape) != grid.shape:
        raise BadRegion(f"expected a region of shape {grid.shape}, got {tuple(region.shape)}", "use the input's grid")
    inside = int(region.sum())
    if inside in (0, region.numel()):
        what = "empty" if inside == 0 else "the whole image"
        raise BadRegion(f"the region is {what} on the network's grid", "check that mask and image show the same field")
