"""Relevance through convolutions, linear layers, products of matrices, and batch normalization folded into them."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.explain.propagation import Call, Mark, Pending, Propagation
from pellucid.explain.relay import Share, relayed
from pellucid.explain.relevance_elementwise import passed
from pellucid.explain.relevance_rules import Apply, Zero


def convolution(book: Propagation, call: Call) -> Any:
    """A convolution or transposed convolution of any rank."""
    rank = int(call.name[-2])
    axis = 1 if "transpose" in call.name else 0
    return _layer(book, call, (-1, *(1,) * rank), axis)


def dense(book: Propagation, call: Call) -> Any:
    """A linear layer."""
    return _layer(book, call, (-1,), 0)


def _layer(book: Propagation, call: Call, channel: tuple[int, ...], axis: int) -> Any:
    given = call.bound("input", "weight", "bias")
    rest = call.args[3:]
    named = {k: v for k, v in call.named.items() if k not in given}
    x, weight, bias = given["input"], given["weight"], given["bias"]
    if book.mark(weight) is not None or (bias is not None and book.mark(bias) is not None):
        book.opened(call)
        book.refuse(f"{call.name} with weights that depend on the input", call.place)
        return call.run()
    operation = call.operation

    def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return operation(x, weight, bias, *rest, **named)

    groups = named.get("groups", rest[{0: 3, 1: 4}[axis]] if len(rest) > 3 + axis else 1)
    foldable = axis if axis == 0 or groups == 1 else None
    return _affine(book, call, apply, (x, weight.detach(), None if bias is None else bias.detach()), channel, foldable)


def _affine(
    book: Propagation,
    call: Call,
    apply: Apply,
    operands: tuple[Tensor, Tensor, Tensor | None],
    channel: tuple[int, ...],
    axis: int | None,
) -> Tensor:
    """The value now; its rule when the next operation has shown whether it is a batch normalization."""
    x, weight, bias = operands
    mark = book.mark(x) or Mark()
    first = book.first(mark) if mark.raw else None
    x = x if first is not None else book.open(x)
    treatment = book.treatment
    rule = first or (treatment.dense if len(channel) == 1 else treatment.conv)
    pending = Pending(rule, apply, x, weight, bias, channel, axis, mark.positive, book.note(call))
    value = apply(x, weight, bias)
    if first is not None:
        value = value.detach().requires_grad_()  # only the first rule leads back to the raw input
    call.known = {"pending": pending}
    return value


def batch_norm(book: Propagation, call: Call) -> Any:
    """Batch normalization by stored statistics: folded into the affine operation before it, else an affine map."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = call.bound(*names)
    x = given["input"]
    if given["training"] or given["running_mean"] is None:
        book.opened(call)
        book.refuse("batch_norm by the statistics of this batch", call.place)
        gain, shift, epsilon = given["weight"], given["bias"], given["eps"] or 1e-5
        return F.batch_norm(book.settled(x), None, None, gain, shift, training=True, eps=epsilon)
    deviation = (given["running_var"] + (1e-5 if given["eps"] is None else given["eps"])).sqrt()
    scale = 1 / deviation if given["weight"] is None else given["weight"].detach() / deviation
    shift = -given["running_mean"] * scale
    shift = shift if given["bias"] is None else shift + given["bias"].detach()
    mark = book.mark(x)
    pending = mark.pending if mark is not None else None
    if pending is not None and _folds(pending, x):
        return _folded(book, call, pending, (scale, shift))
    call.args = [book.settled(a) if isinstance(a, Tensor) else a for a in call.args]
    call.named = {k: book.settled(a) if isinstance(a, Tensor) else a for k, a in call.named.items()}
    call.live = [(t, m) for t in call.every if (m := book.mark(t)) is not None]
    book.opened(call)
    if book.treatment.positive:
        return passed(book, call, lost=True)
    out = call.run()
    book.noted(out, shift.view(-1, *(1,) * (out.ndim - 2)), book.note(call), "shift of a norm")
    return out


def _folds(pending: Pending, x: Tensor) -> bool:
    """Whether the channels that are normalized are those that the operation made."""
    made = -len(pending.channel) % x.ndim
    return pending.axis is not None and made == 1 and not isinstance(pending.rule, Zero)


def _folded(book: Propagation, call: Call, pending: Pending, by: tuple[Tensor, Tensor]) -> Tensor:
    scale, shift = by
    along = [1] * pending.weight.ndim
    along[pending.axis or 0] = -1
    weight = pending.weight * scale.view(along)
    bias = shift if pending.bias is None else pending.bias * scale + shift
    both = Pending(
        pending.rule, pending.apply, pending.x, weight, bias, pending.channel, None, pending.positive, pending.note
    )
    return book.shared(both, call.run())


def matmul(book: Propagation, call: Call) -> Any:
    """A product of two matrices: as a linear layer where one is constant or weighs; else each gets half."""
    left, right = call.every[:2]
    if call.name in ("__rmatmul__",):
        left, right = right, left
    operation = torch.matmul if call.name in ("__rmatmul__", "__matmul__") else call.operation
    return product(book, call, (left, right), operation)


def einsum(book: Propagation, call: Call) -> Any:
    """An Einstein sum of two tensors, as ``matmul``; of one, a rearrangement or a sum."""
    book.opened(call)
    operands = call.every
    if len(operands) == 1:
        return call.run()
    if len(operands) != 2:
        book.refuse("einsum of more than two tensors", call.place)
        return call.run()
    equation = call.args[0]
    return product(book, call, (operands[0], operands[1]), lambda a, b: torch.einsum(equation, a, b))


def product(
    book: Propagation, call: Call, pair: tuple[Tensor, Tensor], operation: Callable[[Tensor, Tensor], Tensor]
) -> Any:
    """A product that is linear in each of two tensors.

    Args:
        book: of this run.
        call: the product.
        pair: both tensors.
        operation: of both.
    """
    live = [book.mark(t) is not None for t in pair]
    gates = [bool(m and m.gate) for m in map(book.mark, pair)]
    constant = book.treatment.attention == "constant"
    if all(live) and not (constant and sum(gates) == 1):
        a, b = (book.open(t) for t in pair)
        value = operation(a, b)
        half = torch.full((), 0.5, dtype=value.dtype, device=value.device)
        return relayed(value.detach(), Share((value,), (half,)), book.note(call))
    first = gates[1] if all(live) else live[0]  # which one relevance goes to
    x, weight = pair if first else pair[::-1]

    def apply(x: Tensor, weight: Tensor, _bias: Tensor | None) -> Tensor:
        return operation(x, weight) if first else operation(weight, x)

    return _affine(book, call, apply, (x, weight.detach(), None), (-1,), None)
