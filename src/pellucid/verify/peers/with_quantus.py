"""Scores as Quantus gives them: one row of numbers for each item under ``value``.

Quantus (LGPL) is only called, in the environment of the peers; nothing of it is copied.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Given = dict[str, Any]
Found = dict[str, Any]


class Exact(nn.Module):
    """A float64 network for a peer that makes every input float32; images and fills here are float32 anyway.

    Args:
        net: to logits.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Logits in float64."""
        return self.net(x.double())


def explained(model: nn.Module, inputs: Any, targets: Any) -> Any:
    """Input times gradient, summed over the channels, as ours makes it."""
    leaf = torch.as_tensor(np.asarray(inputs), dtype=torch.float64).clone().requires_grad_()
    rows = torch.arange(len(leaf))
    total = model(leaf)[rows, torch.as_tensor(np.asarray(targets))].sum()
    return (torch.autograd.grad(total, leaf)[0] * leaf.detach()).sum(1, keepdim=True).numpy()


def quiet(chosen: Given | None = None) -> Given:
    """Settings, and besides those under which the map is taken as it is, and nothing is averaged over items."""
    plain = {"abs": False, "normalise": False, "return_aggregate": False, "disable_warnings": True}
    return plain | {"display_progressbar": False} | (chosen or {})


def ask(made: Any, net: nn.Module, x: Tensor, labels: list[int], more: Given) -> Any:
    """The metric on the whole batch at once, unless told otherwise.

    Args:
        made: the metric.
        net: to logits.
        x: images.
        labels: explained, one for each image.
        more: what else the metric is called with.
    """
    given = {"softmax": False, "batch_size": len(x), "channel_first": True} | more
    return made(model=Exact(net).eval(), x_batch=x.numpy().copy(), y_batch=np.asarray(labels), **given)


def region_of(x: Tensor, given: Given) -> Any:
    """The region as the peer takes it, one for each item."""
    return given["region"].expand(len(x), 1, *x.shape[2:]).numpy()


def _rows(values: Any) -> Any:
    found = np.asarray(values, dtype=np.float64)
    return found.reshape(len(found), -1)


def _curve(name: str, **chosen: Any) -> Callable[..., Found]:
    """A metric of the map alone, or of scores with parts hidden in its order."""

    def call(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
        import quantus

        settings = quiet({**chosen, **given.get("settings", {})})
        more = {"a_batch": (-given["map"] if given.get("negated") else given["map"].clone()).numpy()}
        if "region" in given:
            more["s_batch"] = region_of(x, given)
        return {"value": _rows(ask(getattr(quantus, name)(**settings), net, x, labels, more))}

    return call


def _correlation(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """FaithfulnessCorrelation on the parts that ours has hidden."""
    import quantus

    hidden = (given["seen"] != x).flatten(2)  # draw, item, entry
    waiting, original = iter(hidden.flatten(0, 1)), np.random.choice
    np.random.choice = lambda *_positional, **_named: next(waiting).nonzero()[:, 0].numpy()
    try:
        size = int(hidden[0, 0].sum())
        settings = quiet({"nr_runs": len(hidden), "subset_size": size, "perturb_baseline": 0.0})
        made = quantus.FaithfulnessCorrelation(**settings)
        found = ask(made, net, x, labels, {"a_batch": given["map"].numpy()})
    finally:
        np.random.choice = original
    return {"value": _rows(found)}


def noise_of(seen: Tensor) -> Callable[..., Any]:
    """What the peer calls to disturb an image: the images that ours has seen, one after the other."""
    waiting = iter(seen)
    return lambda arr, **_named: next(waiting).numpy().reshape(arr.shape).copy()


def _moved(name: str) -> Callable[..., Found]:
    """A metric of explanations under noise, on the noise of ours."""

    def call(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
        import quantus

        noise = {"nr_samples": len(given["seen"]), "perturb_func": noise_of(given["seen"])}
        made = getattr(quantus, name)(**quiet({**noise, **given.get("settings", {})}))
        return {"value": _rows(ask(made, net, x, labels, {"explain_func": explained, "a_batch": None}))}

    return call


def _imputed(_net: nn.Module, x: Tensor, _labels: list[int], _layer: str, given: Given) -> Found:
    """What ROAD puts in place of the voxels that ours has replaced, without noise."""
    from quantus.functions.perturb_func import noisy_linear_imputation

    out = []
    for image, seen in zip(x, given["seen"].transpose(0, 1), strict=True):
        hidden = [(one != image).any(0).flatten().nonzero()[:, 0].numpy() for one in seen]
        out.append(np.stack([noisy_linear_imputation(image.numpy(), h, noise=0.0).ravel() for h in hidden]))
    return {"value": _rows(out)}


@contextmanager
def _cut_as(pieces: Tensor) -> Iterator[None]:
    """IROF on the superpixels of ours."""
    from quantus.helpers import utils

    waiting, original = iter(pieces), utils.get_superpixel_segments
    utils.get_superpixel_segments = lambda *_positional, **_named: next(waiting).numpy()
    try:
        yield
    finally:
        utils.get_superpixel_segments = original


@contextmanager
def trapezoid() -> Iterator[None]:
    """The function that NumPy 2.4 has no more (defect Q8), so that the rest can be seen."""
    np.trapz = np.trapezoid  # noqa: NPY201 -- the peer asks for it
    try:
        yield
    finally:
        del np.trapz  # noqa: NPY201


def _irof(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    import quantus

    with trapezoid(), _cut_as(given["pieces"]):
        made = quantus.IROF(**quiet({"perturb_baseline": "mean"}))
        return {"value": _rows(ask(made, net, x, labels, {"a_batch": given["map"].numpy()}))}


@contextmanager
def _seeded(seeds: list[int | None]) -> Iterator[None]:
    """Fresh weights from the seeds of ours, one for each layer; None goes on: the peer seeds every layer alike."""
    waiting, original = iter(seeds), torch.manual_seed

    def seed(*_positional: Any, **_named: Any) -> None:
        chosen = next(waiting)
        if chosen is not None:
            original(chosen)

    torch.manual_seed = seed
    try:
        yield
    finally:
        torch.manual_seed = original


def _randomized(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """The correlation after each layer's fresh weights, from the output backwards."""
    import quantus

    with _seeded(given["seeds"]):
        made = quantus.MPRT(**quiet({"layer_order": "top_down"}))
        found = ask(made, net, x, labels, {"explain_func": explained, "a_batch": given["map"].numpy()})
    return {"value": np.asarray([found[name] for name in found if name != "original"]).T}


