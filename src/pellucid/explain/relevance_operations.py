"""How relevance passes each operation of torch; what is in no table here is refused by name and place.

An operation that is linear without a constant needs nothing: the plain gradient hands on ``R = x g`` in proportion.
"""

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor

from pellucid.explain.propagation import Call, Handler, Mark, Propagation, tensors_of
from pellucid.explain.relay import Share, relayed
from pellucid.explain.relevance_affine import batch_norm, convolution, dense, einsum, matmul
from pellucid.explain.relevance_elementwise import (
    divided,
    gated,
    passed,
    rectified,
    scaled,
    shifted,
    sigmoid,
    sloped,
    softmax,
    statistic,
)
from pellucid.explain.relevance_norms import group_norm, instance_norm, layer_norm, rms_norm


def cut(book: Propagation, call: Call) -> Any:
    """Reshape, select, move, copy, pad, join: relevance stays with its value, also in front of the first layer."""
    raw = all(m.raw for _, m in call.live)
    if not raw:
        book.opened(call)
    out = call.run()
    marks = [m for _, m in call.live]
    if raw:
        call.known = {"raw": True}
        _bound(book, call, out)
    alone = len(call.live) == len(call.every)  # a constant that is joined may be of either sign
    call.known |= {"gate": all(m.gate for m in marks), "positive": alone and all(m.positive for m in marks)}
    return out


def _bound(book: Propagation, call: Call, out: Any) -> None:
    """Bounds of what was cut out of a raw input: cut the same way."""
    if any(m.bounds is None for _, m in call.live):
        return
    found = tensors_of((out,), {})
    low, high = (tensors_of((_moved(call, i),), {}) for i in (0, 1))
    for t, bounds in zip(found, zip(low, high, strict=True), strict=True):
        if book.mark(t) is None:
            book.marked(t, Mark(raw=True, bounds=bounds))
        else:  # as it was
            call.known["bounds"] = bounds


def _moved(call: Call, which: int) -> Any:
    of = {id(t): m.bounds[which].expand_as(t) for t, m in call.live if m.bounds is not None}

    def swap(a: Any) -> Any:
        if isinstance(a, list | tuple):
            return [swap(t) for t in a]
        return of.get(id(a), a) if isinstance(a, Tensor) else a

    with torch.no_grad():
        return call.operation(*map(swap, call.args), **{k: swap(a) for k, a in call.named.items()})


def written(book: Propagation, call: Call) -> Any:
    """A tensor, live or not, of which a part is overwritten in place."""
    book.opened(call)
    call.run()
    return call.args[0]


def linear(book: Propagation, call: Call) -> Any:
    """Sums, means, interpolation: the plain gradient; of one sign only where the treatment says so."""
    book.opened(call)
    positive = all(m.positive for _, m in call.live) and call.name in _KEEP_SIGN
    call.known = {"positive": positive}
    if not book.treatment.positive or positive:
        return call.run()
    return _of_one_sign(book, call, call.run(), lambda part: _with(call, part))


def _with(call: Call, change: Callable[[Tensor], Tensor]) -> Any:
    live = {id(t): change(t) for t, _ in call.live}
    swapped = [live.get(id(a), a) for a in call.args]
    return call.operation(*swapped, **{k: live.get(id(a), a) for k, a in call.named.items()})


def _of_one_sign(
    book: Propagation, call: Call, value: Tensor, summed: Callable[[Callable[[Tensor], Tensor]], Tensor]
) -> Tensor:
    """A sum whose relevance goes to the parts of its own sign: none is turned round, and some part has that sign.

    Args:
        book: of this run.
        call: the sum.
        value: of the sum.
        summed: the sum of a given part of each term.
    """
    value = value.detach()
    tiny = torch.finfo(value.dtype).tiny
    plus, minus = summed(torch.relu), summed(lambda t: t - t.relu())
    up = torch.where(value > 0, value / plus.detach().clamp_min(tiny), 0.0)
    down = torch.where(value < 0, value / minus.detach().clamp_max(-tiny), 0.0)
    return relayed(value, Share((plus, minus), (up, down)), book.note(call))


def selected(book: Propagation, call: Call) -> Any:
    """Maxima and minima: relevance goes to the value that was taken."""
    book.opened(call)
    call.known = {"positive": len(call.live) == len(call.every) and all(m.positive for _, m in call.live)}
    return call.run()


def added(book: Propagation, call: Call) -> Any:
    """Sums and differences: in proportion; a constant takes its own part."""
    book.opened(call)
    first, second = call.args[0], call.args[1] if len(call.args) > 1 else call.named["other"]
    alpha = call.named.get("alpha", 1)
    signs = {"add": (1, alpha), "sub": (1, -alpha)}.get(_SPELLED.get(call.name, call.name), (-alpha, 1))
    if len(call.live) == 2:
        positive = min(signs) > 0 and all(m.positive for _, m in call.live)
        call.known = {"positive": positive}
        if positive or not book.treatment.positive:
            return call.run()
        terms = (signs[0] * first, signs[1] * second)  # copies: the sum may be written over the first
        value = call.run()
        out = _of_one_sign(book, call, value, lambda part: part(terms[0]) + part(terms[1]))
        return first.copy_(out) if value is first else out
    if book.treatment.positive:
        return passed(book, call, lost=True)
    behind = isinstance(first, Tensor) and book.mark(first) is not None
    constant, sign = (second, signs[1]) if behind else (first, signs[0])
    out = call.run()
    book.noted(out, sign * torch.as_tensor(constant, device=out.device).detach(), book.note(call), "constant")
    return out


