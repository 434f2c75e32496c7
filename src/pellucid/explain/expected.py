"""Integrated gradients averaged over many reference inputs, by sampling."""

from dataclasses import dataclass, replace
from math import ceil
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.infill import Infill
from pellucid.core.masking import Stream
from pellucid.core.probe import Probe
from pellucid.explain.path import between, gap_warning
from pellucid.explain.references import References


@dataclass(frozen=True)
class ExpectedGradients(Explainer):
    """The contribution of each voxel to the score's difference from many references, so that no single one decides.

    ``mean of (x - x') * dS(x' + a (x - x'))/dx`` over references x' and a in (0, 1). References are the scene's
    background items; without them the default fill of the modality and two blurred copies of the image, each in turn.
    The a of a reference are drawn one from each of equal parts of (0, 1). The standard error is that of the draws: the
    variance of one within its part, divided by their number; what other references would give, it does not know.

    Returns:
        Signed attribution in the target's unit, with its standard error; the same seed gives the same map.

    Raises:
        BadOption: fewer than two samples.
        ShapeMismatch: a background that lacks an input, or whose items are shaped otherwise.

    Source:
        erion2021improving. The paper draws a freely; parts lower the error and keep the mean.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.probe import Scene
        >>> from pellucid.core.target import ClassScore
        >>> layer, x, normal = torch.nn.Linear(16, 2), torch.rand(1, 1, 4, 4), torch.rand(8, 1, 4, 4)
        >>> model, scene = Model(torch.nn.Sequential(torch.nn.Flatten(), layer)), Scene(background={"image": normal})
        >>> a = ExpectedGradients(samples=8)(Probe(model, x, ClassScore(1), scene=scene))
        >>> bool(torch.allclose(a.maps["image"].flatten(), layer.weight[1] * (x - normal.mean(0)).flatten(), atol=1e-6))
        True
    """

    samples: Annotated[int, "draws; rounded up to a multiple of the references"] = 64
    baseline: Annotated[
        Infill | None, "the only reference; None: the background, else the default fill and two blurred copies"
    ] = None

    card: ClassVar[Card] = Card(
        family=Family.PATH,
        shows="the contribution of each voxel to the score's mean difference from many reference images",
        caution="what all references share cannot count; without background cases they are copies of the image; noisy",
        equation=r"\mathrm{E}_{x',\;\alpha\sim U(0,1)}\;(x-x')\odot\partial S(x'+\alpha(x-x'))/\partial x",
        source="erion2021improving",
        cost_note="one forward and backward per sample, and one forward of each reference",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        stochastic=True,
        completes=True,
    )

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise BadOption(f"expected at least 2 samples, got {self.samples}", "64 is usual: one has no error to tell")

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        references = References(probe, self.baseline, self.samples)
        draws = references.count * self._rounds(references)
        return Cost(draws + references.count, draws)

    def stand_in(self, probe: Probe) -> str | None:
        """See ``Explainer``."""
        return References(probe, self.baseline, self.samples).words

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        inputs, generator = probe.inputs, torch.Generator().manual_seed(probe.scene.seed)
        references = References(probe, self.baseline, self.samples, generator)
        draws = drawn(references.count, self._rounds(references), generator)
        sums = {n: Running(x) for n, x in inputs.items() if x.is_floating_point()}
        whole = Running(probe.baseline_score)
        points = (between(references[draw.reference], inputs, draw.a) for draw in draws)
        gradients = Stream(probe, self.baseline, gradient=True).gradients(points)
        for draw, gradient in zip(draws, gradients, strict=True):
            start = references[draw.reference]
            values = {n: (inputs[n] - start[n]).mul_(gradient[n]) for n in sums}
            whole.add(torch.stack([v.flatten(1).sum(1) for v in values.values()]).sum(0), draw.neighbor)
            for n, value in values.items():
                sums[n].add(value, draw.neighbor)
        difference = probe.baseline_score - torch.stack([probe.score(x) for x in references]).mean(0)
        answer = Attribution(
            maps={n: s.mean for n, s in sums.items()},
            unit=probe.target.unit,
            signed=True,
            cell=(1.0,) * probe.grid.rank,
            error={n: s.error for n, s in sums.items()},
            difference=difference,
        )
        share = float((whole.error / difference.abs().clamp_min(1e-6)).max())
        spent = f"{len(draws)} samples (standard error {share:.1%})"
        return replace(answer, warnings=gap_warning(answer, spent, "use more samples"))

    def _rounds(self, references: References) -> int:
        """How many draws each reference gets."""
        return ceil(self.samples / references.count)


@dataclass(frozen=True)
class Draw:
    """One sample.

    Args:
        reference: index of the reference.
        a: share of the way from it to the image.
        neighbor: whether the draw before lies in the part beside, so that the two differ by chance alone.
    """

    reference: int
    a: float
    neighbor: bool


def drawn(references: int, rounds: int, generator: torch.Generator) -> list[Draw]:
    """Draws such that each reference has one ``a`` in each of ``rounds`` equal parts of (0, 1).

    All together they have one in each of ``references * rounds`` parts.

    Args:
        references: how many there are.
        rounds: draws of each; with one the draws stand in the order of ``a``, else reference by reference.
        generator: of the random numbers.
    """
    parts = torch.stack([torch.randperm(references, generator=generator) for _ in range(rounds)])
    within = torch.rand(rounds, references, generator=generator, dtype=torch.float64)
    a = (torch.arange(rounds)[:, None] + (parts + within) / references) / rounds
    if rounds == 1:
        return [Draw(r, float(a[0, r]), i > 0) for i, r in enumerate(a[0].argsort().tolist())]
    return [Draw(r, float(a[j, r]), j > 0) for r in range(references) for j in range(rounds)]


class Running:
    """Mean of values that come one by one, and its standard error, from running sums.

    The variance of one draw is half the mean square of the difference between neighbors: draws from parts of (0, 1)
    spread less about their mean than free ones do, and the plain variance would not know it.

    Args:
        like: a value's shape and type.
    """

    def __init__(self, like: Tensor) -> None:
        self._sum, self._squares, self._last = torch.zeros_like(like), torch.zeros_like(like), like
        self._count = self._pairs = 0

    def add(self, value: Tensor, neighbor: bool) -> None:
        """Add one value; ``neighbor``: whether the one before is its neighbor. The value is kept until the next."""
        self._sum += value
        self._count += 1
        if neighbor:
            self._squares += (value - self._last).square_()
            self._pairs += 1
        self._last = value

    @property
    def mean(self) -> Tensor:
        """Of all values."""
        return self._sum / self._count

    @property
    def error(self) -> Tensor:
        """Standard error of the mean: the root of variance / count, not of variance / root of count."""
        return (self._squares / (2 * self._pairs * self._count)).sqrt_()
