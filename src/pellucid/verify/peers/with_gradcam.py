"""Maps as pytorch-grad-cam makes them: its product under ``map``, before ReLU and scaling under ``cells``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Given = dict[str, Any]
Found = dict[str, Any]


def _target(label: int) -> Callable[[Tensor], Tensor]:
    return lambda output: output[label]


def _cam(name: str) -> Callable[..., Found]:
    """One of the peer's classes."""

    def call(net: nn.Module, x: Tensor, labels: list[int], layer: str, given: Given) -> Found:
        import pytorch_grad_cam

        made = getattr(pytorch_grad_cam, name)(net, [net.get_submodule(layer)])
        made.batch_size = given.get("batch_size", 16)
        cells, original = [], made.get_cam_image

        def kept(*positional: Any, **named: Any) -> Any:
            cells.append(original(*positional, **named))
            return cells[-1]

        made.get_cam_image = kept
        found = made(x, [_target(label) for label in labels])
        enlarged = {"cells": torch.as_tensor(cells[0])[:, None]} if cells else {}
        return {"map": torch.as_tensor(found)[:, None], **enlarged}

    return call


def guided(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """Guided backpropagation of one item; the peer returns channels last."""
    from pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel

    found = GuidedBackpropReLUModel(net, device="cpu")(x.clone(), labels[0])
    return {"map": torch.as_tensor(found).movedim(-1, 0)[None]}


NAMES = (
    "GradCAM",
    "GradCAMPlusPlus",
    "XGradCAM",
    "HiResCAM",
    "LayerCAM",
    "EigenCAM",
    "EigenGradCAM",
    "ScoreCAM",
    "AblationCAM",
    "FullGrad",
)
CALLS: dict[str, Callable[..., Found]] = {**{name: _cam(name) for name in NAMES}, "GuidedBackpropReLUModel": guided}
