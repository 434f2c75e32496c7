"""How far the map moves when noise is added to the image, and how far for each step of the image."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from pellucid.core.card import Ask, MetricCard, Property
from pellucid.core.metric import Score
from pellucid.core.probe import Probe
from pellucid.core.sweep import Again, Asking, Moved
from pellucid.metrics.robustness.noise import (
    Bank,
    BoxNoise,
    NoiseMetric,
    Seen,
    broken,
    difference,
    entries,
    moved_by,
    same_decision,
    tabled,
)


@dataclass(frozen=True)
class _Change(NoiseMetric, ABC, abstract=""):
    """A number from the relative changes ``||A(x + e) - A(x)|| / ||A(x)||`` over noisy copies."""

    @abstractmethod
    def _of(self, changes: Float[Tensor, "copy batch"]) -> tuple[Tensor, dict[str, Any]]:
        """The value, and what stands beside it."""

    def _scored(self, probe: Probe, maps: Tensor, bank: Bank) -> Asking:
        size = maps.flatten(1).norm(dim=1)

        def reduce(again: Again) -> Seen:
            change = difference(probe, again, maps).norm(dim=1) / size
            return Seen(change, same_decision(probe, again.output))

        (found,) = yield (Moved(lambda: bank.inputs(probe), reduce, keys=bank.keys(probe)),)
        changes, _, detail = tabled(found, "changes")
        values, more = self._of(changes)
        return Score(self.name, values, broken(changes), self.settings(), detail | more | bank.report(probe))


@dataclass(frozen=True)
class MaxSensitivity(BoxNoise, _Change):
    """How far the map moves at worst when noise within a small box is added to the image.

    ``max over e of ||A(x + e) - A(x)||_2 / ||A(x)||_2``, e uniform within ``radius`` of the intensity range of the
    body. The worst of few copies is below the worst of all, and a map that ignores the model never moves. Copies that
    change the decision count, and are counted in the detail.

    Returns:
        Score from 0, lower is more robust; undefined for a map of zeros or an image of one value.

    Raises:
        BadOption: no copies, or a radius outside (0, 1].

    Source:
        yeh2019fidelity. Relative to the map, so that methods of any unit can be compared.

    Example:
        >>> MaxSensitivity(samples=5).settings()["radius"]
        0.05
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.ROBUSTNESS,
        shows="how far the map moves at worst when a little noise is added to the image",
        caution="the worst of few noisy copies, not of all; a map that ignores the model never moves",
        equation=r"\max_e\, \Vert A(x+e) - A(x) \Vert_2 \,/\, \Vert A(x) \Vert_2",
        source="yeh2019fidelity",
        cost_note="one more explanation per noisy copy, shared by all metrics of the same noise",
        direction="lower",
        interval="0 to any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def _of(self, changes: Tensor) -> tuple[Tensor, dict[str, Any]]:
        return changes.amax(0), {}


