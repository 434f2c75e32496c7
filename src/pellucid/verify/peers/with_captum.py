"""Maps as captum makes them: in the peer's own scaling and resolution, under ``map``."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Given = dict[str, Any]
Found = dict[str, Tensor]


def _gradient(name: str) -> Callable[..., Found]:
    """One of captum's classes that need only the input."""

    def call(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
        from captum import attr

        return {"map": getattr(attr, name)(net).attribute(x.clone().requires_grad_(), target=labels).detach()}

    return call


def _integrated(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """Integrated gradients from zero, in small batches."""
    from captum.attr import IntegratedGradients

    found = IntegratedGradients(net).attribute(
        x, torch.zeros_like(x), target=labels, method=given["rule"], n_steps=given["steps"], internal_batch_size=8
    )
    return {"map": found.detach()}


def _grad_cam(net: nn.Module, x: Tensor, labels: list[int], layer: str, _given: Given) -> Found:
    """Grad-CAM on the layer's cells."""
    from captum.attr import LayerGradCam

    found = LayerGradCam(net, net.get_submodule(layer)).attribute(x, target=labels, relu_attributions=True)
    return {"map": found.detach()}


def _gradient_x_activation(net: nn.Module, x: Tensor, labels: list[int], layer: str, _given: Given) -> Found:
    """What HiResCAM is, before its sum over channels."""
    from captum.attr import LayerGradientXActivation

    found = LayerGradientXActivation(net, net.get_submodule(layer)).attribute(x, target=labels)
    return {"map": found.detach().sum(1, keepdim=True)}


def _guided_grad_cam(net: nn.Module, x: Tensor, labels: list[int], layer: str, given: Given) -> Found:
    """Guided Grad-CAM; captum enlarges by nearest neighbor unless told otherwise."""
    from captum.attr import GuidedGradCam

    made = GuidedGradCam(net, net.get_submodule(layer))
    found = made.attribute(x.clone().requires_grad_(), target=labels, interpolate_mode=given["interpolation"])
    return {"map": found.detach()}


def _occlusion(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """A black block of all channels slides over the image."""
    from captum.attr import Occlusion

    window = (x.shape[1], *given["window"])
    found = Occlusion(net).attribute(x, window, strides=(x.shape[1], *given["stride"]), target=labels, baselines=0)
    return {"map": found.detach()[:, :1]}


def _tunnel(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """SmoothGrad and its kin over signed gradients, with the noise that ours has drawn."""
    from captum.attr import NoiseTunnel, Saliency

    found = NoiseTunnel(Saliency(net)).attribute(
        x, nt_type=given["kind"], nt_samples=given["draws"], stdevs=1.0, target=labels, abs=False
    )
    return {"map": found.detach()}


def _gradient_shap(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """Expected gradients from zero, without noise, at the places of the path that ours has drawn."""
    from captum.attr import GradientShap

    shares, original = np.tile(given["shares"], len(x)), np.random.uniform
    np.random.uniform = lambda *_positional, **_named: shares
    try:
        found = GradientShap(net).attribute(
            x, torch.zeros_like(x[:1]), n_samples=len(given["shares"]), stdevs=0.0, target=labels
        )
    finally:
        np.random.uniform = original
    return {"map": found.detach()}


CALLS: dict[str, Callable[..., Found]] = {
    "Saliency": _gradient("Saliency"),
    "InputXGradient": _gradient("InputXGradient"),
    "GuidedBackprop": _gradient("GuidedBackprop"),
    "Deconvolution": _gradient("Deconvolution"),
    "IntegratedGradients": _integrated,
    "LayerGradCam": _grad_cam,
    "LayerGradientXActivation": _gradient_x_activation,
    "GuidedGradCam": _guided_grad_cam,
    "Occlusion": _occlusion,
    "NoiseTunnel": _tunnel,
    "GradientShap": _gradient_shap,
}
