"""What attention gates of a convolutional network do: no picture stands without the effect of taking the gate away."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family, Level
from pellucid.core.errors import CannotDo, UnknownLayer
from pellucid.core.explainer import LayerExplainer
from pellucid.core.explanation import Attribution
from pellucid.core.layers import LayerName, LayerShape
from pellucid.core.model import Inputs, Model
from pellucid.core.probe import Need, Probe
from pellucid.core.space import axes
from pellucid.explain.cells import layer_map, wide

_KINDS = ("Sigmoid", "Hardsigmoid")
_LITTLE = 0.05  # of the score: an effect below it is called small


def _is_over_places(shape: LayerShape, rank: int) -> bool:
    return shape.extent(rank) > 1 and shape.shape[1] == 1


def _is_over_channels(shape: LayerShape, _rank: int) -> bool:
    return len(shape.shape) >= 2 and shape.shape[1] > 1 and prod(shape.shape[2:]) == 1


def _gate(
    model: Model, layer: str | None, inputs: Inputs, fits: Callable[[LayerShape, int], bool], what: str
) -> LayerShape:
    """The gate of this name, or the last one.

    Raises:
        CannotDo: the model has no such gate.
        UnknownLayer: the layer is none.
    """
    shapes = model.layers(inputs)
    if layer is not None:
        found = model.find(layer, inputs)
        if not fits(found, model.rank):
            raise UnknownLayer(f"layer {layer!r} of shape {found.shape} is no gate over {what}", "leave layer out")
        return found
    inner = [s for s in shapes if s.kind in _KINDS and fits(s, model.rank) and not _is_last(s, shapes)]
    if not inner:
        raise CannotDo(
            f"the model has no attention gate over {what} (a sigmoid that multiplies features)",
            "name the gate with layer=, or use GradCAM",
        )
    return inner[-1]


def _is_last(shape: LayerShape, shapes: tuple[LayerShape, ...]) -> bool:
    """Whether nothing but the modules that hold it comes after: then it is the model's output."""
    path = LayerName.parse(shape.name).path
    later = shapes[shapes.index(shape) + 1 :]
    return all(path.startswith(LayerName.parse(s.name).path + ".") for s in later)


def _said(probe: Probe, effect: Tensor, what: str) -> str:
    """The effect beside the picture, in words."""
    score = probe.baseline_score
    parts = [f"{float(s):.3g} to {float(s - e):.3g}" for s, e in zip(score, effect, strict=True)]
    small = bool((effect.abs() < _LITTLE * score.abs()).any())
    tail = ": the gate's preferences hardly matter here, whatever its picture shows" if small else ""
    return f"with the gate replaced by its mean over {what} the score goes from {'; '.join(parts)}{tail}"


@dataclass(frozen=True)
class SpatialGate(LayerExplainer):
    """Which places an attention gate of the network lets through, with the effect that the gate has.

    The gate's values (0 closed, 1 open), upsampled. Beside them, as a warning that no picture is shown without: how
    the score changes when the gate is replaced by its mean over places. An open gate says that something passed, not
    that it was used or for what; the gate is the same for every class of a segmentation, and has no sign.

    Returns:
        Attribution without negative values: gate values per cell.

    Raises:
        CannotDo: the model has no gate over places.
        UnknownLayer: the layer is none.

    Source:
        oktay2018attention; the ablation is ours. The review's section 4.17 shows such maps without it.

    Example:
        >>> from pellucid.testing import small_model
        >>> model, x, target = small_model(2, "classification", attentive=True)
        >>> method = SpatialGate()
        >>> a = method(Probe(model, x, target, method.needs(model, {"image": x})))
        >>> a.warnings[0][:44]
        'with the gate replaced by its mean over plac'
    """

    card: ClassVar[Card] = Card(
        family=Family.ATTENTION,
        shows="which places an attention gate lets through, with the effect of taking the gate away",
        caution="an open gate says that something passed, not that it was used; no sign, the same for every class",
        equation=r"\sigma(g), \quad S - S(g \to \bar g)",
        source="oktay2018attention",
        cost_note="one forward with the gate replaced by its mean",
        asks=frozenset({Ask.OUTPUT, Ask.ACTIVATION}),
        signed=False,
        level=Level.FEATURE_MAP,
    )

    def needs(self, model: Model, inputs: Inputs) -> frozenset[Need]:
        """See ``Explainer.needs``."""
        name = _gate(model, self.layer, inputs, _is_over_places, "places").name
        return frozenset({(Ask.OUTPUT, None), (Ask.ACTIVATION, name)})

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        return Cost(1)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        name = _gate(probe.model, self.layer, probe.inputs, _is_over_places, "places").name
        gate = wide(probe.activation(name))
        closed = probe.run(edits={name: lambda g: g.mean(axes(g), keepdim=True).expand_as(g)})
        effect = probe.baseline_score - closed.score[probe.aim]
        return layer_map(probe, gate, False, "gate value", [_said(probe, effect, "places")])