@dataclass(frozen=True)
class AverageSensitivity(BoxNoise, _Change):
    """How far the map moves on average when noise within a small box is added to the image.

    ``mean over e of ||A(x + e) - A(x)||_2 / ||A(x)||_2``, e uniform within ``radius`` of the intensity range of the
    body, with its standard error in the detail. A map that ignores the model never moves.

    Returns:
        Score from 0, lower is more robust; undefined for a map of zeros or an image of one value.

    Raises:
        BadOption: no copies, or a radius outside (0, 1].

    Source:
        bhatt2020evaluating. Relative to the map, as MaxSensitivity.

    Example:
        >>> AverageSensitivity(radius=0.02).card.direction
        'lower'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.ROBUSTNESS,
        shows="how far the map moves on average when a little noise is added to the image",
        caution="a map that ignores the model never moves; says nothing about the worst case",
        equation=r"E_e\, \Vert A(x+e) - A(x) \Vert_2 \,/\, \Vert A(x) \Vert_2",
        source="bhatt2020evaluating",
        cost_note="one more explanation per noisy copy, shared by all metrics of the same noise",
        direction="lower",
        interval="0 to any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def _of(self, changes: Tensor) -> tuple[Tensor, dict[str, Any]]:
        return _mean(changes)


@dataclass(frozen=True)
class SensitivityNorm(_Change):
    """How far the map moves on average under Gaussian noise: the review's sensitivity-norm, made relative.

    ``mean over e of ||A(x + e) - A(x)||_2 / ||A(x)||_2`` with e of standard deviation ``sigma``, a share of the
    intensity range of the body (1st to 99th percentile). The plain L2 distance grows with the number of voxels, so that
    no limit could hold for two image sizes. A map that ignores the model never moves.

    Returns:
        Score from 0, lower is more robust; undefined for a map of zeros or an image of one value.

    Raises:
        BadOption: no copies, or a sigma outside (0, 1].

    Source:
        yeh2019fidelity, for the change; the noise is that of the review's section 3.3.3.

    Example:
        >>> SensitivityNorm().settings()["sigma"]
        0.1
    """

    samples: Annotated[int, "noisy copies"] = 10
    sigma: Annotated[float, "standard deviation of the noise, as a share of the intensity range of the body"] = 0.1

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.ROBUSTNESS,
        shows="how far the map moves on average under Gaussian noise",
        caution="a map that ignores the model never moves; a tenth of the range is more noise than most scanners make",
        equation=r"E_e\, \Vert A(x+e) - A(x) \Vert_2 \,/\, \Vert A(x) \Vert_2,\quad e \sim N(0, \sigma^2)",
        source="yeh2019fidelity",
        cost_note="one more explanation per noisy copy, shared by all metrics of the same noise",
        direction="lower",
        interval="0 to any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def _bank(self) -> Bank:
        return Bank("gaussian", self.sigma, self.samples)

    def _of(self, changes: Tensor) -> tuple[Tensor, dict[str, Any]]:
        return _mean(changes)


def _mean(changes: Float[Tensor, "copy batch"]) -> tuple[Tensor, dict[str, Any]]:
    if len(changes) < 2:
        return changes.mean(0), {}
    return changes.mean(0), {"standard error": (changes.std(0) / len(changes) ** 0.5).tolist()}


@dataclass(frozen=True)
class LocalLipschitz(BoxNoise):
    """How steep the map is around the image: its largest change for each step of the image.

    ``max over e of ||A(x + e) - A(x)||_2 / ||e||_2`` in the map's unit per network unit. It grows with the unit of the
    map; ``relative`` in the detail, with both lengths as shares of ``||A(x)||`` and ``||x||``, does not, but depends on
    where the network's zero of intensity lies. The largest of few copies is below the largest of all.

    Returns:
        Score from 0, lower is more robust; undefined for a map of zeros or an image of one value.

    Raises:
        BadOption: no copies, or a radius outside (0, 1].

    Source:
        alvarezmelis2018robustness. Each item by itself: normalized over a batch, it would depend on the others.

    Example:
        >>> LocalLipschitz().card.direction
        'lower'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.ROBUSTNESS,
        shows="how much the map changes at most for each step of the image",
        caution="in the map's own unit: methods of different units cannot be compared, but by the relative value",
        equation=r"\max_e\, \Vert A(x+e) - A(x) \Vert_2 \,/\, \Vert e \Vert_2",
        source="alvarezmelis2018robustness",
        cost_note="one more explanation per noisy copy, shared by all metrics of the same noise",
        direction="lower",
        unit="map's unit per network unit",
        interval="0 to any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def _scored(self, probe: Probe, maps: Tensor, bank: Bank) -> Asking:
        def reduce(again: Again) -> Seen:
            step = moved_by(probe, again.inputs).norm(dim=1)
            slope = difference(probe, again, maps).norm(dim=1) / step
            return Seen(slope, same_decision(probe, again.output))

        (found,) = yield (Moved(lambda: bank.inputs(probe), reduce, keys=bank.keys(probe)),)
        slopes, _, detail = tabled(found, "slopes")
        values = slopes.amax(0)
        scale = entries(probe).norm(dim=1) / maps.flatten(1).norm(dim=1)
        more = {"relative": (values * scale).tolist()}
        return Score(self.name, values, broken(slopes), self.settings(), detail | more | bank.report(probe))
