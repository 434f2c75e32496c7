"""The peers' formulas, written anew from the papers: with a numbered defect as the peer has it, and with it mended.

Nothing here calls an explainer. A deviation counts as explained only if the first form gives the peer's map and the
second gives ours, both to the tolerance of the comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.verify.bridges import enlarged, ranged
from pellucid.verify.evidence import Evidence, over_space

Formula = Callable[[Evidence], Tensor]


@dataclass(frozen=True)
class Pair:
    """One formula twice, in the form in which the peer gives its map.

    Args:
        defects: by number, see the documentation.
        as_it_is: as the peer computes.
        mended: without the defects.
    """

    defects: tuple[str, ...]
    as_it_is: Formula
    mended: Formula


def _weighted(weights: Tensor, a: Tensor) -> Tensor:
    """Sum over channels of one weight times the activation."""
    return (weights.flatten(2).sum(2).view(*a.shape[:2], *(1,) * (a.ndim - 2)) * a).sum(1, keepdim=True)


def plus_plus_alpha(a: Tensor, g: Tensor, added: float = 0.0) -> Tensor:
    """Chattopadhay et al. (2018), equation 19, for Y = exp(S): g^2 / (2 g^2 + (sum_ab A_ab) g^3), zero where g is."""
    below = 2 * g**2 + a.sum(over_space(a), keepdim=True) * g**3 + added
    return torch.where(g == 0, torch.zeros_like(g), g**2 / below)


def _plus_plus(evidence: Evidence) -> Tensor:
    a, g = evidence.cells
    return _weighted(plus_plus_alpha(a, g) * g.relu(), a)


def _plus_plus_undivided(evidence: Evidence) -> Tensor:
    """B1: the division is made on a copy, so that alpha stays g^2."""
    a, g = evidence.cells
    return _weighted(g**2 * g.relu(), a).relu()


def _plus_plus_inside(evidence: Evidence) -> Tensor:
    """B2: g^3 stands inside the sum over places."""
    a, g = evidence.cells
    below = 2 * g**2 + (a * g**3).sum(over_space(a), keepdim=True)
    below = torch.where(below == 0, torch.ones_like(below), below) + 1e-7
    return _times_exp(evidence, _weighted(g**2 / below * g.relu(), a).relu())


def _times_exp(evidence: Evidence, values: Tensor) -> Tensor:
    return values * evidence.score.exp().view(-1, *(1,) * (values.ndim - 1))


def _plus_plus_floored(evidence: Evidence) -> Tensor:
    """B3: an absolute 1e-6 is added to the denominator."""
    a, g = evidence.cells
    return _weighted(plus_plus_alpha(a, g, 1e-6) * g.relu(), a)


def _grad_cam(a: Tensor, g: Tensor) -> Tensor:
    return (g.mean(over_space(g), keepdim=True) * a).sum(1, keepdim=True).relu()


def _grad_cam_of_all(evidence: Evidence) -> Tensor:
    """B4: each item is explained for the sum of the scores of all items' labels."""
    labels, count = evidence.prepared.labels, len(evidence.x)
    a = evidence.cells[0]
    return _grad_cam(a, torch.stack([evidence.cells_for((label,) * count)[1] for label in labels]).sum(0))


def _noisy_gradients(evidence: Evidence) -> Tensor:
    return torch.stack([evidence.gradient(evidence.x + noise) for noise in evidence.noise])


def _head_on_cells(evidence: Evidence) -> Tensor:
    """The fully connected layer's weights of each item's label on the layer's cells."""
    head = evidence.net.get_submodule(evidence.prepared.subject.head)
    weight = head.get_parameter("weight")[list(evidence.prepared.labels)].detach()
    a = evidence.cells[0]
    return (weight.view(*weight.shape, *(1,) * (a.ndim - 2)) * a).sum(1, keepdim=True)


