"""Gradients as zennit's attributors give them without a composite, under ``map``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Given = dict[str, Any]
Found = dict[str, Tensor]


def _chosen(labels: list[int]) -> Callable[[Tensor], Tensor]:
    """The gradient that enters at the output: one at each item's label."""
    return lambda output: torch.eye(output.shape[1], dtype=output.dtype)[labels]


def _gradient(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """The plain gradient."""
    from zennit.attribution import Gradient

    with Gradient(net) as attributor:
        return {"map": attributor(x.clone(), _chosen(labels))[1].detach()}


def _integrated(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """The peer's right sums from zero; shifted back by half a step they are midpoints."""
    from zennit.attribution import IntegratedGradients

    back = x / (2 * given["steps"]) if given["shifted"] else torch.zeros_like(x)
    with IntegratedGradients(net, n_iter=given["steps"], baseline_fn=lambda _: -back) as attributor:
        return {"map": attributor((x - back).clone(), _chosen(labels))[1].detach()}


def _smooth(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """SmoothGrad with the noise that ours has drawn; the peer adds one draw without noise at the end."""
    from zennit.attribution import SmoothGrad

    with SmoothGrad(net, noise_level=1.0, n_iter=given["draws"] + 1) as attributor:
        return {"map": attributor(x.clone(), _chosen(labels))[1].detach()}


CALLS: dict[str, Callable[..., Found]] = {
    "Gradient": _gradient,
    "IntegratedGradients": _integrated,
    "SmoothGrad": _smooth,
}
