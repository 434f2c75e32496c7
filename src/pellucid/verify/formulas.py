"""The peers' formulas, written anew from the papers, each with a set of numbered defects that it may have.

Nothing here calls an explainer. A deviation counts as explained only if the formula with the defects gives the peer's
map, and the formula without them gives ours, both to the tolerance of the comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pellucid.verify.bridges import ranged
from pellucid.verify.evidence import Evidence, over_space

Defects = frozenset[str]


@dataclass(frozen=True)
class Formula:
    """What a peer computes, in the form in which it gives its map.

    Args:
        defects: that the peer has, by number, see the documentation.
        values: of the map for a set of defects.
    """

    defects: Defects
    values: Callable[[Evidence, Defects], Tensor]


def weighted(weights: Tensor, a: Tensor) -> Tensor:
    """Sum over channels of one weight ("batch channel") times the activation."""
    return (weights.view(*a.shape[:2], *(1,) * (a.ndim - 2)) * a).sum(1, keepdim=True)


def spread(values: Tensor, like: Tensor) -> Tensor:
    """One value per item, shaped to broadcast."""
    return values.view(-1, *(1,) * (like.ndim - 1))


def plus_plus(a: Tensor, g: Tensor, defects: Defects, added: float) -> Tensor:
    """Grad-CAM++ on the cells: Chattopadhay et al. (2018), equations 10 and 19, for Y = exp(S) without that factor.

    ``alpha = g^2 / (2 g^2 + (sum_ab A_ab) g^3)`` and zero where ``g`` is.

    Args:
        a: activation.
        g: gradient.
        defects: of B1 (alpha stays g^2), B2 (g^3 inside the sum), B3 (an absolute constant in the denominator).
        added: that constant.
    """
    inner = (
        (a * g**3).sum(over_space(a), keepdim=True) if "B2" in defects else a.sum(over_space(a), keepdim=True) * g**3
    )
    below = 2 * g**2 + inner + (added if "B3" in defects else 0.0)
    alpha = g**2 if "B1" in defects else torch.where(g == 0, torch.zeros_like(g), g**2 / below)
    return weighted((alpha * g.relu()).sum(over_space(g)), a)


def _torchcam_plus_plus(evidence: Evidence, defects: Defects) -> Tensor:
    return plus_plus(*evidence.cells, defects, 1e-8).relu()


def _monai_plus_plus(evidence: Evidence, defects: Defects) -> Tensor:
    values = plus_plus(*evidence.cells, defects, 1e-7).relu()
    return values * spread(evidence.score.exp(), values)


def _gradcam_plus_plus(evidence: Evidence, defects: Defects) -> Tensor:
    return plus_plus(*evidence.cells, defects, 1e-6)


def grad_cam(a: Tensor, g: Tensor) -> Tensor:
    """Selvaraju et al. (2017) on the cells."""
    return weighted(g.mean(over_space(g)), a).relu()


def _batch(evidence: Evidence, defects: Defects) -> Tensor:
    """B4: each item is explained for the sum of the scores of all items' labels."""
    labels, (a, g) = evidence.prepared.labels, evidence.cells
    if "B4" in defects:
        g = torch.stack([evidence.cells_for((label,) * len(a))[1] for label in labels]).sum(0)
    return grad_cam(a, g)


def _root_mean_square(evidence: Evidence, defects: Defects) -> Tensor:
    """B7: the root of the sum of squares is divided by n, and so falls as more samples are drawn."""
    squares = torch.stack([evidence.gradient(evidence.x + noise).square() for noise in evidence.noise])
    return squares.sum(0).sqrt() / len(squares) if "B7" in defects else squares.mean(0).sqrt()


def _vanilla(evidence: Evidence, defects: Defects) -> Tensor:
    """B8: the gradient is added to that of the call before."""
    return evidence.gradient() * (2 if "B8" in defects else 1)


def _pooled_head(evidence: Evidence, defects: Defects) -> Tensor:
    """Zhou et al. (2016): the class's weights on the cells. C1: and the bias at every cell."""
    head, labels = evidence.net.get_submodule(evidence.prepared.subject.head), list(evidence.prepared.labels)
    cells = weighted(head.get_parameter("weight")[labels].detach(), evidence.cells[0])
    return cells + spread(head.get_parameter("bias")[labels].detach(), cells) if "C1" in defects else cells


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


