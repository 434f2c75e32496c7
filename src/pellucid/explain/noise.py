"""Methods that read the gradient at many noisy copies of the image: its mean, its mean square, its variance."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.intensity import body_range
from pellucid.core.masking import Stream
from pellucid.core.probe import Probe

_LARGE_ERROR = 0.32  # of the map, root mean square: above it more than a tenth of the map's power is chance


class Moments:
    """Running mean and central moments of a stream of tensors, one value at a time; float64, whatever comes in.

    Updated after Welford and Pebay: sums of powers would lose every digit where the spread is small beside the mean.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.second = self.third = self.fourth = torch.zeros((), dtype=torch.float64)

    def add(self, value: Tensor) -> None:
        """Take one more tensor."""
        self.count += 1
        n = self.count
        away = value.double() - self.mean.to(value.device)
        step = away / n
        term = away * step * (n - 1)
        self.fourth = self.fourth.to(step) + (
            term * step**2 * (n * n - 3 * n + 3) + 6 * step**2 * self.second - 4 * step * self.third
        )
        self.third = self.third.to(step) + term * step * (n - 2) - 3 * step * self.second
        self.second = self.second.to(step) + term
        self.mean = self.mean.to(step) + step

    @property
    def variance(self) -> Tensor:
        """Of one value, without bias."""
        return self.second / (self.count - 1)

    @property
    def error_of_mean(self) -> Tensor:
        """Standard error of the mean."""
        return (self.variance / self.count).sqrt()

    @property
    def error_of_variance(self) -> Tensor:
        """Standard error of the variance, with the fourth moment as the stream shows it (too small for few values)."""
        n = self.count
        of_square = self.fourth / n - self.variance**2 * ((n - 3) / (n - 1))
        return (of_square.clamp(min=0) / n).sqrt()


