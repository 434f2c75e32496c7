"""How far the map moves relative to how far the input, the output or the representation moves."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.card import Ask, Cost, MetricCard, Property
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.metric import Score
from pellucid.core.probe import Probe
from pellucid.core.sweep import Again, Asking, Moved
from pellucid.metrics.robustness.noise import (
    Bank,
    BoxNoise,
    Seen,
    broken,
    difference,
    entries,
    moved_by,
    same_decision,
    tabled,
)

_ALL_CHANGED = "every noisy copy changes the decision, so none may be compared"
_Length = Callable[[Again], Float[Tensor, " batch"]]


@dataclass(frozen=True)
class _Relative(BoxNoise, ABC, abstract=""):
    """The largest relative change of the map for the change of something else, over copies of the same decision."""

    least: Annotated[float, "share of the largest value, below which a value is zero and has no relative change"] = 1e-3
    floor: Annotated[float, "smallest change that is divided by"] = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.least < 1 or not self.floor > 0:
            raise BadOption(
                f"expected a least share within [0, 1) and a floor above 0, got {self.least} and {self.floor}",
                "0.001 and 1e-6 are the defaults",
            )

    @abstractmethod
    def _length(self, probe: Probe) -> tuple[_Length, tuple[str, ...]]:
        """What gives the change that is divided by, and the layers it reads."""

    def _scored(self, probe: Probe, maps: Tensor, bank: Bank) -> Asking:
        here, (length, layers) = maps.flatten(1), self._length(probe)

        def reduce(again: Again) -> Seen:
            change = relative_change(difference(probe, again, maps), here, self.least)
            return Seen(change / length(again).clamp_min(self.floor), same_decision(probe, again.output))

        (found,) = yield (Moved(lambda: bank.inputs(probe), reduce, layers, bank.keys(probe)),)
        ratios, same, detail = tabled(found, "ratios")
        kept = torch.where(same, ratios, -torch.inf)  # a copy of another decision is left out, whatever its map
        nothing = ~same.any(0)
        values = torch.where(nothing, torch.nan, kept.nan_to_num(torch.nan, torch.nan, -torch.inf).amax(0))
        reasons = tuple(
            _ALL_CHANGED if none else said
            for none, said in zip(nothing.tolist(), broken(torch.where(same, ratios, 0.0)), strict=True)
        )
        detail |= {"zeros of the map left out": _zeros(here, self.least).double().mean(1).tolist()} | bank.report(probe)
        return Score(self.name, values, reasons, self.settings(), detail)


def relative_change(change: Float[Tensor, "batch entry"], here: Float[Tensor, "batch entry"], least: float) -> Tensor:
    """Root mean square of the change of each entry relative to the entry, over those that are not zero.

    A mean, not a sum: the number of entries of a map and of an image with several channels differ.
    """
    left_out = _zeros(here, least)
    part = torch.where(left_out, 0.0, change / torch.where(left_out, 1.0, here))
    return (part.square().sum(1) / (~left_out).sum(1).clamp_min(1)).sqrt()


def _zeros(values: Float[Tensor, "batch entry"], least: float) -> Bool[Tensor, "batch entry"]:
    """Where a value is so small that a change relative to it means nothing."""
    return values.abs() <= values.abs().amax(1, keepdim=True) * least


@dataclass(frozen=True)
class RelativeInputStability(_Relative):
    """How far the map moves at worst, relative to how far the image moves, each voxel relative to itself.

    ``max over e of rms((A(x + e) - A(x)) / A(x)) / rms(e / x)``, over noisy copies (of both signs) that leave the
    decision as it is. Voxels where the map is zero are left out, so is the image's. Values near zero weigh most, and
    the image's depend on where the network's zero of intensity lies.

    Returns:
        Score from 0, lower is more stable; undefined where every copy changes the decision.

    Raises:
        BadOption: an option outside its range.

    Source:
        agarwal2022rethinking, with means for sums.

    Example:
        >>> RelativeInputStability().settings()["floor"]
        1e-06
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.ROBUSTNESS,
        shows="how far the map moves at worst, relative to how far the image moves",
        caution="values near zero weigh most; depends on where the network's zero of intensity lies",
        equation=r"\max_e\, \mathrm{rms}\left(\frac{A(x+e)-A(x)}{A(x)}\right) / \mathrm{rms}\left(\frac{e}{x}\right)",
        source="agarwal2022rethinking",
        cost_note="one more explanation per noisy copy, shared by all metrics of the same noise",
        direction="lower",
        interval="0 to any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def _length(self, probe: Probe) -> tuple[_Length, tuple[str, ...]]:
        here = entries(probe)
        return lambda again: relative_change(moved_by(probe, again.inputs), here, self.least), ()


