"""Maps as captum makes them: in the peer's own scaling and resolution, under ``map``."""

from collections.abc import Callable, Iterator
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


def _deep_lift(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """DeepLIFT from black or from the mirrored image, its sum, and the score's difference."""
    from captum.attr import DeepLift

    start = x.flip(-1) if given.get("mirrored") else torch.zeros_like(x)
    found = DeepLift(net).attribute(x.clone().requires_grad_(), start, target=labels).detach()
    with torch.no_grad():
        rise = (net(x) - net(start))[torch.arange(len(x)), labels]
    return {"map": found, "sum": found.flatten(1).sum(1), "difference": rise}


def _relevance(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """LRP by the epsilon rule, or that it refuses a layer."""
    from captum.attr import LRP

    try:
        found = LRP(net).attribute(x.clone().requires_grad_(), target=labels).detach()
    except TypeError as error:
        if "no rule" not in str(error):
            raise
        return {"refused": torch.tensor(True)}
    return {"map": found, "refused": torch.tensor(False)}


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


def _shared(values: Tensor, players: Tensor) -> Tensor:
    """The peer paints a player's value on each of its voxels: shared out among them."""
    return values[:, :1] / torch.bincount(players.flatten())[players]


def _of_items(x: Tensor, labels: list[int], given: Given) -> Iterator[tuple[Tensor, int, Tensor]]:
    """Each item apart, with its label and its players."""
    for image, label, players in zip(x, labels, given["players"], strict=True):
        yield image[None], label, players


def _shapley(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """Shapley values over all orders of the players, from black."""
    from captum.attr import ShapleyValues

    with torch.no_grad():
        found = [
            ShapleyValues(net).attribute(x_, 0, target=y, feature_mask=p[None, None], perturbations_per_eval=24)
            for x_, y, p in _of_items(x, labels, given)
        ]
    return {"map": torch.cat([_shared(v, p) for v, p in zip(found, given["players"], strict=True)])}


def _kernel_shap(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """Shapley values by regression on coalitions that the peer draws; these under ``drawn``."""
    from captum.attr import KernelShap

    drawn: list[Tensor] = []

    class Watched(KernelShap):
        def kernel_shap_perturb_generator(self, *positional: Any, **named: Any) -> Iterator[Tensor]:
            for shown in super().kernel_shap_perturb_generator(*positional, **named):
                drawn.append(shown)
                yield shown

    torch.manual_seed(0)
    players = given["players"]
    found = Watched(net).attribute(x, 0, target=labels[0], feature_mask=players[None], n_samples=given["samples"])
    return {"map": _shared(found, players[0]), "drawn": torch.cat(drawn)}


def _lime(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """The peer's Lime as it comes, on our players and tosses; with ``alpha`` another penalty."""
    from captum._utils.models.linear_model import SkLearnLasso
    from captum.attr import Lime

    waiting, original = iter(given["shown"][:, :1].to(x)), torch.bernoulli
    torch.bernoulli = lambda *_positional, **_named: next(waiting)
    try:
        penalty = SkLearnLasso(alpha=given["alpha"]) if "alpha" in given else None
        found = Lime(net, penalty).attribute(
            x, 0, target=labels[0], feature_mask=given["players"][None], n_samples=len(given["shown"])
        )
    finally:
        torch.bernoulli = original
    return {"map": found[:, :1]}


def _blank(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """B18: the peer's Lime on the scores after a softmax, with blocks for players; how many have a value."""
    from captum.attr import Lime

    rows, columns = (torch.arange(n) * given["blocks"] // n for n in x.shape[2:])
    blocks = rows[:, None] * given["blocks"] + columns
    torch.manual_seed(0)
    found = Lime(nn.Sequential(net, nn.Softmax(1))).attribute(
        x, 0, target=labels[0], feature_mask=blocks[None, None], n_samples=given["samples"], return_input_shape=False
    )
    return {"nonzero": (found != 0).sum()}


def _alone(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """B20: a single player."""
    from captum.attr import KernelShap

    try:
        KernelShap(net).attribute(x, 0, target=labels[0], feature_mask=torch.zeros_like(x).long(), n_samples=8)
    except Exception:  # whatever it raises is the defect
        return {"raised": True}
    return {"raised": False}


CALLS: dict[str, Callable[..., Found]] = {
    "Saliency": _gradient("Saliency"),
    "InputXGradient": _gradient("InputXGradient"),
    "GuidedBackprop": _gradient("GuidedBackprop"),
    "Deconvolution": _gradient("Deconvolution"),
    "IntegratedGradients": _integrated,
    "DeepLift": _deep_lift,
    "LRP": _relevance,
    "LayerGradCam": _grad_cam,
    "LayerGradientXActivation": _gradient_x_activation,
    "GuidedGradCam": _guided_grad_cam,
    "Occlusion": _occlusion,
    "NoiseTunnel": _tunnel,
    "GradientShap": _gradient_shap,
    "ShapleyValues": _shapley,
    "KernelShap": _kernel_shap,
    "Lime": _lime,
    "blank Lime": _blank,
    "alone": _alone,
}
