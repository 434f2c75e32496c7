"""Attention weights and their gradients, whatever way a module computes them.

There are three doors: ``scaled_dot_product_attention``, made explicit, since its kernels keep none; a softmax that
feeds a product; and ``nn.MultiheadAttention``, whose returned weights are off the graph and whose fast path has none.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pellucid.core.differentiate import Key

_SOFTMAX = frozenset({"softmax", "_softmax"})
_PRODUCTS = frozenset({"matmul", "__matmul__", "bmm", "einsum"})
# between the softmax and the product with the values
CARRIES = frozenset(
    str.split(
        "dropout dropout1d to type type_as float half bfloat16 double contiguous clone view reshape flatten unflatten "
        "unsqueeze squeeze permute transpose expand nan_to_num masked_fill __getitem__"
    )
)


class Weights(Tensor):
    """What a softmax gave, on its way to the product with the values."""


def plain(x: Tensor) -> Tensor:
    """Without the mark."""
    return x.as_subclass(Tensor)


def scaled_dot_product(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``F.scaled_dot_product_attention`` with its weights written out.

    Args:
        query: "*batch head query channel".
        key: "*batch head key channel".
        value: as ``key``.
        attn_mask: true where attended, or what is added to the logits.
        dropout_p: share of the weights that is dropped.
        is_causal: whether no query attends to a later key.
        scale: of the logits; None: one over the root of the channels.
        enable_gqa: whether several heads of ``query`` share one of ``key``.
    """
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    logits = query @ key.transpose(-2, -1) * (1 / sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        ahead = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(ahead, -torch.inf)
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
    weights = torch.softmax(logits, -1)
    return (F.dropout(weights, dropout_p) if dropout_p else weights) @ value


def multi_head(given: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    """``F.multi_head_attention_forward`` with weights on the graph; its arguments by name."""
    batched = given["query"].dim() == 3
    q, k, v = (_projected(given, n, batched) for n in range(3))
    mask = _mask(given, q, k)
    dropout = given["dropout_p"] if given["training"] else 0.0
    logits = q @ k.transpose(-2, -1) / sqrt(q.shape[-1])
    weights = torch.softmax(logits if mask is None else logits + mask, -1)
    out = F.dropout(weights, dropout) @ v  # batch, head, token, channel
    out = F.linear(out.permute(2, 0, 1, 3).flatten(2), given["out_proj_weight"], given["out_proj_bias"])
    told = None
    if given["need_weights"]:
        told = plain(weights).mean(1) if given["average_attn_weights"] else plain(weights)
        told = told if batched else told[0]
    return (out if batched else out[:, 0]), told


def _projected(given: Mapping[str, Any], index: int, batched: bool) -> Tensor:
    """Query, key or value (0, 1, 2) as "batch head token channel"."""
    x = given[("query", "key", "value")[index]]
    x = x if batched else x.unsqueeze(1)
    width, heads = given["embed_dim_to_check"], given["num_heads"]
    rows = slice(index * width, (index + 1) * width)
    separate = given[("q_proj_weight", "k_proj_weight", "v_proj_weight")[index]]
    weight = separate if given["use_separate_proj_weight"] else given["in_proj_weight"][rows]
    bias = given["in_proj_bias"]
    x = F.linear(x, weight, None if bias is None else bias[rows])
    more = given["bias_k"] if index == 1 else given["bias_v"] if index == 2 else None
    if more is not None:
        x = torch.cat([x, more.expand(1, x.shape[1], -1)])
    if given["add_zero_attn"] and index:
        x = torch.cat([x, x.new_zeros(1, *x.shape[1:])])
    return x.unflatten(2, (heads, width // heads)).permute(1, 2, 0, 3)


def _mask(given: Mapping[str, Any], q: Tensor, k: Tensor) -> Tensor | None:
    """What is added to the logits: "batch head token token" or what broadcasts to it."""
    like, more = plain(q), k.shape[2] - given["key"].shape[0]  # tokens that the module itself appends
    both: list[Tensor] = []
    if given["attn_mask"] is not None:
        mask = _added(given["attn_mask"], like)
        both.append(mask.unflatten(0, (-1, q.shape[1])) if mask.dim() == 3 else mask)
    if given["key_padding_mask"] is not None:
        both.append(_added(given["key_padding_mask"], like).view(len(q), 1, 1, -1))
    padded = [F.pad(mask, (0, more)) for mask in both]
    return reduce(torch.add, padded) if padded else None


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A mask as what is added to the logits."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)


@dataclass(frozen=True, eq=False)
class Product:
    """One product of attention weights with values.

    Args:
        weights: "*lead query key".
        values: "*lead key channel".
        order: axes of the product's result that make it "*lead query channel".
    """

    weights: Tensor
    values: Tensor
    order: tuple[int, ...]


def product_of(name: str, args: Sequence[Any], kind: type[Tensor]) -> Product | None:
    """What a call multiplies, if its first factor is attention (of class ``kind``), the keys last; else None."""
    if name not in _PRODUCTS:
        return None
    if name != "einsum":
        a, b = args[0], args[1]
        right = isinstance(a, kind) and isinstance(b, Tensor) and b.dim() == a.dim() >= 3
        return Product(a, b, tuple(range(a.dim()))) if right else None
    operands = args[1] if isinstance(args[1], list | tuple) else args[1:]
    if len(operands) != 2 or not isinstance(args[0], str):
        return None
    terms, _, out = args[0].replace(" ", "").partition("->")
    pairs = list(zip(terms.split(","), operands, strict=True))
    pairs = pairs if isinstance(operands[0], kind) else pairs[::-1]
    (first, a), (second, b) = pairs
    *lead, query, key = first
    channel = [i for i in second if i not in first]
    right = set(second) == {*lead, key, *channel} and len(channel) == 1 and set(out) == {*lead, query, *channel}
    if not isinstance(a, kind) or not right:
        return None
    axes = [second.index(i) for i in (*lead, key, *channel)]
    return Product(a, b.permute(axes), tuple(out.index(i) for i in (*lead, query, *channel)))


class Doors(TorchFunctionMode, ABC):
    """Bring every way of computing attention to one: a softmax over keys, times the values."""

    mark: type[Tensor] = Weights

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Hand over the calls that matter; all others pass."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            with self:  # here the mode is off
                return scaled_dot_product(*args, **kwargs)
        if name == "multi_head_attention_forward":
            bound = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs)
            bound.apply_defaults()
            with self:
                return multi_head(bound.arguments)
        found = product_of(name, args, self.mark)
        if found is not None:
            return self._multiply(found, func, args, kwargs)
        if name in _SOFTMAX:
            return self.soften(func, args, kwargs)
        return self._other(name, func, args, kwargs)

    def soften(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A softmax: marked if it goes over the last axis."""
        out = func(*args, **kwargs)
        return out.as_subclass(self.mark) if self.weighs(args, kwargs) else out

    @staticmethod
    def weighs(args: Any, kwargs: Any) -> bool:
        """Whether a softmax goes over the last axis of what could be attention."""
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        return args[0].dim() > 2 and dim in (-1, args[0].dim() - 1)

    def _other(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Any other call: the mark stays where the weights are only moved."""
        out = func(*args, **kwargs)
        return out if name in CARRIES else _unmarked(out)

    @abstractmethod
    def _multiply(self, found: Product, func: Any, args: Any, kwargs: Any) -> Any:
        """The product of weights and values."""


def _unmarked(out: Any) -> Any:
    if isinstance(out, Weights):
        return plain(out)
    marked = type(out) in (tuple, list) and any(isinstance(part, Weights) for part in out)
    return type(out)(_unmarked(part) for part in out) if marked else out


@dataclass(frozen=True, eq=False)
class Heeded:
    """What one pass tells of a module's attention, for one target; heads are averaged.

    Args:
        weights: of each attention in order, "batch window query key".
        evidence: mean over heads of the positive part of gradient times weights, likewise; empty: not asked.
        origin: "batch window query" of the last attention: how strongly the target depends on what each query took.
    """

    weights: tuple[Tensor, ...]
    evidence: tuple[Tensor, ...]
    origin: Tensor


@dataclass(frozen=True)
class Lead:
    """The axes of one attention's weights before "query key", for one item.

    Args:
        size: of the first, which holds the batch as well, the batch outside.
        heads: those that are heads; the others are windows.
    """

    size: int
    heads: tuple[int, ...]

    def fused(self, x: Tensor, total: bool = False) -> Tensor:
        """Mean (or total) over heads: "batch*first *lead row column" -> "batch window row column"."""
        apart = x.unflatten(0, (x.shape[0] // self.size, self.size))
        axes = [1 + axis for axis in self.heads]
        less = (apart.sum(axes) if total else apart.mean(axes)) if axes else apart
        return less.reshape(len(apart), prod(less.shape[1:-2]), *less.shape[-2:])


_WEIGHTS, _OUTPUT = ("attention", "weights"), ("attention", "output")


class Capture(Doors):
    """Keep the attention of one forward.

    Args:
        leads: of each attention that there will be; None: one that is not over tokens, and is left out.
        differentiate: whether gradients of the weights will be asked; a graph begins at the first where there is none.
            Else only the mean over heads is kept.
    """

    def __init__(self, leads: Sequence[Lead | None], differentiate: bool) -> None:
        super().__init__()
        self._leads, self._differentiate = leads, differentiate
        self._last = max(n for n, lead in enumerate(leads) if lead is not None)
        self._calls = 0
        self._kept: list[Tensor] = []
        self._output, self._order = torch.empty(0), ()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Parameters are constants: what does not depend on a leaf has no graph, and layers keep less for theirs."""
        if getattr(func, "__name__", "") not in ("__get__", "__set__"):
            args = _constant(args)
            kwargs = {k: _constant(v) for k, v in (kwargs or {}).items()}
        return super().__torch_function__(func, types, args, kwargs)

    def _multiply(self, found: Product, func: Any, args: Any, kwargs: Any) -> Any:
        """Keep weights and output, as leaves where nothing before them is recorded."""
        call, self._calls = self._calls, self._calls + 1
        lead = self._leads[call] if call < len(self._leads) else None
        weights = plain(found.weights)
        if self._differentiate and lead is not None and not weights.requires_grad:
            torch.set_grad_enabled(True)
            weights = weights.detach().requires_grad_()
        out = func(*_swapped(args, weights), **kwargs)
        if lead is None:
            return out
        self._kept.append(weights if self._differentiate else lead.fused(weights.detach()))
        if call != self._last:
            return out
        if not out.requires_grad:
            torch.set_grad_enabled(True)
            out = out.detach().requires_grad_()
        self._output, self._order = out, found.order
        return out.clone()  # a leaf may not be changed in place

    @property
    def wrt(self) -> dict[Key, list[Tensor]]:
        """What the target is differentiated with respect to."""
        weights = {_WEIGHTS: self._kept} if self._differentiate else {}
        return {_OUTPUT: [self._output], **weights}

    def heeded(self, gradients: Mapping[Key, list[Tensor]]) -> Heeded:
        """What was kept, with the gradients of one target."""
        leads = [lead for lead in self._leads if lead is not None]
        slope = _wide(gradients[_OUTPUT][0].detach().permute(self._order))
        origin = leads[-1].fused(slope.square().sum(-1, keepdim=True), total=True)[..., 0].sqrt()
        if not self._differentiate:
            return Heeded(tuple(_wide(kept) for kept in self._kept), (), origin)
        pairs = list(zip(leads, self._kept, gradients[_WEIGHTS], strict=True))
        return Heeded(
            tuple(lead.fused(_wide(weights.detach())) for lead, weights, _ in pairs),
            tuple(lead.fused((_wide(weights.detach()) * gradient).relu()) for lead, weights, gradient in pairs),
            origin,
        )


def _wide(x: Tensor) -> Tensor:
    """Float32 at least."""
    return x if x.dtype == torch.float64 else x.float()


def _constant(x: Any) -> Any:
    if isinstance(x, nn.Parameter):
        return x.detach()
    return type(x)(_constant(part) for part in x) if type(x) in (tuple, list) else x


def _swapped(args: Sequence[Any], weights: Tensor) -> list[Any]:
    """Arguments with the marked weights replaced."""
    return [
        weights if isinstance(a, Weights) else _swapped(a, weights) if isinstance(a, list | tuple) else a for a in args
    ]
