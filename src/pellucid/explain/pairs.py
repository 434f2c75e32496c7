"""What an operation does between a reference and an image: values in pairs, whose gradients are DeepLIFT multipliers.

A pair is the tensor at the image, with its graph, and the same tensor at the reference, without. Each function here
returns a pair whose graph carries ``(y - y') / (x - x')`` in place of the derivative, so that one ordinary backward
gives multipliers, and multipliers times differences add up exactly, whatever the network is built of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

_CLOSE = 1e-3  # of the larger value: nearer than this the quotient has fewer digits than the slope in the middle
_Unary = Callable[[Tensor], Tensor]
_Bilinear = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Pair:
    """One value at the image (``now``, with its graph) and at the reference (``then``)."""

    now: Tensor
    then: Tensor

    @property
    def same(self) -> bool:
        """Whether image and reference agree, so that a plain operation with it is linear in what remains."""
        return torch.equal(self.now.detach(), self.then)

    def linear(self, function: _Unary) -> "Pair":
        """A linear operation: autograd is right."""
        return Pair(function(self.now), function(self.then))


class _Multiplied(torch.autograd.Function):
    """A given value (in a tuple: an input handed back would be a view of it) with a given multiplier."""

    @staticmethod
    def forward(ctx: Any, _x: Tensor, given: tuple[Tensor], multiplier: Tensor) -> Tensor:
        ctx.save_for_backward(multiplier)
        return given[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.saved_tensors[0], None, None


class _Valued(torch.autograd.Function):
    """A given value with the graph of another tensor."""

    @staticmethod
    def forward(_ctx: Any, _graph: Tensor, given: tuple[Tensor]) -> Tensor:
        return given[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004 -- the signature is torch's
        return gradients[0], None


def unary(function: _Unary, x: Pair) -> Pair:
    """An operation on each element by itself: the rescale rule, with the slope in the middle where both agree."""
    now = x.now.detach()
    y, then = function(now), function(x.then)
    change = now - x.then
    near = change.abs() <= _CLOSE * torch.maximum(now.abs(), x.then.abs())
    slope = _slope(function, torch.lerp(x.then, now, 0.5))
    multiplier = torch.where(near, slope, (y - then) / torch.where(near, 1.0, change))
    return Pair(cast(Tensor, _Multiplied.apply(x.now, (y,), multiplier)), then)


def _slope(function: _Unary, at: Tensor) -> Tensor:
    with torch.enable_grad():
        at = at.detach().requires_grad_()
        return torch.autograd.grad(function(at).sum(), at)[0]


def product(function: _Bilinear, a: Pair, b: Pair, share: Tensor | float = 0.5) -> Pair:
    """An operation linear in each of two operands: each is multiplied with a mean of the other's two values.

    Args:
        function: of both.
        a: its change is multiplied with ``share`` of b at the image and the rest of b at the reference.
        b: its change is multiplied the other way round, so that both changes together make up the whole.
        share: 0 to 1.
    """
    then = function(a.then, b.then)
    if b.same:
        return Pair(function(a.now, b.now.detach()), then)
    if a.same:
        return Pair(function(a.now.detach(), b.now), then)
    share = torch.as_tensor(share, dtype=b.then.dtype, device=b.then.device)
    middle_a = torch.lerp(a.now.detach(), a.then, share)
    middle_b = torch.lerp(b.then, b.now.detach(), share)
    graph = function(a.now, middle_b) + function(middle_a, b.now)
    return Pair(cast(Tensor, _Valued.apply(graph, (function(a.now.detach(), b.now.detach()),))), then)


def plus(a: Pair, b: Pair) -> Pair:
    """The sum."""
    return Pair(a.now + b.now, a.then + b.then)


def quotient(a: Pair, b: Pair) -> Pair:
    """The ratio, as a product with the reciprocal."""
    return product(torch.mul, a, unary(torch.reciprocal, b))


def larger(a: Pair, b: Pair) -> Pair:
    """The larger of two, element by element."""
    both = Pair(a.now - b.now, a.then - b.then)
    return plus(unary(torch.relu, both), b)


def variance(x: Pair, dims: tuple[int, ...], correction: float = 0) -> tuple[Pair, Pair]:
    """The deviations from the mean over some axes, and the mean of their squares."""
    size = 1
    for d in dims:
        size *= x.now.shape[d]
    centered = x.linear(lambda t: t - t.mean(dims, keepdim=True))
    squares = product(torch.mul, centered, centered)
    return centered, squares.linear(lambda t: t.sum(dims, keepdim=True) / max(size - correction, 1e-30))


def standardized(x: Pair, dims: tuple[int, ...], eps: float) -> Pair:
    """Mean zero and variance one over some axes: the statistics move with the image, so they get their share.

    The two factors share their change by the two variances. In halves, a flat reference (variance zero, scale 1 / root
    of eps) would give multipliers in the hundreds that grow with every layer and cancel in no number format.
    """
    centered, spread = variance(x, dims)
    here, there = spread.now.detach() + eps, spread.then + eps
    scale = unary(lambda t: torch.rsqrt(t + eps), spread)
    return product(torch.mul, centered, scale, here / (here + there))


def softmax(x: Pair, dim: int) -> Pair:
    """Shares that add up to one; shifted by one constant for both, so that nothing overflows."""
    top = torch.maximum(x.now.detach(), x.then).amax(dim, keepdim=True)
    top = torch.where(torch.isfinite(top), top, 0.0)  # a row that is masked out altogether
    parts = unary(torch.exp, _masked(x, top))
    return quotient(parts, parts.linear(lambda t: t.sum(dim, keepdim=True)))


def _masked(x: Pair, top: Tensor) -> Pair:
    """Differences from the top; what is minus infinity in both stays out of the graph: its share is zero."""
    hidden = torch.isinf(x.now.detach()) & torch.isinf(x.then)
    lowest = torch.finfo(x.now.dtype).min / 4
    return x.linear(lambda t: torch.where(hidden, lowest, t - top))


class _Largest(torch.autograd.Function):
    """The largest of some candidates: a rise belongs to the image's largest one, a fall to the reference's."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        ctx.save_for_backward(*given)
        return given[2].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, then, y, y_then, at, at_then = ctx.saved_tensors
        change, top = x - then, torch.maximum(y, y_then)
        out = torch.zeros_like(change)
        for index, share in ((at, top - y_then), (at_then, y - top)):
            step = change.gather(-1, index)
            none = step == 0
            out.scatter_add_(-1, index, gradients[0] * torch.where(none, 0.0, share / torch.where(none, 1.0, step)))
        still = (at == at_then) & (change.gather(-1, at) == 0)  # no difference to share out: the plain derivative
        return out.scatter_add_(-1, at, gradients[0] * still), None, None, None, None, None


