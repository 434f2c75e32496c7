"""A network run at a reference and at an image, operation by operation, so that gradients become multipliers.

At the reference each operation that is not linear notes what it was given. At the image it finds that note again, and
its gradient is the ratio of differences between the two (``pairs``). Functional, reused and in-place operations are
seen alike, whatever layout a tensor has, because operations are matched by their order and not by their module.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.core.errors import CannotDo
from pellucid.core.rules import Rulebook
from pellucid.explain.pairs import Pair, larger, largest, plus, pooled, product, quotient, softmax, standardized, unary

Fallback = Literal["refuse", "gradient"]
_Function = Callable[..., Any]
_Handler = Callable[[_Function, tuple[Any, ...], dict[str, Any]], Any]


def _named(names: str) -> frozenset[str]:
    return frozenset(names.split())


# linear in the image, or of no value at all: the gradient of torch is right
_LINEAR = _named("""
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear add sub subtract rsub neg negative
    radd iadd isub cat concat concatenate stack split chunk tensor_split unbind reshape view view_as flatten unflatten
    permute transpose swapaxes movedim moveaxis t squeeze unsqueeze expand expand_as repeat repeat_interleave tile roll
    flip rot90 narrow select index_select gather getitem setitem contiguous clone detach to float double half bfloat16
    type type_as cpu cuda mean sum nansum cumsum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample pad constant_pad_nd pixel_shuffle pixel_unshuffle
    channel_shuffle fold unfold unfold_copy dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout
    feature_alpha_dropout copy zero zeros_like ones_like empty_like full_like new_zeros new_ones new_full new_empty tril
    triu diagonal diag_embed embedding masked_fill masked_select index_add index_copy scatter scatter_add fill
    requires_grad lerp_scalar real imag atleast_1d atleast_2d atleast_3d broadcast_to swapdims hstack vstack dstack
    item tolist numpy get""")
_ELEMENTWISE = _named("""
    relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish softplus hardswish hardsigmoid hardtanh threshold
    hardshrink softshrink tanhshrink softsign sigmoid logsigmoid tanh exp exp2 expm1 log log2 log10 log1p sqrt rsqrt
    reciprocal square abs sin cos tan atan sinh cosh asinh erf erfc clamp clamp_min clamp_max clip pow ipow
    float_power""")


class Comparison:
    """The notes of one run at the reference, and the rules of a second run at the image.

    Args:
        method: name, for errors.
        fallback: what to do with an operation that has no rule: ``refuse``, or take its ``gradient`` and say so.
    """

    def __init__(self, method: str, fallback: Fallback) -> None:
        self._method, self._fallback = method, fallback
        self._notes: list[tuple[str, list[Tensor]]] = []
        self._next = 0
        self.without_rule: dict[str, None] = {}

    @property
    def at_reference(self) -> Rulebook:
        """Operations that note what they are given; those without a rule what they give."""
        self._notes.clear()
        return _Book(self._noting)

    @property
    def at_image(self) -> Rulebook:
        """Operations whose gradient is the multiplier from the reference."""
        self._next = 0
        return _Book(self._comparing)

    def _noting(self, operation: _Function, args: tuple[Any, ...], named: dict[str, Any], _place: str) -> Any:
        name = plain_name(operation)
        ruled = name in _HANDLERS
        # copies: an operation in place may change what was noted
        noted = [t.detach().clone() for t in _tensors((args, named))] if ruled else []
        out = operation(*args, **named)
        noted = noted if ruled else [t.detach().clone() for t in _tensors(out)]
        if any(t.is_floating_point() for t in noted):
            self._notes.append((name, noted))
        return out

    def _comparing(self, operation: _Function, args: tuple[Any, ...], named: dict[str, Any], place: str) -> Any:
        name = plain_name(operation)
        where = f"{name} (in layer {place})" if place else name
        if name not in _HANDLERS:
            return self._unknown(operation(*args, **named), name, where)
        given = _tensors((args, named))
        if not any(t.is_floating_point() for t in given):
            return operation(*args, **named)
        pairs, by_name = _paired((args, named), iter(self._noted(name, given, where)))
        out = _now(_HANDLERS[name](operation, pairs, by_name))
        if out is None:
            return self._refused(operation(*args, **named), where)
        return args[0].copy_(out) if _in_place(operation, args, named) else out

    def _unknown(self, given: Any, name: str, where: str) -> Any:
        """An operation without a rule is right only where what it gives does not depend on the image."""
        now = _tensors(given)
        if not any(t.is_floating_point() for t in now):
            return given
        then = self._noted(name, now, where)
        same = all(torch.equal(a.detach(), b) for a, b in zip(now, then, strict=True))
        return given if same else self._refused(given, where)

    def _refused(self, given: Any, where: str) -> Any:
        if self._fallback == "refuse":
            raise CannotDo(
                f"{self._method} has no rule for {where} as the network calls it",
                'pass fallback="gradient" to take its plain gradient (the values may then not add up), '
                "or use IntegratedGradients",
            )
        self.without_rule[where] = None
        return given

    def _noted(self, name: str, now: list[Tensor], where: str) -> list[Tensor]:
        known = self._next < len(self._notes) and self._notes[self._next][0] == name
        then = self._notes[self._next][1] if known else []
        if [t.shape for t in then] != [t.shape for t in now]:
            raise CannotDo(
                f"the network runs otherwise at the reference than at the image, from {where} on, so {self._method} "
                "cannot compare the two",
                "use IntegratedGradients, or a reference nearer to the image (a blurred copy)",
            )
        self._next += 1
        return then


@final
class _Book(Rulebook):
    """Every operation that is not linear, whatever its spelling (functional, method, in place)."""

    def __init__(self, operate: Callable[[_Function, tuple[Any, ...], dict[str, Any], str], Any]) -> None:
        self._operate = operate

    def begin(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return inputs

    def operate(self, operation: _Function, args: tuple[Any, ...], named: Mapping[str, Any], place: str) -> Any:
        if plain_name(operation) in _LINEAR:
            return operation(*args, **named)
        return self._operate(operation, args, dict(named), place)

    def finish(self, output: Tensor) -> Tensor:
        return output


def plain_name(function: _Function) -> str:
    """A function's name without the marks of its spellings: ``relu_`` is ``relu``, ``__mul__`` is ``mul``."""
    name = getattr(function, "__name__", str(function))
    return name.strip("_")


