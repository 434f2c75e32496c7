"""Scores as captum gives them: one number for each item under ``value``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Given = dict[str, Any]
Found = dict[str, Tensor]


def _slopes(net: nn.Module, x: Tensor, labels: list[int]) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(net(leaf)[torch.arange(len(x)), labels].sum(), leaf)[0]


def _infidelity(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """On the changes that ours has made; what ours sums as contributions is the gradient times the change."""
    from captum.metrics import infidelity

    seen = given["seen"].transpose(0, 1).flatten(0, 1)  # those of an item lie together
    found = infidelity(
        net,
        lambda many: (many - seen, seen),
        x,
        _slopes(net, x, labels) if given["contributions"] else (given["map"] / x.shape[1]).expand_as(x),
        target=labels,
        n_perturb_samples=len(given["seen"]),
        normalize=given["scaled"],
    )
    return {"value": found.detach()[:, None]}


def _explained(net: nn.Module) -> Callable[..., Tensor]:
    """Input times gradient, summed over the channels, as ours makes it."""

    def explain(inputs: Any, target: list[int]) -> Tensor:
        x = inputs[0] if isinstance(inputs, tuple) else inputs
        with torch.enable_grad():
            return (_slopes(net, x.detach(), target) * x.detach()).sum(1, keepdim=True)

    return explain


def _sensitivity(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """The largest relative change of the map, on the noise of ours."""
    from captum.metrics import sensitivity_max

    seen, explain = given["seen"].transpose(0, 1).flatten(0, 1), _explained(net)
    found = sensitivity_max(
        lambda inputs, target: (explain(inputs, target),),
        x,
        perturb_func=lambda _many: seen,
        n_perturb_samples=len(given["seen"]),
        target=labels,
    )
    return {"value": found.detach()[:, None]}


def _untupled(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """The same, with a function that gives a map instead of a tuple of maps, beside the right value."""
    from captum.metrics import sensitivity_max

    seen, explain = given["seen"].transpose(0, 1).flatten(0, 1), _explained(net)
    found: Found = {"right": _sensitivity(net, x, labels, _layer, given)["value"], "raised": torch.tensor(False)}
    try:
        wrong = sensitivity_max(
            explain, x, perturb_func=lambda _many: seen, n_perturb_samples=len(given["seen"]), target=labels
        )
    except Exception:  # whatever it raises is the defect
        return found | {"raised": torch.tensor(True)}
    return found | {"value": wrong.detach()[:, None]}


CALLS: dict[str, Callable[..., Found]] = {
    "infidelity": _infidelity,
    "sensitivity_max": _sensitivity,
    "no tuple": _untupled,
}