def _head_with_bias(evidence: Evidence) -> Tensor:
    """C1: the bias is added at every cell."""
    head = evidence.net.get_submodule(evidence.prepared.subject.head)
    cells = _head_on_cells(evidence)
    bias = head.get_parameter("bias")[list(evidence.prepared.labels)].detach()
    return cells + bias.view(-1, *(1,) * (cells.ndim - 1))


class _Guided(torch.autograd.Function):
    """Springenberg et al. (2015): the gradient passes where both it and the input are positive."""

    @staticmethod
    def forward(ctx, x):  # noqa: ANN001, ANN205 -- as torch calls it
        ctx.save_for_backward(x)
        return x.clamp_min(0)

    @staticmethod
    def backward(ctx, g):  # noqa: ANN001, ANN205
        (x,) = ctx.saved_tensors
        return g * (x > 0) * (g > 0)


def _guided_functional(evidence: Evidence) -> Tensor:
    """The network ``functional-2d`` written out, each ReLU by the rule."""
    net, x = evidence.net, evidence.x.clone().requires_grad_()
    a = x
    for name in ("conv1", "conv2"):
        layer = net.get_submodule(name)
        a = _Guided.apply(functional.conv2d(a, layer.weight, layer.bias, stride=2, padding=1))
    head = net.get_submodule("head")
    output = a.flatten(2).mean(2) @ head.weight.T + head.bias
    total = output[torch.arange(len(x)), list(evidence.prepared.labels)].sum()
    return torch.autograd.grad(total, x)[0]


def _trapezoid(steps: int) -> Formula:
    """B19: weights 1/n with halves at both ends sum to (n - 1) / n."""

    def formula(evidence: Evidence) -> Tensor:
        ends = torch.linspace(0, 1, steps, dtype=torch.float64)
        weights = torch.full((steps,), 1 / steps, dtype=torch.float64)
        weights[0] = weights[-1] = 0.5 / steps
        terms = [w * evidence.gradient(a * evidence.x) for a, w in zip(ends, weights, strict=True)]
        return evidence.x * torch.stack(terms).sum(0)

    return formula


def _zoomed(evidence: Evidence) -> Tensor:
    """B24: cubic splines through the corners, then the range."""
    from scipy.ndimage import zoom

    low = ranged(_grad_cam(*evidence.cells), evidence).numpy()
    shape = evidence.x.shape[2:]
    high = [zoom(item[0], [n / m for n, m in zip(shape, item.shape[1:], strict=True)]) for item in low]
    return ranged(torch.stack([torch.from_numpy(h) for h in high])[:, None].clamp_min(0), evidence)


TRAPEZOID_STEPS = 10
FORMULAS: dict[str, Pair] = {
    "torchcam Grad-CAM++": Pair(("B1", "B2"), _plus_plus_undivided, lambda e: _plus_plus(e).relu()),
    "monai Grad-CAM++": Pair(("B2",), _plus_plus_inside, lambda e: _times_exp(e, _plus_plus(e).relu())),
    "grad-cam Grad-CAM++": Pair(("B3",), _plus_plus_floored, _plus_plus),
    "monai batch": Pair(("B4",), _grad_cam_of_all, lambda e: _grad_cam(*e.cells)),
    "monai SmoothGrad": Pair(
        ("B7",),
        lambda e: _noisy_gradients(e).square().sum(0).sqrt() / len(e.noise),
        lambda e: _noisy_gradients(e).square().mean(0).sqrt(),
    ),
    "monai VanillaGrad": Pair(("B8",), lambda e: 2 * e.gradient(), lambda e: e.gradient()),
    "captum functional": Pair(("B16",), lambda e: e.gradient(), _guided_functional),
    "captum trapezoid": Pair(
        ("B19",),
        _trapezoid(TRAPEZOID_STEPS),
        lambda e: _trapezoid(TRAPEZOID_STEPS)(e) * TRAPEZOID_STEPS / (TRAPEZOID_STEPS - 1),
    ),
    "grad-cam zoom": Pair(("B24",), _zoomed, lambda e: ranged(enlarged(_grad_cam(*e.cells), e), e)),
    "monai CAM": Pair(("C1",), _head_with_bias, _head_on_cells),
}
