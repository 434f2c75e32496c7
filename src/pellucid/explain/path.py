"""Methods that follow the score along a straight path from a reference input to the image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution, share_missed
from pellucid.core.infill import Infill
from pellucid.core.masking import Stream
from pellucid.core.probe import Probe

_TOLERATED_GAP = 0.05  # of the score difference; above it the reader is warned


@dataclass(frozen=True)
class IntegratedGradients(Explainer):
    """The contribution of each voxel to the difference between the image's score and a reference image's score.

    ``(x - x') * mean over a in (0, 1) of dS(x' + a (x - x'))/dx``. The values sum to ``S(x) - S(x')`` up to the
    completeness gap, which is reported. It answers only relative to the reference: what equals it gets zero. All inputs
    move together, so that maps of PET and CT can be compared. With a tolerance each item keeps its first map under it.

    Returns:
        Signed attribution in the target's unit.

    Raises:
        BadOption: fewer than one step, fewer steps at most than at first, or a tolerance that is not positive.

    Source:
        sundararajan2017axiomatic.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> layer = torch.nn.Linear(16, 2)
        >>> model, x = Model(torch.nn.Sequential(torch.nn.Flatten(), layer)), torch.rand(1, 1, 4, 4)
        >>> a = IntegratedGradients(steps=1)(Probe(model, x, ClassScore(1)))
        >>> bool(torch.isclose(a.maps["image"].sum(), (layer.weight[1] * x.flatten()).sum()))
        True
    """

    steps: Annotated[int, "points of the path; 16 leave a gap of about 2 % on ReLU networks"] = 32
    baseline: Annotated[Infill | None, "the reference; None: the default fill of the modality"] = None
    rule: Annotated[
        Literal["midpoint", "gauss"], "how the points lie; gauss is exact on smooth polynomials, no better on ReLU"
    ] = "midpoint"
    tolerance: Annotated[
        float | None, "take more steps until the gap is below this share of the score difference; None: just ``steps``"
    ] = None
    steps_max: Annotated[int, "the most points that a tolerance may take"] = 512

    card: ClassVar[Card] = Card(
        family=Family.PATH,
        shows="the contribution of each voxel to the score's difference from a reference image",
        caution="speaks only relative to the reference, and a reference can itself look like disease; noisy",
        equation=r"(x-x')\odot\int_0^1 \partial S(x'+\alpha(x-x'))/\partial x\,\mathrm{d}\alpha",
        source="sundararajan2017axiomatic",
        cost_note="one forward and backward per step, and one forward of the reference",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        completes=True,
    )

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadOption(f"expected at least 1 step, got {self.steps}", "16 to 64 is usual")
        if self.tolerance is not None and not self.tolerance > 0:
            raise BadOption(f"expected a tolerance above 0, got {self.tolerance}", "0.02 is 2 % of the difference")
        if self.tolerance is not None and self.steps_max < self.steps:
            raise BadOption(
                f"expected steps_max of at least {self.steps}, the steps to begin with, got {self.steps_max}",
                "raise steps_max or lower steps",
            )

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``; with a tolerance an upper bound."""
        points = sum(len(level.nodes) for level in self._levels())
        return Cost(points + 1, points)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        stream = Stream(probe, self.baseline, gradient=True)
        slopes = {n: torch.zeros_like(x) for n, x in probe.inputs.items() if x.is_floating_point()}
        maps = {n: torch.zeros_like(slope) for n, slope in slopes.items()}
        difference = probe.baseline_score - probe.score(stream.fill)
        unsettled = torch.ones_like(difference, dtype=torch.bool)
        points = self.steps
        for level in self._levels():
            points = level.points
            _add_level(slopes, level, stream)
            for n, slope in slopes.items():
                maps[n][unsettled] = (probe.inputs[n] - stream.fill[n]).mul_(slope)[unsettled]
            unsettled &= share_missed(maps, difference) > (self.tolerance or 0)
            if not bool(unsettled.any()):
                break
        answer = Attribution(maps, probe.target.unit, True, cell=(1.0,) * probe.grid.rank, difference=difference)
        allowed = min(self.tolerance or _TOLERATED_GAP, _TOLERATED_GAP)
        return replace(answer, warnings=gap_warning(answer, f"{points} steps", "use more steps", allowed))

    def _levels(self) -> Iterator["_Level"]:
        """One level; with a tolerance each next one is finer, as far as ``steps_max`` allows."""
        points, most = self.steps, self.steps if self.tolerance is None else self.steps_max
        while points <= most:
            if self.rule == "gauss":  # no two of these rules share a point
                nodes, weights = np.polynomial.legendre.leggauss(points)
                yield _Level(points, ((nodes + 1) / 2).tolist(), (weights / 2).tolist(), 0.0)
                points *= 2
                continue
            first = points == self.steps
            fresh = [(i + 0.5) / points for i in range(points) if first or i % 3 != 1]
            yield _Level(points, fresh, [1 / points] * len(fresh), 0.0 if first else 1 / 3)
            points *= 3  # the middle one of three new points is an old one


@dataclass(frozen=True)
class _Level:
    """A rule of ``points``: fresh nodes in (0, 1) with weights; what was summed before them counts ``carry``."""

    points: int
    nodes: Sequence[float]
    weights: Sequence[float]
    carry: float


def _add_level(slopes: Mapping[str, Tensor], level: _Level, stream: Stream) -> None:
    """Bring the mean gradient from the last level to this one, in place: no gradient is kept."""
    for slope in slopes.values():
        slope.mul_(level.carry)
    points = (between(stream.fill, stream.probe.inputs, a) for a in level.nodes)
    for weight, gradient in zip(level.weights, stream.gradients(points), strict=True):
        for name, slope in slopes.items():
            slope.add_(gradient[name], alpha=weight)


def between(start: Mapping[str, Tensor], end: Mapping[str, Tensor], a: float) -> dict[str, Tensor]:
    """The point at share ``a`` of the straight path; inputs of whole numbers (categories) stay at the end."""
    return {n: torch.lerp(start[n], x, a) if x.is_floating_point() else x for n, x in end.items()}


def gap_warning(answer: Attribution, spent: str, mend: str, allowed: float = _TOLERATED_GAP) -> tuple[str, ...]:
    """A doubt in words where the values do not add up.

    Args:
        answer: with a promised sum.
        spent: how many points were taken, such as ``32 steps``.
        mend: what to do.
        allowed: gap that is not worth a word, as a share of the score difference.
    """
    worst = 0.0 if answer.gap is None else float(answer.gap.max())
    if worst <= allowed:
        return ()
    share = f"{worst:.0%}" if worst >= 0.1 else f"{worst:.1%}"
    return (f"completeness gap {share} of the score difference with {spent}: the values do not add up; {mend}",)