def _functional(evidence: Evidence, defects: Defects) -> Tensor:
    """The network ``functional-2d`` written out. B16: a ReLU that is no module keeps its plain gradient."""
    net, x = evidence.net, evidence.x.clone().requires_grad_()
    relu = functional.relu if "B16" in defects else _Guided.apply
    a = x
    for name in ("conv1", "conv2"):
        layer = net.get_submodule(name)
        a = relu(functional.conv2d(a, layer.weight, layer.bias, stride=2, padding=1))
    output = net.get_submodule("head")(a.flatten(2).mean(2))
    total = output[torch.arange(len(x)), list(evidence.prepared.labels)].sum()
    return torch.autograd.grad(total, x)[0]


TRAPEZOID_STEPS = 10


def _trapezoid(evidence: Evidence, defects: Defects) -> Tensor:
    """Integrated gradients by trapezoids. B19: weights of 1/n, halved at both ends, sum to (n - 1) / n."""
    n = TRAPEZOID_STEPS
    weights = torch.full((n,), 1 / n if "B19" in defects else 1 / (n - 1), dtype=torch.float64)
    weights[0] /= 2
    weights[-1] /= 2
    places = torch.linspace(0, 1, n, dtype=torch.float64)
    return evidence.x * sum(w * evidence.gradient(a * evidence.x) for a, w in zip(places, weights, strict=True))


def _zoom(evidence: Evidence, defects: Defects) -> Tensor:
    """Grad-CAM brought to 0..1 and enlarged. B24: by cubic splines through the corners, which overshoot."""
    cells, shape = ranged(grad_cam(*evidence.cells), evidence), evidence.x.shape[2:]
    if "B24" not in defects:
        return ranged(functional.interpolate(cells, shape, mode="trilinear"), evidence)
    from scipy.ndimage import zoom

    large = [zoom(item[0], [n / m for n, m in zip(shape, item.shape[1:], strict=True)]) for item in cells.numpy()]
    return ranged(torch.stack([torch.from_numpy(values) for values in large])[:, None].clamp_min(0), evidence)


def first_component(x: Tensor, defects: Defects) -> Tensor:
    """Centered cells on their first right singular vector. B12: with whatever sign the decomposition returns."""
    rows = x.flatten(2).transpose(1, 2)
    centered = rows - rows.mean(1, keepdim=True)
    projected = []
    for item, raw in zip(centered.numpy(), rows, strict=True):
        values = torch.from_numpy(item @ np.linalg.svd(item, full_matrices=False)[2][0])
        agrees = float((values * raw.clamp_min(0).sum(1)).sum()) >= 0  # with what is active, in sum
        projected.append(values if agrees or "B12" in defects else -values)
    return torch.stack(projected).view(len(x), 1, *x.shape[2:])


FORMULAS: dict[str, Formula] = {
    "torchcam Grad-CAM++": Formula(frozenset({"B1", "B2"}), _torchcam_plus_plus),
    "monai Grad-CAM++": Formula(frozenset({"B2", "B3"}), _monai_plus_plus),
    "grad-cam Grad-CAM++": Formula(frozenset({"B3"}), _gradcam_plus_plus),
    "monai batch": Formula(frozenset({"B4"}), _batch),
    "monai SmoothGrad": Formula(frozenset({"B7"}), _root_mean_square),
    "monai VanillaGrad": Formula(frozenset({"B8"}), _vanilla),
    "monai CAM": Formula(frozenset({"C1"}), _pooled_head),
    "captum functional": Formula(frozenset({"B16"}), _functional),
    "captum trapezoid": Formula(frozenset({"B19"}), _trapezoid),
    "grad-cam zoom": Formula(frozenset({"B24"}), _zoom),
    "grad-cam EigenCAM": Formula(frozenset({"B12"}), lambda e, d: first_component(e.cells[0], d)),
    "grad-cam EigenGradCAM": Formula(frozenset({"B12"}), lambda e, d: first_component(e.cells[0] * e.cells[1], d)),
}