@dataclass(frozen=True)
class _Noisy(Explainer, ABC, abstract=""):
    """A statistic of the gradient over noisy copies."""

    samples: Annotated[int, "noisy copies, at least 2; the sampling error falls as 1/sqrt(samples)"] = 25
    sigma: Annotated[float, "standard deviation of the noise, as a share of the intensity range of the body"] = 0.15

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise BadOption(f"expected at least 2 noisy copies, got {self.samples}", "25 to 50 is usual")
        if not 0 < self.sigma <= 1:
            raise BadOption(
                f"expected noise above 0 and at most 1 of the intensity range, got {self.sigma}", "0.1 to 0.2 is usual"
            )

    @abstractmethod
    def _of(self, gradient: Tensor) -> Tensor:
        """What is watched of each gradient."""

    @abstractmethod
    def _summary(self, seen: Moments) -> tuple[Tensor, Tensor]:
        """The map and its standard error."""

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        return Cost(self.samples, self.samples)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        images = {n: x for n, x in probe.inputs.items() if x.ndim > 2 and x.is_floating_point()}
        spread = {n: self.sigma * body_range(x).view(*x.shape[:2], *(1,) * (x.ndim - 2)) for n, x in images.items()}
        seen: dict[str, Moments] = {}
        for gradients in Stream(probe, gradient=True).gradients(self._copies(probe, spread)):
            for name, g in gradients.items():
                seen.setdefault(name, Moments()).add(self._of(g))
        found = {name: self._summary(m) for name, m in seen.items()}
        maps = {n: value.to(probe.inputs[n].dtype) for n, (value, _) in found.items()}
        errors = {n: error.to(probe.inputs[n].dtype) for n, (_, error) in found.items()}
        slope = f"{probe.target.unit} per network unit"
        return Attribution(
            maps=maps,
            unit=slope if self.card.signed else f"({slope})^2",
            signed=self.card.signed,
            cell=(1.0,) * probe.grid.rank,
            error=errors,
            warnings=(*_unmoved(probe, spread), *self._noise_warning(maps, errors)),
        )

    def _copies(self, probe: Probe, spread: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
        """Noisy versions of the batch: one draw for all of its items, on the CPU, so that every device draws alike."""
        generator = torch.Generator().manual_seed(probe.scene.seed)
        for _ in range(self.samples):
            drawn = {n: torch.randn(probe.inputs[n].shape[1:], generator=generator) for n in spread}
            yield {n: x + spread[n] * drawn[n].to(x) if n in drawn else x for n, x in probe.inputs.items()}

    def _noise_warning(self, maps: Mapping[str, Tensor], errors: Mapping[str, Tensor]) -> Iterator[str]:
        worst = max(float(_share(errors[n], maps[n]).max()) for n in maps)
        if worst > _LARGE_ERROR:
            enough = ceil(self.samples * (worst / _LARGE_ERROR) ** 2)
            yield (
                f"sampling error {worst:.0%} of the map (root mean square) with {self.samples} noisy copies: its fine "
                f"detail is partly chance; about {enough} samples would bring it below {_LARGE_ERROR:.0%}"
            )


def _share(error: Tensor, values: Tensor) -> Tensor:
    """Per item, the size of the error beside the size of the map."""
    size = values.double().flatten(1).norm(dim=1)
    return torch.where(size > 0, error.double().flatten(1).norm(dim=1) / size, torch.zeros_like(size))


def _unmoved(probe: Probe, spread: Mapping[str, Tensor]) -> Iterator[str]:
    """What noise did not reach, in words."""
    still = [n for n in probe.inputs if n not in spread]
    if still:
        yield f"no noise was added to {', '.join(still)}: a vector of one case has no intensity range"
    flat = [n for n, s in spread.items() if bool((s.flatten(1) == 0).all(1).any())]
    if flat:
        yield f"no noise was added to {', '.join(flat)}: the image has one value everywhere"


@dataclass(frozen=True)
class SmoothGrad(_Noisy):
    """Where the score rises with intensity on average nearby: the mean gradient over noisy copies of the image.

    ``mean of dS/dx at x + sigma n``. All images move together, by one draw for the whole batch. It is the gradient of
    the score blurred over intensities, so it still shows sensitivity, not contribution; sigma decides what it shows.

    Returns:
        Signed attribution in score per network unit, with the standard error of each value.

    Raises:
        BadOption: fewer than two samples, or sigma outside (0, 1].

    Source:
        smilkov2017smoothgrad. Deviation: sigma is a share of the body's range, not of all voxels with air and metal.

    Example:
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> layer = torch.nn.Linear(16, 2)
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), layer))
        >>> a = SmoothGrad(samples=3)(Probe(model, torch.rand(1, 1, 4, 4), ClassScore(1)))
        >>> bool(torch.allclose(a.maps["image"].flatten(), layer.weight[1])), float(a.error["image"].max())
        (True, 0.0)
    """

    card: ClassVar[Card] = Card(
        family=Family.GRADIENT,
        shows="whether the score rises or falls with each voxel, averaged over noisy copies of the image",
        caution="sensitivity, not contribution; the noise level decides what is seen; fine detail is sampling error",
        equation=r"\frac{1}{n}\sum_i \partial S/\partial x\,(x+\sigma\,\varepsilon_i)",
        source="smilkov2017smoothgrad",
        cost_note="one forward and backward per noisy copy",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        stochastic=True,
    )

    def _of(self, gradient: Tensor) -> Tensor:
        return gradient

    def _summary(self, seen: Moments) -> tuple[Tensor, Tensor]:
        return seen.mean, seen.error_of_mean


@dataclass(frozen=True)
class SquareGrad(_Noisy):
    """How strongly the score reacts nearby, whatever the direction: the mean squared gradient over noisy copies.

    ``mean of (dS/dx)^2 at x + sigma n``. Unlike SmoothGrad, gradients of opposite sign do not cancel; where the score
    saturates on both sides it stays blind. A few steep copies can decide a voxel.

    Returns:
        Attribution, never negative, in squared score per network unit, with the standard error of each value.

    Raises:
        BadOption: fewer than two samples, or sigma outside (0, 1].

    Source:
        hooker2019benchmark. Deviation: sigma is a share of the body's range, not of all voxels with air and metal.

    Example:
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> layer = torch.nn.Linear(16, 2)
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), layer))
        >>> a = SquareGrad(samples=3)(Probe(model, torch.rand(1, 1, 4, 4), ClassScore(1)))
        >>> bool(torch.allclose(a.maps["image"].flatten(), layer.weight[1] ** 2))
        True
    """

    card: ClassVar[Card] = Card(
        family=Family.GRADIENT,
        shows="how strongly the score reacts to each voxel, over noisy copies of the image",
        caution="sensitivity, not contribution; no direction; a few steep copies can decide a voxel",
        equation=r"\frac{1}{n}\sum_i \left(\partial S/\partial x\,(x+\sigma\,\varepsilon_i)\right)^2",
        source="hooker2019benchmark",
        cost_note="one forward and backward per noisy copy",
        asks=frozenset({Ask.OUTPUT}),
        signed=False,
        stochastic=True,
    )

    def _of(self, gradient: Tensor) -> Tensor:
        return gradient.double() ** 2

    def _summary(self, seen: Moments) -> tuple[Tensor, Tensor]:
        return seen.mean, seen.error_of_mean


@dataclass(frozen=True)
class VarGrad(_Noisy):
    """Where the gradient itself is unstable: its variance over noisy copies of the image.

    ``variance of dS/dx at x + sigma n`` (n - 1 in the denominator). It shows curvature, about ``sigma^2`` times the
    squared second derivatives, and says nothing of the slope: evidence that enters linearly gets zero.

    Returns:
        Attribution, never negative, in squared score per network unit, with the standard error of each value (from the
        fourth moment of the same copies: too small for few).

    Raises:
        BadOption: fewer than two samples, or sigma outside (0, 1].

    Source:
        adebayo2018local. Deviation: sigma is a share of the body's range, not of all voxels with air and metal.

    Example:
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)))
        >>> float(VarGrad(samples=3)(Probe(model, torch.rand(1, 1, 4, 4), ClassScore(1))).maps["image"].max())
        0.0
    """

    card: ClassVar[Card] = Card(
        family=Family.GRADIENT,
        shows="where the score's reaction to a voxel changes most between noisy copies of the image",
        caution="curvature, not evidence: what enters the score linearly gets zero; the noise level decides all",
        equation=r"\frac{1}{n-1}\sum_i \left(g_i-\bar g\right)^2,\quad "
        r"g_i=\partial S/\partial x\,(x+\sigma\,\varepsilon_i)",
        source="adebayo2018local",
        cost_note="one forward and backward per noisy copy",
        asks=frozenset({Ask.OUTPUT}),
        signed=False,
        stochastic=True,
    )

    def _of(self, gradient: Tensor) -> Tensor:
        return gradient

    def _summary(self, seen: Moments) -> tuple[Tensor, Tensor]:
        return seen.variance, seen.error_of_variance
