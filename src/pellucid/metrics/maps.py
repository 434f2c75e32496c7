"""The map that a metric scores, and why it may have nothing to score."""

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.explanation import Answer, Attribution
from pellucid.core.probe import Probe
from pellucid.core.space import per_item

NO_MAP = "the answer is not a map on the grid of the input"
_ROUNDING = 512  # last places of a map's largest value, below which a difference is rounding


def on_grid(answer: Answer, probe: Probe) -> Float[Tensor, "batch *space"] | None:
    """The collapsed map on the primary input, or None where there is none."""
    if not isinstance(answer, Attribution):
        return None
    values = answer.collapsed(probe.model.primary).detach().cpu()
    return values if tuple(values.shape[1:]) == probe.grid.shape else None


def blank_reasons(values: Float[Tensor, "batch *space"]) -> tuple[str, ...]:
    """Why a map ranks nothing, by item; empty where it does."""
    finite = torch.isfinite(values).flatten(1).all(1).tolist()
    constant = (values.flatten(1).amax(1) == values.flatten(1).amin(1)).tolist()
    return tuple(
        "the map is not finite" if not f else "the map is constant: it ranks nothing" if c else ""
        for f, c in zip(finite, constant, strict=True)
    )


def ranked(values: Float[Tensor, "batch *space"]) -> Float[Tensor, "batch *space"]:
    """Values equal but for rounding count as tied, so that an item alone is ranked as in a batch."""
    values = values.nan_to_num(0.0, 0.0, 0.0)
    largest = values.flatten(1).abs().amax(1).clamp_min(1e-30)
    quantum = per_item(largest, values) * (_ROUNDING * torch.finfo(values.dtype).eps)
    return (values / quantum).round()
