"""Methods that change the backward pass at every ReLU: sharp pictures of what the network detects, for any class."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family
from pellucid.core.errors import CannotDo
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.probe import Probe

_Function = Callable[..., Any]
_UNIT = "a.u. (rectified gradient)"


def _spellings(*names: str) -> frozenset[_Function]:
    """Every function and tensor method of torch of these names, and its in-place form: each arrives apart."""
    both = [form for name in names for form in (name, f"{name}_")]
    return frozenset(f for home in (torch, F, Tensor) for name in both if (f := getattr(home, name, None)) is not None)


# clip, clamp, threshold and hardtanh are a ReLU only where they cut at zero
_MAYBE = _spellings("relu", "relu6", "threshold", "clamp", "clamp_min", "clip", "hardtanh")
_LEAKY = _spellings("leaky_relu", "prelu", "rrelu")
_SMOOTH = _spellings("gelu", "silu", "elu", "selu", "celu", "softplus", "mish", "hardswish")
_GATES = _spellings("sigmoid", "tanh", "hardsigmoid", "glu")


@dataclass(frozen=True)
class GuidedBackprop(Explainer):
    """Fine structures that excite the network: the gradient, cut to its positive part at every ReLU on the way back.

    ``R_in = g * 1[x > 0] * 1[g > 0]`` at each ReLU (functional, in place and reused ones too), the plain gradient
    elsewhere. It is close to an edge detector: the picture hardly changes when the weights are made random or another
    class is explained. For LeakyReLU and PReLU: the positive part of g times the local slope, with a warning.

    Returns:
        Signed values without a unit; channels are summed.

    Raises:
        CannotDo: the network calls no ReLU, or a smooth activation (GELU, SiLU ...), for which it is not defined.

    Source:
        springenberg2015striving.

    Example:
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU(), torch.nn.Linear(16, 2)))
        >>> a = GuidedBackprop()(Probe(model, -torch.rand(1, 1, 4, 4), ClassScore(1)))
        >>> float(a.maps["image"].abs().max())
        0.0
    """

    card: ClassVar[Card] = Card(
        family=Family.GRADIENT,
        shows="fine structures that excite the network's units on the way to the score",
        caution="hardly depends on the class or on what was learned (it fails parameter randomization): close to an "
        "edge detector, so never evidence of where the model looked",
        equation=r"R^{(l)} = 1[x^{(l)}>0]\,1[R^{(l+1)}>0]\,R^{(l+1)}",
        source="springenberg2015striving",
        cost_note="one forward and backward with changed ReLUs",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
    )

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        return Cost(1, 1)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        return _answer(probe, _guided, self.name)


@dataclass(frozen=True)
class Deconvolution(Explainer):
    """Fine structures that would excite the network: the score sent back through ReLUs that ignore the image.

    ``R_in = g * 1[g > 0]`` at each ReLU, whatever its input was; the plain gradient elsewhere, which is transposed
    convolution and unpooling at the maxima. Without max pooling the picture depends little on the image, and it hardly
    changes when the weights are made random or another class is explained.

    Returns:
        Signed values without a unit; channels are summed.

    Raises:
        CannotDo: the network calls no ReLU, or a smooth activation (GELU, SiLU ...), for which it is not defined.

    Source:
        zeiler2014visualizing.

    Example:
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> layer = torch.nn.Linear(16, 2)
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU(), layer))
        >>> a = Deconvolution()(Probe(model, -torch.rand(1, 1, 4, 4), ClassScore(1)))
        >>> torch.equal(a.maps["image"].flatten(), layer.weight[1].detach().clamp(min=0))
        True
    """

    card: ClassVar[Card] = Card(
        family=Family.GRADIENT,
        shows="fine structures that would excite the network's units on the way to the score",
        caution="hardly depends on the class, on what was learned and, without max pooling, on the image itself: "
        "never evidence of where the model looked",
        equation=r"R^{(l)} = 1[R^{(l+1)}>0]\,R^{(l+1)}",
        source="zeiler2014visualizing",
        cost_note="one forward and backward with changed ReLUs",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
    )

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        return Cost(1, 1)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        return _answer(probe, _deconvolved, self.name)


@dataclass(frozen=True, eq=False)
class Rectified:
    """A gradient by changed ReLUs.

    Args:
        gradient: by input.
        warnings: where the network goes beyond what the paper defines.
    """

    gradient: Mapping[str, Tensor]
    warnings: tuple[str, ...]


def guided_gradient(probe: Probe) -> Mapping[str, Tensor]:
    """The guided gradient of the probe's target, by input: one own forward and backward.

    Raises:
        CannotDo: the network calls no ReLU, or a smooth activation.
    """
    return guided(probe).gradient


def guided(probe: Probe) -> Rectified:
    """The guided gradient with its warnings.

    Raises:
        CannotDo: the network calls no ReLU, or a smooth activation.
    """
    return _rectified(probe, _guided, "GuidedBackprop")


# both work on a copy: the input may be a view, and what is done to one in place reaches its base by copy_ alone
_Change = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]


def _guided(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """A ReLU that takes only positive gradients; its own backward then masks (or slopes) them."""
    out = function(x.clone())
    out.register_hook(_positive)
    return out


def _deconvolved(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """A ReLU whose backward does not know its input."""
    return _Ignoring.apply(x, function)


class _Ignoring(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(x.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004 -- the signature is torch's
        return _positive(gradients[0]), None


def _positive(gradient: Tensor) -> Tensor:
    return gradient.clamp(min=0)


def _answer(probe: Probe, change: _Change, method: str) -> Attribution:
    found = _rectified(probe, change, method)
    return Attribution(
        maps=found.gradient, unit=_UNIT, signed=True, cell=(1.0,) * probe.grid.rank, warnings=found.warnings
    )


def _rectified(probe: Probe, change: _Change, method: str) -> Rectified:
    met = Counter[str]()
    rules: dict[_Function, _Function] = {f: _rule(f, change, met, "relu") for f in _MAYBE}
    rules |= {f: _rule(f, change, met, "leaky") for f in _LEAKY}
    rules |= {f: _noted(f, met) for f in _GATES}
    rules |= {f: _refusal(f, method) for f in _SMOOTH}
    done = probe.run(want=frozenset({Ask.INPUT_GRADIENT}), rules=rules)
    if not met["relu"] + met["leaky"]:
        raise CannotDo(
            f"{method} changes the gradient at ReLUs, and this network calls none between the image and the score",
            "use Saliency or IntegratedGradients",
        )
    return Rectified(done.input_gradient[probe.aim], tuple(_warnings(met, method)))


def _warnings(met: Counter[str], method: str) -> Iterable[str]:
    if met["leaky"]:
        yield f"{method} is defined for ReLU; this network has LeakyReLU or PReLU ({met['leaky']} calls), treated alike"
    if met["gate"]:
        yield (
            f"{method} is defined for ReLU; sigmoid, tanh and their like ({met['gate']} calls) pass the plain gradient"
        )


def _rule(function: _Function, change: _Change, met: Counter[str], kind: str) -> _Function:
    """A rectifier with a changed backward; in place if ``function`` is."""

    def rule(*given: Any, **named: Any) -> Any:
        x, rest, named = _parted(given, named)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return function(x, *rest, **named)
        if kind == "relu" and not _cuts_at_zero(function, rest, named):
            return function(x, *rest, **named)
        met[kind] += 1
        in_place = False

        def value(t: Tensor) -> Tensor:
            nonlocal in_place
            out = function(t, *rest, **named)
            in_place = out.data_ptr() == t.data_ptr()  # a subclass of Tensor may return another object
            return out

        out = change(x, value)
        return x.copy_(out) if in_place else out

    return rule


def _cuts_at_zero(function: _Function, rest: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    """Whether everything below zero becomes zero: asked of the function itself, in whatever spelling it was called."""
    if any(isinstance(v, Tensor) for v in (*rest, *named.values())):
        return False
    below = function(torch.tensor([-1.0, -1e-3]), *rest, **named)
    return not bool(below.any())


def _noted(function: _Function, met: Counter[str]) -> _Function:
    def rule(*given: Any, **named: Any) -> Any:
        x, rest, named = _parted(given, named)
        met["gate"] += int(torch.is_grad_enabled() and x.requires_grad)
        return function(x, *rest, **named)

    return rule


def _refusal(function: _Function, method: str) -> _Function:
    name = getattr(function, "__name__", str(function)).rstrip("_")

    def rule(*_given: Any, **_named: Any) -> Any:
        raise CannotDo(
            f"{method} is defined for ReLU, and this network calls {name}, whose gradient has no on and off to cut by",
            "use SmoothGrad or IntegratedGradients",
        )

    return rule


def _parted(given: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The tensor, the other positional arguments and those by name: the tensor may come as ``input=``."""
    if given:
        return given[0], given[1:], dict(named)
    return named["input"], (), {k: v for k, v in named.items() if k != "input"}
