"""Relevance through normalizations by statistics of the input itself: the deviation is a constant, the mean is not.

Then the operation is linear but for its shift, and relevance is kept.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor

from pellucid.explain.propagation import Call, Propagation
from pellucid.explain.relay import normalized
from pellucid.explain.relevance_affine import batch_norm
from pellucid.explain.relevance_elementwise import passed

_EPSILON = 1e-5  # torch's own default


def instance_norm(book: Propagation, call: Call) -> Any:
    """Each channel of each item by its own mean and deviation."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    given = call.bound(*names)
    if given["use_input_stats"] is False:
        call.args, call.named = [given[n] for n in names[:5]], {"training": False, "eps": given["eps"] or _EPSILON}
        call.operation = torch.nn.functional.batch_norm
        return batch_norm(book, call)
    book.opened(call)
    x = call.live[0][0]
    channel = (1, -1, *(1,) * (x.ndim - 2))
    return _normalized(book, call, given, (x.shape[0], x.shape[1], -1), channel)


def group_norm(book: Propagation, call: Call) -> Any:
    """Groups of channels of each item."""
    given = call.bound("input", "num_groups", "weight", "bias", "eps")
    book.opened(call)
    x = call.live[0][0]
    return _normalized(book, call, given, (x.shape[0], given["num_groups"], -1), (1, -1, *(1,) * (x.ndim - 2)))


def layer_norm(book: Propagation, call: Call) -> Any:
    """The last axes of each item."""
    given = call.bound("input", "normalized_shape", "weight", "bias", "eps")
    book.opened(call)
    x = call.live[0][0]
    shape = tuple(given["normalized_shape"])
    return _normalized(book, call, given, (x.numel() // prod(shape), -1), shape)


def rms_norm(book: Propagation, call: Call) -> Any:
    """The last axes of each item by their root mean square."""
    given = call.bound("input", "normalized_shape", "weight", "eps")
    book.opened(call)
    x = call.live[0][0]
    with torch.no_grad():
        axes = tuple(range(-len(given["normalized_shape"]), 0))
        epsilon = torch.finfo(x.dtype).eps if given["eps"] is None else given["eps"]
        root = (x.square().mean(axes, keepdim=True) + epsilon).rsqrt()
    return x * (root if given["weight"] is None else root * given["weight"].detach())


def _normalized(
    book: Propagation, call: Call, given: dict[str, Any], rows: tuple[int, ...], channel: tuple[int, ...]
) -> Tensor:
    if book.treatment.positive:
        return passed(book, call, lost=True)
    x, gain, shift = call.live[0][0], given["weight"], given["bias"]
    with torch.no_grad():
        value = call.run()
        grouped = x.reshape(rows)
        variance = grouped.var(-1, unbiased=False, keepdim=True)
        root = (variance + (_EPSILON if given["eps"] is None else given["eps"])).rsqrt()
        scale = root.expand_as(grouped).reshape(x.shape)
        scale = scale if gain is None else scale * gain.view(channel)
    out = normalized(x, value, scale, rows)
    if shift is not None:
        book.noted(out, shift.view(channel), book.note(call), "shift of a norm")
    return out