def _chosen(x: Pair, found: tuple[Tensor, Tensor], found_then: tuple[Tensor, Tensor]) -> Pair:
    """The largest among candidates on the last axis, given as values and indices."""
    y = _Largest.apply(x.now, x.then, found[0], found_then[0], found[1], found_then[1])
    return Pair(cast(Tensor, y), found_then[0])


def pooled(pool: Callable[[Tensor], tuple[Tensor, Tensor]], x: Pair) -> Pair:
    """The largest of each window of "batch channel *space".

    Args:
        pool: of a tensor: the values, and their places in the flattened space.
        x: to be pooled.
    """
    found, found_then = pool(x.now.detach()), pool(x.then)
    flat = _chosen(
        x.linear(lambda t: t.flatten(2)),
        (found[0].flatten(2), found[1].flatten(2)),
        (found_then[0].flatten(2), found_then[1].flatten(2)),
    )
    return flat.linear(lambda t: t.view_as(found[0]))


def largest(x: Pair, dim: int, keepdim: bool) -> Pair:
    """The largest along an axis."""
    last = x.linear(lambda t: t.movedim(dim, -1))
    y = _chosen(last, last.now.detach().max(-1, keepdim=True), last.then.max(-1, keepdim=True))
    return y.linear(lambda t: t.movedim(-1, dim) if keepdim else t.squeeze(-1))
