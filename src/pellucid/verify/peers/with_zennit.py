"""Gradients as zennit's attributors give them without a composite, under ``map``."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

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


def _merged(net: nn.Module) -> nn.Module:
    """A copy whose convolutions hold the batch normalization behind them."""
    net = copy.deepcopy(net)
    for name, layer in list(net.named_children()):
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            norm = name.replace("conv", "norm")
            setattr(net, name, fuse_conv_bn_eval(layer, net.get_submodule(norm)))
            setattr(net, norm, nn.Identity())
    return net


def _relevance(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """Relevance by a rule for convolutions, epsilon for the dense layer.

    Batch normalization is merged here, as ours folds it: the peer's own merging leaves its epsilon in the network,
    which changes the output by 1e-5. Its w2 rule gives the bias a share, which the paper does not.
    """
    from zennit.attribution import Gradient
    from zennit.composites import SpecialFirstLayerMapComposite
    from zennit.rules import AlphaBeta, Epsilon, Flat, Gamma, Pass, WSquare, ZPlus
    from zennit.types import Activation, Convolution, Linear

    rules = {
        "epsilon": Epsilon,
        "plus": ZPlus,
        "gamma": lambda: Gamma(given["gamma"]),
        "alpha2-beta1": lambda: AlphaBeta(2, 1),
        "flat": Flat,
        "w2": lambda: WSquare(stabilizer=1e-12, zero_params="bias"),
    }
    kinds = [(Activation, Pass()), (Convolution, rules[given["rule"]]()), (Linear, Epsilon())]
    first = [(Convolution, rules[given.get("first", given["rule"])]())]
    composite = SpecialFirstLayerMapComposite(kinds, first)
    with Gradient(_merged(net), composite) as attributor:
        return {"map": attributor(x.clone(), lambda output: _chosen(labels)(output) * output)[1].detach()}


def _conservation(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """How much of the score arrives by the epsilon rule, with no canonizer for what is no module."""
    from zennit.attribution import Gradient
    from zennit.composites import LayerMapComposite
    from zennit.rules import Epsilon, Norm, Pass
    from zennit.types import Activation, AvgPool, Convolution, Linear

    kinds = [(Activation, Pass()), (AvgPool, Norm()), (Convolution, Epsilon()), (Linear, Epsilon())]
    with Gradient(net, LayerMapComposite(kinds)) as attributor:
        output, found = attributor(x.clone(), lambda output: _chosen(labels)(output) * output)
    score = output.detach()[torch.arange(len(x)), labels]
    return {"sum": found.detach().flatten(1).sum(1), "score": score}


CALLS: dict[str, Callable[..., Found]] = {
    "Gradient": _gradient,
    "IntegratedGradients": _integrated,
    "LRP": _relevance,
    "conservation": _conservation,
    "SmoothGrad": _smooth,
}