def _in_place(function: _Function, args: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    name = getattr(function, "__name__", "")
    if name.startswith("__"):
        return name.startswith("__i") and name != "__invert__"
    if name.endswith("_"):
        return True
    if inspect.isfunction(function) and "inplace" in inspect.signature(function).parameters:
        return bool(inspect.signature(function).bind(*args, **named).arguments.get("inplace", False))
    return False


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tuple(cast(dict[str, Any], tree).values())
    if isinstance(tree, tuple | list):
        return [t for part in cast(tuple[Any, ...], tree) for t in _tensors(part)]
    return []


def _paired(tree: Any, then: Iterator[Tensor]) -> Any:
    """The same arguments, tensors of real numbers in pairs."""
    if isinstance(tree, Tensor):
        before = next(then)
        return Pair(tree, before) if tree.is_floating_point() else tree
    if isinstance(tree, dict):
        return {k: _paired(v, then) for k, v in cast(dict[str, Any], tree).items()}
    if isinstance(tree, tuple | list):
        return tuple(_paired(v, then) for v in cast(tuple[Any, ...], tree))
    return tree


def _now(tree: Any) -> Any:
    if isinstance(tree, Pair):
        return tree.now
    return tuple(_now(v) for v in cast(tuple[Any, ...], tree)) if isinstance(tree, tuple) else tree


def _plain(tree: Any) -> Any:
    """Arguments that must be the same at both; None where one is not."""
    if isinstance(tree, Pair):
        return tree.then if tree.same else None
    return tree


# the rules: None where a call is of a form that none is known for ---------------------------------------------------


def _elementwise(function: _Function, args: tuple[Any, ...], named: dict[str, Any]) -> Pair | None:
    bound = [*args, *named.values()]
    x, rest = bound[0], bound[1:]
    if not isinstance(x, Pair) or any(isinstance(v, Pair) and not v.same for v in rest):
        return None
    others = tuple(_plain(v) for v in args[1:])
    by_name = {k: _plain(v) for k, v in named.items() if k != "input"}
    return unary(lambda t: function(t.clone(), *others, **by_name), x)


def _product(function: _Function, args: tuple[Any, ...], named: dict[str, Any]) -> Pair | None:
    if function is torch.einsum:
        equation, *rest = args
        operands = rest[0] if len(rest) == 1 and isinstance(rest[0], tuple) else tuple(rest)
        if len(operands) != 2:
            return None
        return product(lambda a, b: torch.einsum(equation, a, b), operands[0], operands[1])
    a, b = (*args, *named.values())[:2]
    out_of_place = torch.mul if plain_name(function) in _TIMES else function
    if not isinstance(b, Pair):
        return cast(Pair, a).linear(lambda t: out_of_place(t, b))
    if not isinstance(a, Pair):
        return b.linear(lambda t: out_of_place(t, a))
    return product(out_of_place, a, b)


_TIMES = frozenset({"mul", "multiply", "rmul", "imul"})
_MATRICES = frozenset({"matmul", "rmatmul", "bmm", "mm", "mv", "dot", "einsum"})
_DIVISIONS = frozenset({"div", "divide", "true_divide", "truediv", "itruediv", "rtruediv", "rdiv", "idiv"})


def _division(function: _Function, args: tuple[Any, ...], named: dict[str, Any]) -> Pair | None:
    if named.get("rounding_mode") is not None:
        return None
    a, b = (*args, *named.values())[:2]
    if plain_name(function) in ("rtruediv", "rdiv"):
        a, b = b, a
    if not isinstance(b, Pair):
        return cast(Pair, a).linear(lambda t: t / b)
    if not isinstance(a, Pair):
        return unary(torch.reciprocal, b).linear(lambda t: t * a)
    return quotient(a, b)


def _added_product(_function: _Function, args: tuple[Any, ...], named: dict[str, Any]) -> Pair | None:
    start, a, b = args[:3]
    if named.get("beta", 1) != 1 or named.get("alpha", 1) != 1:
        return None
    return plus(start, product(torch.matmul, a, b))


def _scaled(x: Pair, weight: Any, bias: Any, axis: int) -> Pair:
    """Times a weight and plus a bias per channel (or per element of the last axes)."""

    def change(t: Tensor) -> Tensor:
        shape = [1] * t.ndim
        if axis == 1:
            shape[1] = t.shape[1]
        for p, join in ((weight, torch.mul), (bias, torch.add)):
            if p is not None:
                t = join(t, p.then.view(shape) if axis == 1 else p.then)
        return t

    return x.linear(change)


def _arguments(function: _Function, args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    bound = inspect.signature(function).bind(*args, **named)
    bound.apply_defaults()
    return bound.arguments


def _norm(function: _Function, args: tuple[Any, ...], named: dict[str, Any]) -> Pair | None:
    if not inspect.isfunction(function):
        return None
    given = _arguments(function, args, named)
    x, weight, bias, eps = cast(Pair, given["input"]), given["weight"], given["bias"], given["eps"]
    name, axes = plain_name(function), range(x.now.ndim)
    if name == "layer_norm":
        count = len(given["normalized_shape"])
        return _scaled(standardized(x, tuple(axes[-count:]), eps), weight, bias, axis=-1)
    if name == "group_norm":
        grouped = x.linear(lambda t: t.reshape(len(t), given["num_groups"], -1))
        return _scaled(standardized(grouped, (2,), eps).linear(lambda t: t.view(x.now.shape)), weight, bias, axis=1)
    of_input = given["use_input_stats"] if name == "instance_norm" else given["training"]
    if of_input:
        dims = tuple(axes[2:]) if name == "instance_norm" else (0, *axes[2:])
        return _scaled(standardized(x, dims, eps), weight, bias, axis=1)
    mean, var = given["running_mean"], given["running_var"]
    running = Pair(mean.then, mean.then).linear(torch.neg), Pair(var.then, var.then)
    whitened = _scaled(_scaled(x, None, running[0], axis=1), running[1].linear(lambda t: (t + eps).rsqrt()), None, 1)
    return _scaled(whitened, weight, bias, axis=1)


def _softmax(function: _Function, args: tuple[Any, ...], named: dict[str, Any]) -> Pair | None:
    x = cast(Pair, args[0] if args else named["input"])
    dim = named.get("dim", args[1] if len(args) > 1 else None)
    if dim is None or named.get("dtype") is not None:
        return None
    shares = softmax(x, dim)
    return unary(torch.log, shares) if plain_name(function) == "log_softmax" else shares


def _attention(_function: _Function, args: tuple[Any, ...], named: dict[str, Any]) -> Pair | None:
    query, key, value, *rest = (*args, *(named.pop(k) for k in ("query", "key", "value") if k in named))
    options = dict(zip(("attn_mask", "dropout_p", "is_causal"), rest, strict=False)) | named
    mask = options.get("attn_mask")
    if options.get("is_causal") or options.get("enable_gqa") or options.get("dropout_p"):
        return None
    scale = options.get("scale") or query.now.shape[-1] ** -0.5
    logits = product(lambda q, k: q @ k.transpose(-2, -1) * scale, query, key)
    if isinstance(mask, Pair):
        logits = plus(logits, mask)
    elif mask is not None:
        logits = logits.linear(lambda t: t.masked_fill(~mask, float("-inf")))
    return product(torch.matmul, softmax(logits, -1), value)


def _pool(function: _Function, args: tuple[Any, ...], named: dict[str, Any]) -> Pair | None:
    adaptive = "adaptive" in plain_name(function)
    names = ("output_size",) if adaptive else ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    options = dict(zip(("input", *names, "return_indices"), args, strict=False)) | named
    if options.pop("return_indices", False):
        return None
    x = cast(Pair, options.pop("input"))
    flat = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)
    pools = flat if adaptive else (F.max_pool1d, F.max_pool2d, F.max_pool3d)
    pool = pools[x.now.ndim - 3]
    return pooled(lambda t: pool(t, **options, return_indices=True), x)


def _extreme(function: _Function, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """max, min, amax, amin, maximum, minimum, in each of their forms."""
    name, (x, *rest) = plain_name(function), args
    sign = -1.0 if "min" in name else 1.0
    other = rest[0] if rest else named.get("other")
    up = cast(Pair, x).linear(lambda t: t * sign)
    if isinstance(other, Pair):
        return larger(up, other.linear(lambda t: t * sign)).linear(lambda t: t * sign)
    dims = rest[0] if rest else named.get("dim")
    keepdim = rest[1] if len(rest) > 1 else named.get("keepdim", False)
    if dims is None:
        return largest(up.linear(torch.flatten), 0, keepdim=False).linear(lambda t: t * sign)
    for dim in sorted((dims,) if isinstance(dims, int) else [d % up.now.ndim for d in dims], reverse=True):
        up = largest(up, dim, keepdim)
    values = up.linear(lambda t: t * sign)
    if name in ("amax", "amin"):
        return values
    places = function(x.now.detach(), *rest, **named).indices
    return torch.return_types.max((values.now, places)) if sign > 0 else torch.return_types.min((values.now, places))


_HANDLERS: Mapping[str, _Handler] = (
    dict.fromkeys(_ELEMENTWISE, _elementwise)
    | dict.fromkeys(_TIMES | _MATRICES, _product)
    | dict.fromkeys(_DIVISIONS, _division)
    | dict.fromkeys(("addmm", "baddbmm"), _added_product)
    | dict.fromkeys(("batch_norm", "instance_norm", "group_norm", "layer_norm"), _norm)
    | dict.fromkeys(("softmax", "log_softmax"), _softmax)
    | dict.fromkeys([f"{kind}max_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)], _pool)
    | dict.fromkeys(("max", "min", "amax", "amin", "maximum", "minimum"), _extreme)
    | {"scaled_dot_product_attention": _attention}
)