def _disordered(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """The rise of the entropy when all weights are fresh, with so many bins."""
    import quantus
    from quantus.functions.complexity_func import discrete_entropy

    with _seeded(given["seeds"]):
        how = {"complexity_func": discrete_entropy, "complexity_func_kwargs": {"n_bins": given["bins"]}}
        made = quantus.EfficientMPRT(**quiet({"layer_order": "top_down", **how}))
        more = {"explain_func": explained, "a_batch": given["map"].numpy(), "softmax": True}
        return {"value": _rows(ask(made, net, x, labels, more))}


def _other(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """The map of the other label that ours has drawn, by SSIM (as it comes) or by rank correlation."""
    import quantus
    from quantus.functions.similarity_func import correlation_spearman

    others = given["other"].numpy()
    place, original = others - (others > np.asarray(labels)), np.random.randint
    np.random.randint = lambda *_positional, **_named: place
    try:
        similarity = {} if given["ssim"] else {"similarity_func": correlation_spearman}
        made = quantus.RandomLogit(**quiet({"num_classes": net(x[:1]).shape[1], **similarity}))
        return {"value": _rows(ask(made, net, x, labels, {"explain_func": explained, "a_batch": given["map"].numpy()}))}
    finally:
        np.random.randint = original


CALLS: dict[str, Callable[..., Found]] = {
    **{
        name: _curve(name, perturb_baseline=0.0)
        for name in ("PixelFlipping", "RegionPerturbation", "Selectivity", "FaithfulnessEstimate", "SensitivityN")
    },
    "Infidelity": _curve("Infidelity", perturb_baseline=0.0, n_perturb_samples=1),
    **{
        name: _curve(name)
        for name in ("RelevanceMassAccuracy", "RelevanceRankAccuracy", "PointingGame", "Sparseness", "Complexity")
    },
    "AttributionLocalisation": _curve("AttributionLocalisation", positive_attributions=True),
    "FaithfulnessCorrelation": _correlation,
    "MaxSensitivity": _moved("MaxSensitivity"),
    "AvgSensitivity": _moved("AvgSensitivity"),
    "LocalLipschitzEstimate": _moved("LocalLipschitzEstimate"),
    "RelativeInputStability": _moved("RelativeInputStability"),
    "RelativeOutputStability": _moved("RelativeOutputStability"),
    "RelativeRepresentationStability": _moved("RelativeRepresentationStability"),
    "noisy_linear_imputation": _imputed,
    "IROF": _irof,
    "MPRT": _randomized,
    "EfficientMPRT": _disordered,
    "RandomLogit": _other,
}
