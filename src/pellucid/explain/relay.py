"""Autograd functions that hand relevance on: the value goes forward as it was, the gradient back as a rule says.

Relevance travels as a *modified gradient* g with ``R = x * g`` at every tensor x, so that whatever is linear without a
constant (reshaping, concatenation, residual sums, pooling, interpolation) needs no rule: the plain gradient is one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from pellucid.core.ledger import Entry, Ledger

Note = Callable[[str, Tensor], None]  # cause, amounts whose first axis is the batch


@dataclass(frozen=True, eq=False)
class Share:
    """How a value's relevance is divided: each carrier gets ``g * factor`` as its gradient.

    Args:
        carriers: differentiable expressions of the operation's input; only their gradients count.
        factors: one each, shaped as the value or broadcastable.
        constants: what each carrier adds whatever its input is (its bias), broadcastable to it; None: nothing.
        stabilizer: of the divisor, and its signed factor: ``epsilon * sum(g * factor)`` is what it takes.
    """

    carriers: tuple[Tensor, ...]
    factors: tuple[Tensor, ...]
    constants: tuple[Tensor | None, ...] = ()
    stabilizer: tuple[float, Tensor] | None = None


def relayed(value: Tensor, share: Share, note: Note) -> Tensor:
    """The value as it is, whose gradient goes back through the share's carriers; what is lost is noted."""
    return cast(Tensor, _Relay.apply(value.detach(), share, note, *share.carriers))


class _Relay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, share: Share, note: Note, *_carriers: Tensor) -> Tensor:
        ctx.factors, ctx.constants, ctx.stabilizer, ctx.note = share.factors, share.constants, share.stabilizer, note
        return value.data  # not a view of it: an in-place operation may follow

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        g = gradients[0]
        sent = tuple(g * factor for factor in ctx.factors)
        epsilon, factor = ctx.stabilizer or (0.0, None)
        noted = factor is None
        for s, f, constant in zip(sent, ctx.factors, ctx.constants or (None,) * len(sent), strict=True):
            if constant is not None:
                s = summed(s, constant)  # noqa: PLW2901 -- small now, and what follows sums it anyway
                ctx.note("bias", dotted(s, constant))
            if f is factor and not noted:
                ctx.note("stabilizer", epsilon * s.flatten(1).sum(1))
                noted = True
        if factor is not None and not noted:
            ctx.note("stabilizer", epsilon * (g * factor).flatten(1).sum(1))
        return (None, None, None, *sent)


def dotted(g: Tensor, constant: Tensor) -> Tensor:
    """``sum(g * constant)`` per row, where the constant is broadcast; summed first where it does not vary."""
    shape = (1,) * (g.ndim - constant.ndim) + tuple(constant.shape)
    g = summed(g, constant)
    return (g * constant.view(shape)).flatten(1).sum(1) if g.ndim > 1 else g * constant


def summed(g: Tensor, constant: Tensor) -> Tensor:
    """``g`` summed over the axes along which the constant does not vary; the first is left."""
    shape = (1,) * (g.ndim - constant.ndim) + tuple(constant.shape)
    flat = [i for i in range(1, g.ndim) if shape[i] == 1 and g.shape[i] > 1]
    return g.sum(flat, keepdim=True) if flat else g


def opened(x: Tensor, factor: Tensor) -> Tensor:
    """The same values, whose gradient is multiplied on its way back: where ``g`` becomes relevance, ``factor * g``."""
    return cast(Tensor, _Open.apply(x, factor))


class _Open(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.factor = factor
        return x.data

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return gradients[0] * ctx.factor, None


def normalized(x: Tensor, value: Tensor, scale: Tensor, rows: tuple[int, ...]) -> Tensor:
    """A normalization by its own mean and deviation, the deviation taken as a constant: then it is linear.

    Args:
        x: its input.
        value: its output.
        scale: gain over deviation, broadcastable to ``x``.
        rows: ``x`` viewed so has in its last axis what one mean was taken over.
    """
    return cast(Tensor, _Normalize.apply(x, value, scale, rows))


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, _x: Tensor, value: Tensor, scale: Tensor, rows: tuple[int, ...]) -> Tensor:
        ctx.scale, ctx.rows = scale, rows
        return value.data

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        s = (gradients[0] * ctx.scale).contiguous()
        rows = s.view(ctx.rows)
        return (rows - rows.mean(-1, keepdim=True)).view_as(s), None, None, None


class Books:
    """What operations kept of the relevance, collected while the gradient goes back.

    Args:
        batch: items; an operation may hold several rows of one item (windows, tokens), the item outermost.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._rows: dict[tuple[str, str, str], Tensor] = {}
        self.start: Tensor | None = None

    def note(self, place: str, operation: str) -> Note:
        """A function that writes down what one operation keeps."""

        def add(cause: str, amounts: Tensor) -> None:
            rows = amounts.detach().double().flatten()
            even = len(rows) % self._batch == 0
            items = rows.view(self._batch, -1).sum(1) if even else (rows.sum() / self._batch).expand(self._batch)
            key = (place, operation, cause)
            self._rows[key] = self._rows[key] + items if key in self._rows else items

        return add

    def closed(self, arrived: Tensor) -> Ledger:
        """The ledger, with what arrived per item; the largest entries first."""
        entries = [Entry(*key, amount) for key, amount in self._rows.items() if bool(amount.any())]
        entries.sort(key=lambda e: -float(e.amount.abs().sum()))
        start = arrived if self.start is None else self.start
        return Ledger(start.double(), arrived.double(), tuple(entries))
