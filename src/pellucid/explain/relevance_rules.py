"""Rules of layer-wise relevance propagation for one operation that is affine in its input, ``y = w x + b``.

Another method uses them on an operation of its own by making an ``Affine`` and handing ``rule(affine)`` to
``relay.relayed``; the gradient that comes back through it is the rule's relevance divided by the input.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.explain.relay import Share, opened

Apply = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True, eq=False)
class Affine:
    """An operation that is affine in ``x``.

    Args:
        apply: (input, weight, bias) -> output.
        x: input; on the graph.
        weight: what it is multiplied by; no gradient flows to it.
        bias: per channel of the output; None: none.
        value: what the model gets, on the graph of ``x``.
        channel: shape in which the bias is broadcast to the output.
        positive: whether the input is known to have no negative value.
    """

    apply: Apply
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    value: Tensor
    channel: tuple[int, ...] = (-1,)
    positive: bool = False

    def constant(self, bias: Tensor | None) -> Tensor | None:
        """A bias, shaped to be broadcast to the output."""
        return None if bias is None else bias.view(self.channel)


def stable(divisor: Tensor, epsilon: float) -> Tensor:
    """The divisor moved away from zero by epsilon; the sign of zero is plus."""
    return divisor + torch.where(divisor < 0, -epsilon, epsilon)


class Rule(ABC):
    """How an affine operation hands relevance to its input."""

    @abstractmethod
    def __call__(self, op: Affine) -> Share:
        """How the value's relevance is divided."""


@dataclass(frozen=True)
class Zero(Rule):
    """LRP-0, in proportion to ``w x``: the plain gradient times the input."""

    def __call__(self, op: Affine) -> Share:
        """See ``Rule``."""
        return Share((op.value,), (torch.ones((), device=op.x.device, dtype=op.x.dtype),), (op.constant(op.bias),))


@dataclass(frozen=True)
class Epsilon(Rule):
    """In proportion to ``w x``, divided by ``y + epsilon sign(y)``: what is near zero in sum hands on less."""

    epsilon: float = 1e-6

    def __call__(self, op: Affine) -> Share:
        """See ``Rule``."""
        y = op.value.detach()
        ratio = y / stable(y, self.epsilon)
        return Share((op.value,), (ratio,), (op.constant(op.bias),), (self.epsilon, ratio.copysign(y)))


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """Positive contributions get ``alpha``, negative ones ``-beta`` of the relevance; inputs of either sign.

    With alpha 1 and beta 0 it is the z+ rule; ``epsilon`` is added to both divisors, and biases count as contributions
    where it is ``biased``.
    """

    alpha: float = 1.0
    beta: float = 0.0
    epsilon: float = 1e-6
    biased: bool = True

    def __call__(self, op: Affine) -> Share:
        """See ``Rule``."""
        y = op.value.detach()
        plus, gain = contributions(op, 1, self.biased)
        # the sum of positive contributions is never below zero, that of negative ones never above
        up = plus.detach() + self.epsilon
        torch.div(y if self.alpha == 1 else self.alpha * y, up, out=up)
        if not self.beta:
            return Share((plus,), (up,), (gain,), (self.epsilon, up))
        minus, loss = contributions(op, -1, self.biased)
        down = -self.beta * y / (minus.detach() - self.epsilon)
        return Share((plus, minus), (up, down), (gain, loss), (self.epsilon, up - down))


@dataclass(frozen=True)
class Gamma(Rule):
    """Contributions of the output's own sign are raised by ``gamma`` before relevance is divided in proportion.

    All four combinations of signs of input and weight count, for outputs of either sign; ``epsilon`` is added to the
    divisor, and biases are raised too where it is ``biased``.
    """

    gamma: float = 0.25
    epsilon: float = 1e-6
    biased: bool = True

    def __call__(self, op: Affine) -> Share:
        """See ``Rule``."""
        y, gamma = op.value.detach(), self.gamma
        plus, gain = contributions(op, 1, self.biased)
        above = y > 0
        # y + gamma (sum of the positive contributions), or of the negative ones, which are y - plus
        divisor = torch.where(above, y, (1 + gamma) * y) + torch.where(above, gamma, -gamma) * plus.detach()
        ratio = torch.where(y == 0, 0.0, y / stable(divisor, self.epsilon))
        raised = torch.where(above, gamma * ratio, -gamma * ratio)
        factors = (torch.where(above, ratio, (1 + gamma) * ratio), raised)
        constants = (op.constant(op.bias), gain)
        return Share((op.value, plus), factors, constants, (self.epsilon, torch.where(above, ratio, -ratio)))


def contributions(op: Affine, sign: int, biased: bool) -> tuple[Tensor, Tensor | None]:
    """The sum of all contributions of one sign, as a carrier, and the bias in it."""

    def part(t: Tensor) -> Tensor:
        return t.clamp(min=0) if sign > 0 else t.clamp(max=0)

    bias = None if op.bias is None or not biased else part(op.bias)
    if op.positive or bool(op.x.detach().amin() >= 0):
        return op.apply(op.x, part(op.weight), bias), op.constant(bias)
    above = op.x.relu()
    found = op.apply(above, part(op.weight), bias)
    return found + op.apply(op.x - above, op.weight - part(op.weight), None), op.constant(bias)


class FirstRule(ABC):
    """How the first affine operation hands relevance to the input of the model, whatever its values are.

    Its carriers' gradients are relevance itself, not relevance divided by the input: a black pixel may get some.
    """

    @abstractmethod
    def __call__(self, op: Affine) -> Share:
        """How the value's relevance is divided; ``op.x`` is the raw input."""


@dataclass(frozen=True)
class Flat(FirstRule):
    """In equal parts to every input that the operation read."""

    def __call__(self, op: Affine) -> Share:
        """See ``FirstRule``."""
        return _weighed(op, torch.ones_like(op.weight))


@dataclass(frozen=True)
class WSquare(FirstRule):
    """In proportion to the squared weights (inputs of any value, seen from the origin)."""

    def __call__(self, op: Affine) -> Share:
        """See ``FirstRule``."""
        return _weighed(op, op.weight.square())


@dataclass(frozen=True, eq=False)
class ZBox(FirstRule):
    """In proportion to ``x w - low w+ - high w-`` (inputs known to lie between two bounds).

    Args:
        low: least value an input can have, broadcastable to the input.
        high: greatest.
        epsilon: of the divisor.
    """

    low: Tensor
    high: Tensor
    epsilon: float = 1e-6

    def __call__(self, op: Affine) -> Share:
        """See ``FirstRule``."""
        x, w = op.x.detach(), op.weight
        low, high = (bound.to(x).expand_as(x) for bound in (self.low, self.high))
        up, down = w.clamp(min=0), w.clamp(max=0)
        parts = ((x, w), (-low, up), (-high, down))
        with torch.no_grad():
            divisor = op.apply(x, w, None) - op.apply(low, up, None) - op.apply(high, down, None)
        ratio = op.value.detach() / stable(divisor, self.epsilon)
        carriers = tuple(op.apply(opened(op.x, factor), weight, None) for factor, weight in parts)
        return Share(carriers, (ratio,) * 3, (), (self.epsilon, ratio * torch.where(divisor < 0, -1.0, 1.0)))


def _weighed(op: Affine, weight: Tensor) -> Share:
    with torch.no_grad():
        divisor = op.apply(torch.ones_like(op.x), weight, None)
    share = torch.where(divisor > 0, op.value.detach() / divisor, 0.0)
    return Share((op.apply(op.x, weight, None),), (share,))