@dataclass(frozen=True)
class ChannelGate(LayerExplainer):
    """Where a gate over channels (squeeze and excitation) moves the score, by preferring some channels to others.

    ``sum_c dS/dy_c (g_c - mean g) A_c`` with the gated features ``y_c = g_c A_c``: to first order what each cell gains
    or loses because the gate is not the same for all channels. The cells sum to the gate's effect if the network is
    linear behind it; the effect measured by replacing the gate by its mean stands beside the map, always.

    Returns:
        Signed attribution in the target's unit per cell.

    Raises:
        CannotDo: the model has no gate over channels, or what it multiplies is not seen.
        UnknownLayer: the layer is none.

    Source:
        hu2018squeeze for the gate. The map and the ablation are ours; the review's section 4.17 has neither.

    Example:
        >>> from pellucid.testing import small_model
        >>> model, x, target = small_model(2, "classification", attentive=True)
        >>> method = ChannelGate()
        >>> a = method(Probe(model, x, target, method.needs(model, {"image": x})))
        >>> a.signed, a.cell
        (True, (4.0, 4.0))
    """

    card: ClassVar[Card] = Card(
        family=Family.ATTENTION,
        shows="where a gate over channels moves the score, with the effect of taking the gate away",
        caution="a linear estimate at one layer; the gate's own values name no place and no class",
        equation=r"\sum_c \frac{\partial S}{\partial y_c}\, (g_c - \bar g)\, A_c",
        source="hu2018squeeze",
        cost_note="one forward and backward, and one forward with the gate replaced by its mean",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        level=Level.FEATURE_MAP,
    )

    def needs(self, model: Model, inputs: Inputs) -> frozenset[Need]:
        """See ``Explainer.needs``."""
        _gate(model, self.layer, inputs, _is_over_channels, "channels")
        return frozenset({(Ask.OUTPUT, None)})

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        return Cost(2, 1)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        name = _gate(probe.model, self.layer, probe.inputs, _is_over_channels, "channels").name
        watch = _Product()
        rules = dict.fromkeys((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__), watch.multiply)
        probe.run(want=frozenset({Ask.INPUT_GRADIENT}), edits={name: watch.gated}, rules=rules)
        level = probe.run(edits={name: lambda g: g.mean(1, keepdim=True).expand_as(g)})
        effect = probe.baseline_score - level.score[probe.aim]
        cells = watch.cells(name)
        estimate = cells.flatten(1).sum(1)
        said = _said(probe, effect, "channels")
        off = ", ".join(f"{float(v):.3g}" for v in estimate)
        return layer_map(probe, cells, True, None, [said, f"the cells of this linear estimate sum to {off}"])


class _Product:
    """Find the features that a gate multiplies, and the target's gradient there."""

    def __init__(self) -> None:
        self._gate: Tensor | None = None
        self._features: Tensor | None = None
        self._slope: Tensor | None = None

    def gated(self, gate: Tensor) -> Tensor:
        """Remember the gate as it passes."""
        self._gate = gate.detach()
        return gate

    def multiply(self, *args: Any, **kwargs: Any) -> Any:
        """A product; the one with the gate is watched."""
        out = torch.mul(*args, **kwargs)
        a, b = args[:2] if len(args) > 1 else (args[0], None)
        for features, factor in ((a, b), (b, a)):
            if self._features is None and self._is_gate(factor, features) and out.requires_grad:
                self._features = features.detach()
                out.register_hook(self._keep)
        return out

    def _keep(self, slope: Tensor) -> None:
        self._slope = slope.detach()

    def _is_gate(self, factor: Any, features: Any) -> bool:
        gate = self._gate
        if gate is None or not isinstance(factor, Tensor) or not isinstance(features, Tensor):
            return False
        same = factor.numel() == gate.numel() and features.ndim == factor.ndim > 2
        return same and features.shape[:2] == gate.shape[:2] and torch.equal(factor.detach().flatten(), gate.flatten())

    def cells(self, name: str) -> Tensor:
        """What each place gains by the gate's preferences: "batch 1 *cells".

        Raises:
            CannotDo: no product of the gate with features was seen.
        """
        if self._features is None or self._slope is None or self._gate is None:
            raise CannotDo(f"what the gate {name!r} multiplies was not seen", "name another gate with layer=")
        gate = wide(self._gate).flatten(1)
        over = gate - gate.mean(1, keepdim=True)
        moved = wide(self._slope) * wide(self._features)
        return torch.einsum("bc,bc...->b...", over, moved).unsqueeze(1)