def multiplied_and_added(book: Propagation, call: Call) -> Any:
    """``addmm`` and ``baddbmm``: a product, then a sum."""
    if "alpha" in call.named or "beta" in call.named:
        book.refuse(f"{call.name} with alpha or beta", call.place)
    base, left, right = call.args[:3]
    return book.operate(torch.add, (book.operate(torch.matmul, (left, right), {}, call.place), base), {}, call.place)


def iterated(book: Propagation, call: Call) -> Any:
    """A tensor taken apart by a loop."""
    return iter(book.operate(torch.unbind, (call.args[0],), {}, call.place))


def attention(book: Propagation, call: Call) -> Any:
    """Scaled dot-product attention, written out."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given, place = call.bound(*names), call.place
    query, key = given["query"], given["key"]
    if given["is_causal"] or call.named.get("enable_gqa"):
        book.refuse("scaled_dot_product_attention that is causal or grouped", place)
        return call.run()
    scale = call.named.get("scale") or query.shape[-1] ** -0.5
    turned = book.operate(Tensor.transpose, (key, -2, -1), {}, place)
    score = book.operate(torch.matmul, (query, turned), {}, place)
    score = book.operate(torch.mul, (score, scale), {}, place)
    mask = given["attn_mask"]
    if mask is not None and mask.dtype == torch.bool:
        score = book.operate(Tensor.masked_fill, (score, ~mask, float("-inf")), {}, place)
    elif mask is not None:
        score = book.operate(torch.add, (score, mask), {}, place)
    weights = book.operate(torch.softmax, (score, -1), {}, place)
    return book.operate(torch.matmul, (weights, given["value"]), {}, place)


def gated_linear(book: Propagation, call: Call) -> Any:
    """GLU: one half of the channels weighed by the sigmoid of the other."""
    x, axis = call.args[0], call.bound("input", "dim")["dim"]
    a, b = book.operate(torch.chunk, (x, 2, -1 if axis is None else axis), {}, call.place)
    return book.operate(torch.mul, (a, book.operate(torch.sigmoid, (b,), {}, call.place)), {}, call.place)


def _table(handler: Handler, names: str) -> dict[str, Handler]:
    return dict.fromkeys(names.split(), handler)


_SPELLED = {
    **dict.fromkeys(("__add__", "__radd__", "__iadd__"), "add"),
    **dict.fromkeys(("subtract", "__sub__", "__isub__"), "sub"),
}
_KEEP_SIGN = frozenset(("sum", "mean", *(f"{kind}avg_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3))))
_RANKED = "{0}1d {0}2d {0}3d"
_INDEXED = "{0}1d_with_indices {0}2d_with_indices {0}3d_with_indices"
HANDLERS: Mapping[str, Handler] = {
    **_table(
        cut,
        "view reshape flatten unflatten ravel permute transpose t swapaxes swapdims movedim moveaxis adjoint "
        "squeeze unsqueeze expand expand_as broadcast_to repeat repeat_interleave tile view_as reshape_as "
        "cat concat concatenate stack hstack vstack dstack split split_with_sizes chunk unbind tensor_split narrow "
        "select index_select gather take_along_dim masked_select __getitem__ contiguous clone to float double type "
        "type_as cpu cuda requires_grad alias pad roll flip fliplr flipud rot90 unfold pixel_shuffle pixel_unshuffle "
        "channel_shuffle dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout "
        "masked_fill where tril triu diagonal broadcast_tensors detach",
    ),
    **_table(written, "__setitem__ copy fill zero"),
    **_table(
        linear,
        "sum mean cumsum neg __neg__ fold interpolate upsample upsample_nearest upsample_bilinear trace diff "
        f"{_RANKED.format('avg_pool')} {_RANKED.format('adaptive_avg_pool')}",
    ),
    **_table(
        selected,
        f"amax amin max min maximum minimum {_RANKED.format('max_pool')} {_RANKED.format('adaptive_max_pool')} "
        f"{_RANKED.format('max_unpool')} {_INDEXED.format('max_pool')} {_INDEXED.format('adaptive_max_pool')}",
    ),
    **_table(convolution, f"{_RANKED.format('conv')} {' '.join(f'conv_transpose{n}d' for n in (1, 2, 3))}"),
    **_table(dense, "linear"),
    **_table(matmul, "matmul __matmul__ __rmatmul__ bmm mm mv dot"),
    **_table(einsum, "einsum"),
    **_table(multiplied_and_added, "addmm baddbmm"),
    **_table(added, "add __add__ __radd__ __iadd__ sub subtract __sub__ __rsub__ rsub __isub__"),
    **_table(scaled, "mul multiply __mul__ __rmul__ __imul__"),
    **_table(divided, "div divide true_divide __truediv__ __div__ __itruediv__ __rdiv__ __rtruediv__"),
    **_table(rectified, "relu"),
    **_table(sloped, "leaky_relu prelu rrelu"),
    **_table(
        gated,
        "gelu silu elu selu celu mish hardswish relu6 hardtanh clamp clamp_min clamp_max clip tanh softsign "
        "threshold softshrink hardshrink tanhshrink abs square pow __pow__ sqrt local_response_norm normalize",
    ),
    **_table(shifted, "softplus logsigmoid"),
    **_table(sigmoid, "sigmoid hardsigmoid"),
    **_table(softmax, "softmax"),
    **_table(statistic, "var std norm vector_norm"),
    **_table(batch_norm, "batch_norm"),
    **_table(instance_norm, "instance_norm"),
    **_table(group_norm, "group_norm"),
    **_table(layer_norm, "layer_norm"),
    **_table(rms_norm, "rms_norm"),
    **_table(attention, "scaled_dot_product_attention"),
    **_table(gated_linear, "glu"),
    **_table(iterated, "__iter__"),
}


@final
class Layerwise(Propagation):
    """Relevance by the tables of this module."""

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """See ``Propagation``."""
        return HANDLERS