@dataclass(frozen=True)
class RelativeOutputStability(_Relative):
    """How far the map moves at worst, relative to how far the model's output moves.

    ``max over e of rms((A(x + e) - A(x)) / A(x)) / rms(h(x + e) - h(x))`` with the head h (logits), over noisy copies
    of the same decision. Large where the output hardly moves, whatever the map does; it has the unit of one over the
    head, so compare maps of one model only.

    Returns:
        Score from 0, lower is more stable; undefined where every copy changes the decision.

    Raises:
        BadOption: an option outside its range.

    Source:
        agarwal2022rethinking, with means for sums.

    Example:
        >>> RelativeOutputStability().card.unit
        '1 per unit of the head'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.ROBUSTNESS,
        shows="how far the map moves at worst, relative to how far the model's output moves",
        caution="large where the output hardly moves; values near zero weigh most",
        equation=r"\max_e\, \mathrm{rms}\left(\frac{A(x+e)-A(x)}{A(x)}\right) / \mathrm{rms}(h(x+e)-h(x))",
        source="agarwal2022rethinking",
        cost_note="one more explanation per noisy copy, shared by all metrics of the same noise",
        direction="lower",
        unit="1 per unit of the head",
        interval="0 to any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def _length(self, probe: Probe) -> tuple[_Length, tuple[str, ...]]:
        def length(again: Again) -> Tensor:
            return (again.output - probe.output).flatten(1).cpu().double().square().mean(1).sqrt()

        return length, ()


@dataclass(frozen=True)
class RelativeRepresentationStability(_Relative):
    """How far the map moves at worst, relative to how far a layer's activation moves, each entry relative to itself.

    ``max over e of rms((A(x + e) - A(x)) / A(x)) / rms((L(x + e) - L(x)) / L(x))`` with the activation L of a layer,
    over noisy copies of the same decision. Zeros of the map and of the activation are left out; values near zero weigh
    most, and another layer gives another number.

    Returns:
        Score from 0, lower is more stable; undefined where every copy changes the decision or no layer can be read.

    Raises:
        BadOption: an option outside its range.
        UnknownLayer: the model has no such layer.

    Source:
        agarwal2022rethinking, with means for sums.

    Example:
        >>> RelativeRepresentationStability(layer="body").settings()["layer"]
        'body'
    """

    layer: Annotated[str | None, "whose activation is the representation; None: the model's default"] = None

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.ROBUSTNESS,
        shows="how far the map moves at worst, relative to how far the model's representation moves",
        caution="another layer gives another number; values near zero weigh most",
        equation=r"\max_e\, \mathrm{rms}\left(\frac{A(x+e)-A(x)}{A(x)}\right) / "
        r"\mathrm{rms}\left(\frac{L(x+e)-L(x)}{L(x)}\right)",
        source="agarwal2022rethinking",
        cost_note="one more explanation per noisy copy, shared by all metrics of the same noise, and one forward",
        direction="lower",
        interval="0 to any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``."""
        return super().cost(probe, explainer) + Cost(1)

    def _scored(self, probe: Probe, maps: Tensor, bank: Bank) -> Asking:
        if probe.model.inference is not None or not probe.model.can.hooks:
            why = "no layer of the whole image can be read: the model predicts by windows, or shows no layers"
            return Score.undefined(self, probe.batch, why)
        score = yield from super()._scored(probe, maps, bank)
        return replace(score, detail={**score.detail, "layer": self._name(probe)})

    def _length(self, probe: Probe) -> tuple[_Length, tuple[str, ...]]:
        name = self._name(probe)

        def length(again: Again) -> Tensor:
            here = _flat(again.before[name])
            return relative_change(_flat(again.activation[name]) - here, here, self.least)

        return length, (name,)

    def _name(self, probe: Probe) -> str:
        return probe.model.find(self.layer or probe.model.resolve(None, probe.inputs), probe.inputs).name


def _flat(activation: Tensor) -> Float[Tensor, "batch entry"]:
    return activation.detach().flatten(1).cpu().double()
