"""What every operation does to coordinates: how the places of tokens are followed through a module."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.core.attention import CARRIES, Doors, Product, plain


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MOVES = _names(
    "reshape view flatten unflatten permute transpose movedim moveaxis swapaxes swapdims squeeze unsqueeze expand "
    "expand_as repeat repeat_interleave tile chunk split tensor_split unbind narrow select index_select __getitem__ "
    "roll flip rot90 stack clone detach to type_as float double half bfloat16 adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool1d "
    "max_pool2d max_pool3d boolean_dispatch interpolate unfold fold pixel_shuffle pixel_unshuffle view_as reshape_as "
    "t T mT __get__ gather as_strided"
)
_SAME = _names(
    "layer_norm batch_norm instance_norm group_norm rms_norm gelu relu relu6 silu mish elu selu leaky_relu prelu tanh "
    "sigmoid hardtanh hardswish softplus dropout dropout1d dropout2d dropout3d alpha_dropout log_softmax _softmax "
    "normalize contiguous neg sqrt exp log abs clamp clamp_min clamp_max masked_fill nan_to_num requires_grad_"
)
_MEANS = _names("mean sum amax amin var std nanmean logsumexp norm")
_PAIRS = _names("add sub mul div true_divide __add__ __radd__ __sub__ __mul__ __rmul__ __truediv__")
_FRESH = _names("zeros_like ones_like full_like rand_like randn_like empty_like new_zeros new_ones new_full")


class Place(Tensor):
    """The coordinate of every value; NaN: it lies nowhere in the image (a class token); infinite: it only fills up."""


class Weighing(Tensor):
    """The place of each query, carried by its attention weights."""


_PLACES = (Place, Weighing)


@dataclass(frozen=True, eq=False)
class Seen:
    """Coordinates of one attention: "axis*lead query" and "axis*lead key"."""

    rows: Tensor
    columns: Tensor


class Follow(Doors):
    """Replace every operation by what it does to coordinates."""

    mark = Weighing

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Seen] = []

    def soften(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The rows keep their places."""
        weighs = self.weighs(args, kwargs)
        if isinstance(args[0], _PLACES):  # not computed: it may be by far the largest tensor
            return args[0].as_subclass(Weighing if weighs else Place)
        out = func(*args, **kwargs)
        return torch.full_like(out, torch.nan).as_subclass(Weighing) if weighs else out

    def _multiply(self, found: Product, func: Any, args: Any, kwargs: Any) -> Any:
        """Note the tokens of an attention; the result lies where its queries do."""
        lead = torch.broadcast_shapes(found.weights.shape[:-2], found.values.shape[:-2])
        rows = self._rows(found.weights)
        columns = _mean(found.values, -1)
        columns = columns if isinstance(found.values, Place) else torch.full_like(columns, torch.nan)
        self.seen.append(Seen(rows.expand(*lead, -1), columns.expand(*lead, -1)))
        out = rows[..., None].expand(*lead, rows.shape[-1], found.values.shape[-1])
        return out.permute([found.order.index(i) for i in range(out.dim())]).as_subclass(Place)

    @staticmethod
    def _rows(weights: Tensor) -> Tensor:
        """Places of the queries; weights that hold those of the keys have queries that lie nowhere."""
        held = plain(weights)
        same = torch.isclose(held, held[..., :1], equal_nan=True).all(-1) if held.stride(-1) else True
        return torch.where(torch.as_tensor(same), held[..., 0], torch.nan)

    def _other(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Any other call, by its kind."""
        places = [a for a in _flat((args, kwargs)) if isinstance(a, _PLACES)]
        if not places:
            return func(*args, **kwargs)
        if name in _FRESH:
            return plain(func(*args, **kwargs))
        weighing = isinstance(places[0], Weighing)
        args = _unmixed(args) if any(isinstance(p, Weighing) for p in places) else args
        places = [p.as_subclass(Place) for p in places]
        out = self._moved(name, func, args, kwargs, places)
        weighing = weighing and isinstance(out, Tensor) and name in CARRIES
        return out.as_subclass(Weighing) if weighing else _marked(out)

    @staticmethod
    def _moved(name: str, func: Any, args: Any, kwargs: Any, places: list[Place]) -> Any:
        """Where the result of a call lies."""
        rule = _RULES.get(name)
        if rule is not None:
            return rule(*args, **kwargs)
        if name in _SAME or (name.endswith("_") and not name.endswith("__")) or name in ("__iadd__", "__imul__"):
            return args[0]
        if name in _MEANS:
            return _reduced(*args, **kwargs)
        if name in _MOVES:
            return torch.Tensor.reshape(*args) if name == "view" else func(*args, **kwargs)
        if name in _PAIRS:
            return _together(places, torch.broadcast_shapes(*(a.shape for a in args if isinstance(a, Tensor))))
        out = func(*args, **kwargs)
        return _together(places, out.shape) if isinstance(out, Tensor) and out.is_floating_point() else out


def _marked(out: Any) -> Any:
    """Places where the result holds real numbers."""
    if isinstance(out, Tensor):
        return out.as_subclass(Place) if out.is_floating_point() else plain(out)
    if isinstance(out, tuple | list) and any(isinstance(o, Tensor) for o in out):
        return type(out)(_marked(o) for o in out) if type(out) in (tuple, list) else tuple(_marked(o) for o in out)
    return out


def _unmixed(x: Any) -> Any:
    """One class of places: torch does not mix two."""
    if isinstance(x, Weighing):
        return x.as_subclass(Place)
    return type(x)(_unmixed(part) for part in x) if type(x) in (tuple, list) else x


def _flat(x: Any) -> list[Any]:
    if isinstance(x, dict):
        x = list(x.values())
    return [leaf for part in x for leaf in _flat(part)] if isinstance(x, tuple | list) else [x]


def _mean(x: Tensor, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """Mean of those that lie somewhere; filling stays filling."""
    x = plain(x)
    dims = (dim,) if isinstance(dim, int) else dim
    constant = tuple(d for d in dims if x.stride(d) == 0 and x.shape[d] > 0)
    for d in constant:
        x = x.narrow(d, 0, 1)  # an expanded axis: nothing to average
    found = x.isfinite()
    count = found.sum(dims, keepdim=keepdim)
    total = torch.where(found, x, 0).sum(dims, keepdim=keepdim)
    none = torch.where(x.isinf().any(dims[0], keepdim=True).sum(dims, keepdim=keepdim) > 0, torch.inf, torch.nan)
    return torch.where(count > 0, total / count.clamp_min(1), none)


def _reduced(x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    dims = tuple(range(x.dim())) if not isinstance(dim, int | tuple | list) else dim
    return _mean(x, tuple(dims) if isinstance(dims, list) else dims, keepdim)


def _together(places: Sequence[Tensor], shape: torch.Size) -> Tensor:
    """A sum, product or the like: where its operands of full size lie; a smaller one only modulates."""
    full = [plain(p) for p in places if p.shape == shape]
    if len(full) == 1:
        return full[0]
    if full:
        constant = [d for d in range(len(shape)) if all(p.stride(d) == 0 for p in full)]
        for d in constant:
            full = [p.narrow(d, 0, 1) for p in full]
        return _mean(torch.stack(full), 0).expand(shape)
    x = plain(places[0])
    fits = x.dim() <= len(shape) and all(n in (1, m) for n, m in zip(x.shape[::-1], shape[::-1], strict=False))
    return x.expand(shape) if fits else x.new_full((), torch.nan).expand(shape)


def _linear(x: Tensor, weight: Tensor, *_: Any, **__: Any) -> Tensor:
    if not isinstance(x, Place):
        return torch.full((*x.shape[:-1], len(weight)), torch.nan)
    y = _mean(x, -1)
    return y[..., None].expand(*y.shape, len(weight))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A product of matrices: the left factor's rows, or the right one's columns."""
    shape = (*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    if isinstance(a, Place):
        return _mean(a, -1, keepdim=True).expand(shape)
    return _mean(b, -2, keepdim=True).expand(shape)


def _einsum(equation: str, *operands: Any) -> Tensor:
    """As a product: places come from the first operand that has them."""
    tensors = operands[0] if isinstance(operands[0], list | tuple) else operands
    terms, _, out = equation.replace(" ", "").partition("->")
    sizes = {i: n for t, x in zip(terms.split(","), tensors, strict=True) for i, n in zip(t, x.shape, strict=True)}
    term, x = next((t, x) for t, x in zip(terms.split(","), tensors, strict=True) if isinstance(x, Place))
    gone = tuple(n for n, i in enumerate(term) if i not in out)
    kept = [i for i in term if i in out]
    y = _mean(x, gone) if gone else plain(x)
    y = y.permute([kept.index(i) for i in out if i in kept])
    return y[tuple(slice(None) if i in kept else None for i in out)].expand([sizes[i] for i in out])


def _convolution(transposed: bool) -> Callable[..., Tensor]:
    """The mean place under the kernel."""

    def convolution(x: Tensor, weight: Tensor, _bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        kwargs.pop("bias", None)
        rank = weight.dim() - 2
        calls = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d) if transposed else _CONVOLUTIONS
        names = ("stride", "padding", *(("output_padding", "groups", "dilation") if transposed else ("dilation",)))
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        groups = given.pop("groups", 1) if transposed else 1
        given.pop("groups", None)
        y = _mean(x, 1, keepdim=True)
        ones = torch.ones(1, 1, *weight.shape[2:], dtype=y.dtype, device=y.device)
        found = y.isfinite()
        total = calls[rank - 1](torch.where(found, y, 0), ones, **given)
        count = calls[rank - 1](found.to(y.dtype), ones, **given)
        y = torch.where(count > 0, total / count.clamp_min(1), torch.nan)
        return y.expand(-1, weight.shape[1] * groups if transposed else len(weight), *y.shape[2:])

    return convolution


def _joined(parts: Sequence[Tensor], dim: int = 0, **_: Any) -> Tensor:
    """Put together; along channels, where every part is the same in each, they are averaged."""
    held = [p if isinstance(p, Place) else torch.full_like(p, torch.nan) for p in parts]
    held = [plain(p) for p in held if p.dim() == held[0].dim()]
    if all(isinstance(p, Place) and (p.stride(dim) == 0 or p.shape[dim] == 1) for p in parts):
        count = sum(p.shape[dim] for p in held)
        shape = list(held[0].shape)
        shape[dim] = count
        return _mean(torch.stack([p.narrow(dim, 0, 1) for p in held]), 0).expand(shape)
    return torch.cat(held, dim)


def _padded(x: Tensor, pad: Any, mode: str = "constant", _value: Any = None, **_: Any) -> Tensor:
    """What is added only fills up."""
    return F.pad(plain(x), pad, mode, torch.inf) if mode == "constant" else F.pad(plain(x), pad, mode)


_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_RULES: dict[str, Callable[..., Any]] = {
    "linear": _linear,
    "matmul": _product,
    "__matmul__": _product,
    "bmm": _product,
    "einsum": _einsum,
    "cat": _joined,
    "concat": _joined,
    "pad": _padded,
    **{f"conv{n}d": _convolution(False) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _convolution(True) for n in (1, 2, 3)},
}
