"""Maps as pytorch-grad-cam makes them: its product under ``map``, before ReLU and scaling under ``cells``."""

import tracemalloc
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


def _guided(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """Guided backpropagation of one item; the peer returns channels last."""
    from pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel

    found = GuidedBackpropReLUModel(net, device="cpu")(x.clone(), labels[0])
    return {"map": torch.as_tensor(found).movedim(-1, 0)[None]}


def _raises(action: Callable[[], Any]) -> bool:
    try:
        action()
    except Exception:  # a peer may raise anything
        return True
    return False


def _left_broken(net: nn.Module, x: Tensor, labels: list[int], layer: str, _given: Given) -> Found:
    """B10: Ablation-CAM of a volume fails; does the network still work?"""
    failed = _raises(lambda: _cam("AblationCAM")(net, x, labels, layer, {}))
    return {"failed": failed, "broken": _raises(lambda: net(x))}


def _swallowed(net: nn.Module, x: Tensor, _labels: list[int], layer: str, _given: Given) -> Found:
    """B11: a label that is not there, asked for as the peer's own examples do."""
    import pytorch_grad_cam

    def ask() -> None:
        with pytorch_grad_cam.GradCAM(net, [net.get_submodule(layer)]) as made:
            made(x, [_target(99)] * len(x))

    return {"raised": _raises(ask)}


def _whole_matrix(net: nn.Module, x: Tensor, labels: list[int], layer: str, _given: Given) -> Found:
    """B13: memory that the first component of a layer takes, beside the number of its cells."""
    tracemalloc.start()
    found = _cam("EigenCAM")(net, x, labels, layer, {})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"bytes": peak, "cells": found["cells"][0].numel()}


def _changed(net: nn.Module, x: Tensor, labels: list[int], layer: str, _given: Given) -> Found:
    """B25: what is left on a network in training mode."""
    relus = len({m for m in net.modules() if isinstance(m, nn.ReLU)})
    net.train()
    _cam("GradCAM")(net, x, labels, layer, {})
    gradients = sum(p.grad is not None for p in net.parameters())
    _guided(net, x[:1], labels, layer, {})
    after = len({m for m in net.modules() if isinstance(m, nn.ReLU)})
    return {"training": net.training, "gradients": gradients, "relus": relus, "relus_after": after}


def _refused(net: nn.Module, x: Tensor, labels: list[int], layer: str, given: Given) -> Found:
    """B26: methods that raise on this network and image."""
    names = given["names"]
    return {"names": len(names), "raised": sum(_raises(lambda n=n: _cam(n)(net, x, labels, layer, {})) for n in names)}


def _half(net: nn.Module, x: Tensor, labels: list[int], layer: str, _given: Given) -> Found:
    """B26: Grad-CAM of a network in bfloat16."""
    net = net.bfloat16()
    return {"raised": _raises(lambda: _cam("GradCAM")(net, x.bfloat16(), labels, layer, {}))}


def _untargeted(net: nn.Module, x: Tensor, _labels: list[int], layer: str, _given: Given) -> Found:
    """B26: Grad-CAM of a segmentation without a target of one's own making."""
    import pytorch_grad_cam

    inner = net.net
    made = pytorch_grad_cam.GradCAM(inner, [inner.get_submodule(layer.removeprefix("net."))])
    return {"raised": _raises(lambda: made(x, None))}


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
CALLS: dict[str, Callable[..., Found]] = {
    **{name: _cam(name) for name in NAMES},
    "GuidedBackpropReLUModel": _guided,
    "left broken": _left_broken,
    "swallowed": _swallowed,
    "whole matrix": _whole_matrix,
    "changed": _changed,
    "refused": _refused,
    "half": _half,
    "untargeted": _untargeted,
}
