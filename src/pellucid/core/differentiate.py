"""Gradients of a score to inputs and layers, and to nothing else: no parameter is touched."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from pellucid.core.errors import CannotDo

Key = tuple[str, str]  # "input" or "layer", and its name


def leaf(x: Tensor, wanted: bool, graph: bool) -> Tensor:
    """The tensor that the gradient is taken to; never the caller's own, unless its graph is to be kept."""
    x = x.clone() if x.is_inference() else x  # autograd refuses what was made under torch.inference_mode
    return x if graph and x.requires_grad else x.detach().requires_grad_(wanted and x.is_floating_point())


def gradients(
    score: Tensor, name: str, wrt: Mapping[Key, list[Tensor]], graph: bool, retain: bool
) -> dict[Key, list[Tensor]]:
    """One backward, to exactly the tensors asked for.

    Args:
        score: one value per item.
        name: of the target, for the error.
        wrt: tensors to differentiate with respect to, by key.
        graph: whether the gradients keep a graph of their own.
        retain: whether the graph stays for the targets that follow.

    Raises:
        CannotDo: the score depends on no tensor that has a gradient, or layers are computed again behind our back.
    """
    tensors = [t for parts in wrt.values() for t in parts]
    if not tensors or not score.requires_grad:
        raise CannotDo(
            f"the score of {name!r} has no gradient: the inputs are integers, or the module cuts its graph",
            "remove torch.no_grad, .detach() or argmax from its forward, or use a perturbation method (Occlusion)",
        )
    try:
        given = torch.autograd.grad(score.sum(), tensors, retain_graph=retain, create_graph=graph, allow_unused=True)
    except CheckpointError as error:  # what is computed again in the backward pass is not computed as it was watched
        raise CannotDo(
            "the module computes layers again in its backward pass (activation checkpointing), unwatched",
            "switch checkpointing off (MONAI: use_checkpoint=False); gradients here need no training memory",
        ) from error
    found = iter(cast(tuple[Tensor | None, ...], given))  # torch's own types forget what allow_unused may give
    return {key: [_or_zero(next(found), t) for t in parts] for key, parts in wrt.items()}


def _or_zero(gradient: Tensor | None, like: Tensor) -> Tensor:
    """An input or layer that the score does not depend on has gradient zero."""
    return torch.zeros_like(like) if gradient is None else gradient
