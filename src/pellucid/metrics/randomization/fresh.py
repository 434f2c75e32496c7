"""A model with fresh weights, and the map of an explainer on it."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pellucid.core.explainer import Explainer
from pellucid.core.model import Identity
from pellucid.core.probe import Probe
from pellucid.metrics.randomization.beside import Again, made_again

Order = Literal["cascading", "independent"]
NO_WEIGHTS = "the model shows no weights"
BUFFERS = "running statistics of a normalization start anew with its weights, where the layer has a start of its own"
_NEXT_DRAW = 100_003  # beyond any number of levels, so that draws share no seed


def stages_of(module: nn.Module, levels: int) -> list[list[str]]:
    """Layers with weights of their own, as the module lists them, last first, in ``levels`` groups of nearly one size.

    Empty where there are no weights to replace (a format that hides them).
    """
    own = [name for name, m in module.named_modules() if next(m.parameters(recurse=False), None) is not None][::-1]
    count = min(levels, len(own))
    edges = [round(i * len(own) / count) for i in range(count + 1)] if count else []
    return [own[a:b] for a, b in pairwise(edges)]


def without_start(module: nn.Module) -> list[str]:
    """Layers with weights and no initialization of their own (of exported files, say): see ``_refresh``."""
    return [n for n, m in module.named_modules() if next(m.parameters(recurse=False), None) is not None and not _own(m)]


def fresh_maps(
    probe: Probe, explainer: Explainer, stages: list[list[str]], draw: int = 0, order: Order = "cascading"
) -> Iterator[Again]:
    """The map after each stage of layers was drawn anew, on a copy; passes are counted as the probe's own.

    Args:
        probe: of the trained model; targets stay bound on it.
        explainer: whose map it is.
        stages: names of layers.
        draw: which of several draws of fresh weights.
        order: ``cascading`` keeps what was drawn before, ``independent`` goes back to the trained weights.
    """
    device, module = probe.model.device, copy.deepcopy(probe.model.module)
    for stage, names in enumerate(stages):
        if order == "independent" and stage:
            module = copy.deepcopy(probe.model.module)
        seed = probe.scene.seed + stage + draw * _NEXT_DRAW
        if device.type == "cpu":
            _refresh(module, names, seed)
        else:  # drawn on the CPU, so that every device draws alike
            _refresh(module.cpu(), names, seed)
            module.to(device)
        identity = Identity("randomized", digest="randomized")
        again = probe.on(replace(probe.model, module=module, identity=identity, _traces={}))
        yield made_again(explainer, again, probe)


@dataclass(frozen=True, eq=False)
class Spread:
    """A number over several draws.

    Args:
        value: mean over the draws in which it is defined.
        detail: of a score.
    """

    value: Float[Tensor, " batch"]
    detail: dict[str, Any]


def mean_of(each: Float[Tensor, "draw batch"]) -> Spread:
    """The mean, with each draw and the standard error where there are several."""
    there = torch.isfinite(each)
    mean, count = each.nanmean(0), there.sum(0)
    if len(each) == 1:
        return Spread(mean, {})
    squares = torch.where(there, each - mean, 0.0).square().sum(0)
    error = torch.where(count > 1, (squares / (count - 1).clamp_min(1) / count.clamp_min(1)).sqrt(), torch.nan)
    return Spread(mean, {"draws": each.tolist(), "standard error": error.tolist()})


def _own(layer: nn.Module) -> bool:
    return callable(getattr(layer, "reset_parameters", None))


def _refresh(module: nn.Module, names: list[str], seed: int) -> None:
    """Draw fresh weights from each layer's own initialization.

    Layers without one get normal values of the mean and the spread they had, which leaves a scale of ones as it is: of
    mean 0 it would silence everything behind it.
    """
    layers = dict(module.named_modules())  # scripted modules have no get_submodule
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        for layer in map(layers.__getitem__, names):
            if _own(layer):
                layer.reset_parameters()  # pyright: ignore[reportCallIssue] -- every layer of torch that has one
                continue
            for parameter in layer.parameters(recurse=False):
                many = parameter.numel() > 1
                mean, spread = (float(parameter.mean()), float(parameter.std())) if many else (0.0, 1.0)
                parameter.copy_(mean + torch.randn(parameter.shape) * spread)
