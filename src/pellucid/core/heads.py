"""Attention heads: where each head's output can be read and replaced before the output projection mixes them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.model import Inputs, Model
from pellucid.core.rules import Rulebook, called

_SOFTMAX = (F.softmax, torch.softmax, torch.Tensor.softmax)
_WEIGHT, _BIAS, _HEADS = 11, 12, 4  # places among the arguments of F.multi_head_attention_forward
_RANK = 4  # axes of attention weights: item, head, token, token

Swap = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Attention:
    """One attention of a network.

    Heads are reached by one of three doors: what ``F.scaled_dot_product_attention`` returns; the heads of
    ``nn.MultiheadAttention``, whose projection is set apart; or, where weights are made with a softmax, the input of
    the linear layer behind it, in which heads lie one after the other.

    Args:
        name: of the module it happens in.
        heads: their number.
        door: which of the three.
        call: of ``F.scaled_dot_product_attention``, from 0.
        weight: of the output projection, by which it is known again.
    """

    name: str
    heads: int
    door: Literal["product", "multihead", "projection"]
    call: int = 0
    weight: Tensor | None = None


def find_attentions(model: Model, inputs: Inputs) -> tuple[Attention, ...]:
    """Every attention that one item goes through, in order.

    Args:
        model: whose operations can be replaced; none are found in another.
        inputs: one item.

    Raises:
        CannotDo: operations of the model cannot be replaced.
    """
    model.check_able({"gradient": False, "hooks": True, "edits": False, "rules": True})
    seen = _Seen()
    with model.held(), torch.no_grad():
        called(model, model.module, {name: x.clone() for name, x in inputs.items()}, seen)
    return tuple(seen.found)


class _Listening(Rulebook):
    """A rulebook that leaves inputs and output as they are."""

    @property
    def composed(self) -> bool:
        """See ``Rulebook``: heads are read off the whole attention."""
        return True

    def begin(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See ``Rulebook``."""
        return inputs

    def finish(self, output: Tensor) -> Tensor:
        """See ``Rulebook``."""
        return output


class _Seen(_Listening):
    """What a first pass meets: attentions by the module they happen in."""

    def __init__(self) -> None:
        self.found: list[Attention] = []
        self._products = 0
        self._waits: tuple[str, int] | None = None  # place and heads of weights whose projection has not come yet

    def operate(
        self, operation: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any], place: str
    ) -> Any:
        """See ``Rulebook``: what the operation gives."""
        output = operation(*args, **named)
        if operation is F.linear:
            if self._waits is not None and args[0].shape[-1] % self._waits[1] == 0:
                self.found.append(Attention(*self._waits, "projection", weight=args[1]))
            self._waits = None
        elif operation is F.multi_head_attention_forward:
            self.found.append(Attention(place, args[_HEADS], "multihead", weight=args[_WEIGHT]))
        elif operation is F.scaled_dot_product_attention:
            if output.ndim == _RANK:
                self.found.append(Attention(place, output.shape[1], "product", self._products))
            self._products += 1
        elif operation in _SOFTMAX and output.ndim == _RANK:
            axis = named.get("dim", args[1] if len(args) > 1 else None)
            if axis in (-1, _RANK - 1):  # not over the classes of a segmentation
                self._waits = (_outer(place), output.shape[1])
        return output


def _outer(place: str) -> str:
    """A module, or what it is part of where it is a softmax by itself."""
    parent, _, own = place.rpartition(".")
    return parent if own in ("softmax", "attend") else place


class HeadRules(_Listening):
    """Operations that let each attention's heads be read or replaced; made anew for every pass.

    Args:
        swaps: by attention, from "item token head value" to the same (items may be windows of the image).
    """

    def __init__(self, swaps: Mapping[Attention, Swap]) -> None:
        self._products = {a.call: swap for a, swap in swaps.items() if a.door == "product"}
        self._weights = [(a.weight, a.heads, swap) for a, swap in swaps.items() if a.door != "product"]
        self._calls = 0

    def operate(
        self, operation: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any], place: str
    ) -> Any:
        """See ``Rulebook``: what the operation gives with the heads that are put in."""
        if operation is F.scaled_dot_product_attention:
            self._calls += 1
            swap = self._products.get(self._calls - 1)
            output = operation(*args, **named)
            return output if swap is None else swap(output.transpose(1, 2)).transpose(1, 2)
        if operation is F.linear:
            for weight, heads, swap in self._weights:
                if weight is args[1]:
                    x: Tensor = args[0]
                    parted = x.reshape(len(x), -1, heads, x.shape[-1] // heads)
                    return operation(swap(parted).reshape(x.shape), *args[1:], **named)
        if operation is F.multi_head_attention_forward:
            for weight, heads, swap in self._weights:
                if weight is args[_WEIGHT]:
                    return _apart(args, named, heads, swap)
        return operation(*args, **named)


def _apart(args: tuple[Any, ...], named: Mapping[str, Any], heads: int, swap: Swap) -> Any:
    """``nn.MultiheadAttention`` with the identity as its projection gives the heads side by side; then its own."""
    weight, bias = args[_WEIGHT], args[_BIAS]
    identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    given: tuple[Any, ...] = (*args[:_WEIGHT], identity, None, *args[_BIAS + 1 :])
    found, *rest = F.multi_head_attention_forward(*given, **named)  # token, item, value
    side_by_side = found[:, None] if found.ndim == 2 else found
    swapped = swap(side_by_side.transpose(0, 1).unflatten(-1, (heads, -1))).flatten(-2).transpose(0, 1)
    return (F.linear(swapped.reshape(found.shape), weight, bias), *rest)
