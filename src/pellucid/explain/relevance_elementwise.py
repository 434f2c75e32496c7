"""Relevance through operations that act on each value by itself: it stays where it is, ``R_x = R_y``."""

from typing import Any

import torch
from torch import Tensor

from pellucid.explain.propagation import Call, Propagation
from pellucid.explain.relay import Share, relayed
from pellucid.explain.relevance_rules import stable

_TINY = 1e-9  # of a divisor that is zero only where the dividend is, or where a sigmoid's input is


def rectified(book: Propagation, call: Call) -> Any:
    """ReLU: its own gradient is output over input."""
    book.opened(call)
    call.known = {"positive": True}
    return call.run()


def sloped(book: Propagation, call: Call) -> Any:
    """LeakyReLU, PReLU, dropout: as ReLU; the values may be of either sign."""
    book.opened(call)
    return call.run()


def gated(book: Propagation, call: Call) -> Any:
    """GELU, SiLU, tanh and other functions of one value: the gradient is replaced by output over input."""
    book.opened(call)
    if call.args and call.args[0] is not call.live[0][0]:
        book.refuse(f"{call.name} of a constant", call.place)
        return call.run()
    return passed(book, call)


def shifted(book: Propagation, call: Call) -> Any:
    """Softplus and the like, which are not zero at zero: as other functions of one value."""
    book.opened(call)
    return passed(book, call, lost=True)


def sigmoid(book: Propagation, call: Call) -> Any:
    """Sigmoid: as other functions of one value; where it weighs something else it is a gate."""
    book.opened(call)
    out = passed(book, call, lost=True)
    call.known = {"gate": True, "positive": True}
    return out


def passed(book: Propagation, call: Call, lost: bool = False) -> Tensor:
    """The operation's value, all of whose relevance goes to its first argument.

    Args:
        book: of this run.
        call: its first argument depends on the input.
        lost: whether the value may differ from zero where the argument is zero, and so loses relevance there.
    """
    x = call.live[0][0]
    with torch.no_grad():
        twin = x.detach().clone() if _may_write(call) else x.detach()
        args = [twin if a is x else a for a in call.args]
        value = call.operation(*args, **{k: twin if a is x else a for k, a in call.named.items()})
        ratio = value / stable(x.detach(), _TINY)
    signed = (_TINY, torch.where(x.detach() < 0, -ratio, ratio)) if lost else None
    out = relayed(value, Share((x,), (ratio,), (), signed), book.note(call))
    return x.copy_(out) if value.data_ptr() == twin.data_ptr() and twin.numel() else out


def _may_write(call: Call) -> bool:
    spelled = getattr(call.operation, "__name__", "").endswith("_")
    return spelled or call.named.get("inplace", False) is True or any(a is True for a in call.args)


def scaled(book: Propagation, call: Call) -> Any:
    """A product: a constant only scales; a gate weighs and gets nothing; otherwise each factor gets half."""
    book.opened(call)
    if len(call.live) == 1:
        return call.run()
    gates = [m.gate for _, m in call.live]
    if sum(gates) != 1:
        writes = _may_write(call)
        value = call.operation(call.args[0].clone() if writes else call.args[0], *call.args[1:], **call.named)
        half = torch.full((), 0.5, dtype=value.dtype, device=value.device)
        out = relayed(value, Share((value,), (half,)), book.note(call))
        return call.args[0].copy_(out) if writes else out
    gate = call.live[gates.index(True)][0]
    if _may_write(call) and gate is call.args[0]:
        return gate.copy_(gate.detach() * call.args[1])
    call.args = [a.detach() if a is gate else a for a in call.args]
    call.named = {k: a.detach() if a is gate else a for k, a in call.named.items()}
    return call.run()


def divided(book: Propagation, call: Call) -> Any:
    """A quotient: the divisor is a constant (a norm, a count)."""
    book.opened(call)
    divisor = call.args[1] if len(call.args) > 1 else call.named["other"]
    if call.name in ("__rdiv__", "__rtruediv__"):
        divisor = call.args[0]
    if not isinstance(divisor, Tensor) or book.mark(divisor) is None:
        return call.run()
    if divisor is call.args[0] or book.mark(call.args[0]) is None:
        book.refuse(f"{call.name} by what depends on the input", call.place)
        return call.run()
    call.args = [call.args[0], divisor.detach(), *call.args[2:]]
    call.named.pop("other", None)
    return call.run()


def statistic(_book: Propagation, call: Call) -> Any:
    """A variance or deviation: a constant."""
    with torch.no_grad():
        return call.run()


def softmax(book: Propagation, call: Call) -> Any:
    """Softmax: a gate where it weighs something else; elsewhere the plain gradient, which is not in proportion."""
    book.opened(call)
    out = call.run()
    call.known = {"gate": True, "positive": True}
    axis = call.bound("input", "dim")["dim"]
    x, note = call.live[0][0].detach(), book.note(call)
    y = out.detach()
    if call.name == "softmax" and out.requires_grad and isinstance(axis, int):

        def kept(g: Tensor) -> None:
            note("softmax", (y * g - x * y * (g - (y * g).sum(axis, keepdim=True))).flatten(1).sum(1))

        out.register_hook(kept)
    return out
