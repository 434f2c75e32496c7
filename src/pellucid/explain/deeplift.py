"""The score's difference from a reference, shared out by the differences of every unit on the way."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family
from pellucid.core.errors import BadOption, CannotDo
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.infill import Infill
from pellucid.core.masking import Stream
from pellucid.core.probe import Probe
from pellucid.explain.multipliers import Comparison, Fallback
from pellucid.explain.path import gap_warning
from pellucid.explain.references import References

_MEND = "a bent operation without a rule is left; use IntegratedGradients"


@dataclass(frozen=True)
class DeepLIFT(Explainer):
    """The contribution of each voxel to the score's difference from a reference image, in one backward.

    The rescale rule: where the gradient takes an operation's slope at the image, this takes its rise from the reference
    to the image, ``(y - y') / (x - x')``; products share their difference in halves, and normalizations and attention
    are products and rises too. The values sum to ``S(x) - S(x')`` on every network whose operations have rules. Rises
    of opposite sign that meet in one unit cancel unseen, and as always it answers only relative to the reference.

    Returns:
        Signed attribution in the target's unit.

    Raises:
        CannotDo: an operation has no rule and ``fallback`` is ``refuse``, or the network runs otherwise at the
            reference; low precision.

    Source:
        shrikumar2017deeplift. Its rules for ReLU and linear layers; those for products, norms and softmax are ours,
        chosen so that the values add up.

    Example:
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> layer, x = torch.nn.Linear(16, 2), torch.rand(1, 1, 4, 4)
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), layer, torch.nn.ReLU()))
        >>> probe = Probe(model, x, ClassScore(1))
        >>> float(DeepLIFT()(probe).gap.max()) < 1e-5
        True
    """

    baseline: Annotated[Infill | None, "the reference; None: the default fill of the modality"] = None
    fallback: Annotated[Fallback, "an operation without a rule: refuse, or take its gradient and warn"] = "refuse"

    card: ClassVar[Card] = Card(
        family=Family.RELEVANCE,
        shows="the contribution of each voxel to the score's difference from a reference image",
        caution="speaks only relative to the reference, and a reference can itself look like disease",
        equation=r"(x-x')\odot m,\quad m_{x\to y}=\sum_h m_{x\to h}\,m_{h\to y},\quad m=(y-y')/(x-x')",
        source="shrikumar2017deeplift",
        cost_note="one forward of the reference, one forward and backward of the image",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        completes=True,
    )

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        return Cost(2, 1)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        found = _Contributions(probe, self.name, self.fallback)
        maps, difference = found.to(Stream(probe, self.baseline).fill)
        answer = Attribution(maps, probe.target.unit, True, cell=(1.0,) * probe.grid.rank, difference=difference)
        return replace(answer, warnings=(*found.warnings(), *gap_warning(answer, "one reference", _MEND)))


@dataclass(frozen=True)
class DeepSHAP(Explainer):
    """The mean of DeepLIFT over many references: an approximation to the Shapley values of each voxel.

    References are the scene's background items (normal cases); without them the default fill of the modality and two
    blurred copies of the image. The values sum to ``S(x)`` minus the mean score of the references. Whether they come
    near the Shapley values depends on the network: only for a linear one they are equal. The standard error is that of
    the mean over the references, as if they had been drawn from many more.

    Returns:
        Signed attribution in the target's unit, with its standard error where there are at least two references.

    Raises:
        BadOption: fewer than one reference.
        CannotDo: as ``DeepLIFT``.
        ShapeMismatch: a background that lacks an input, or whose items are shaped otherwise.

    Source:
        lundberg2017unified. Its section 4.2, with the rescale rule for every operation.

    Example:
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.probe import Scene
        >>> from pellucid.core.target import ClassScore
        >>> layer, x, normal = torch.nn.Linear(16, 2), torch.rand(1, 1, 4, 4), torch.rand(8, 1, 4, 4)
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), layer, torch.nn.Sigmoid()))
        >>> a = DeepSHAP()(Probe(model, x, ClassScore(1), scene=Scene(background={"image": normal})))
        >>> float(a.gap.max()) < 1e-4
        True
    """

    references: Annotated[int, "at most so many items of the background, drawn at random"] = 16
    baseline: Annotated[Infill | None, "the only reference; None: the background, else three fills"] = None
    fallback: Annotated[Fallback, "an operation without a rule: refuse, or take its gradient and warn"] = "refuse"

    card: ClassVar[Card] = Card(
        family=Family.RELEVANCE,
        shows="the contribution of each voxel to the score's mean difference from many reference images",
        caution="near the Shapley values only where the network is nearly linear; without background cases the "
        "references are copies of the image",
        equation=r"\mathrm{E}_{x'}\,(x-x')\odot m(x,x')",
        source="lundberg2017unified",
        cost_note="two forwards and one backward per reference",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        stochastic=True,
        completes=True,
    )

    def __post_init__(self) -> None:
        if self.references < 1:
            raise BadOption(f"expected at least 1 reference, got {self.references}", "16 is usual")

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        count = References(probe, self.baseline, self.references).count
        return Cost(2 * count, count)

    def stand_in(self, probe: Probe) -> str | None:
        """See ``Explainer``."""
        return References(probe, self.baseline, self.references).words

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        references = References(probe, self.baseline, self.references)
        found = _Contributions(probe, self.name, self.fallback)
        sums = {n: torch.zeros_like(x) for n, x in probe.inputs.items() if x.is_floating_point()}
        squares = {n: torch.zeros_like(x) for n, x in sums.items()}
        difference = torch.zeros_like(probe.baseline_score)
        for start in references:
            maps, step = found.to(start)
            difference += step / references.count
            for n, values in maps.items():
                sums[n] += values
                squares[n] += values.square()
        n_ = references.count
        error = {
            n: ((squares[n] / n_ - (s / n_).square()).clamp_min(0) / max(n_ - 1, 1)).sqrt() for n, s in sums.items()
        }
        maps = {n: s / n_ for n, s in sums.items()}
        cell = (1.0,) * probe.grid.rank
        error = error if n_ > 1 else None
        answer = Attribution(maps, probe.target.unit, True, cell=cell, difference=difference, error=error)
        return replace(answer, warnings=(*found.warnings(), *gap_warning(answer, f"{n_} references", _MEND)))


class _Contributions:
    """Contributions of one probe's inputs to the difference from references, one after the other."""

    def __init__(self, probe: Probe, method: str, fallback: Fallback) -> None:
        if probe.precision != "float32":
            raise CannotDo(
                f"{method} divides small differences, for which {probe.precision} has too few digits",
                "run in float32 (--precision float32)",
            )
        self._probe, self._comparison = probe, Comparison(method, fallback)

    def to(self, start: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Contributions by input, and the difference they promise to sum to."""
        probe = self._probe
        before = probe.run(start, rules=self._comparison.at_reference).score[probe.aim]
        done = probe.run(want=frozenset({Ask.INPUT_GRADIENT}), rules=self._comparison.at_image)
        multipliers = done.input_gradient[probe.aim]
        maps = {n: (probe.inputs[n] - start[n]) * m for n, m in multipliers.items()}
        return maps, done.score[probe.aim] - before

    def warnings(self) -> tuple[str, ...]:
        """Which operations had no rule."""
        places = ", ".join(self._comparison.without_rule)
        return (f"no rule for {places}: the plain gradient was taken there",) if places else ()
