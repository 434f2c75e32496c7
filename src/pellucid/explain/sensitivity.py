"""Elementary effects: what showing one part of an image does to the score, whatever else is shown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family, Level
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.infill import Infill
from pellucid.core.masking import Stream
from pellucid.core.players import players_of
from pellucid.core.probe import Probe
from pellucid.core.units import Units

Statistic = Literal["mu", "mu_star", "sigma"]
_INTERACTS = 0.5  # of the parts, from which on the reader is warned
_FIRST = 4  # trajectories behind the first look at the error: a spread of fewer is chance itself


@dataclass(frozen=True)
class MorrisSensitivity(Explainer):
    """What showing a part of the image does to the score on average, over random states of all other parts.

    Along each of ``r`` random trajectories every part is switched once, in random order, from a random start:
    ``EE_j = S(shown) - S(hidden)``. Their mean ``mu`` is signed, the mean magnitude ``mu_star`` misses no effect that
    cancels, and ``sigma``, their standard deviation, is 0 only where the part acts alone and in proportion. Depends on
    the fill and on the parts; where sigma exceeds mu, mu alone must not be read.

    Returns:
        Attribution of one value for each part, with its standard error over the trajectories.

    Raises:
        BadOption: fewer than two trajectories, or players that cannot be cut.

    Source:
        morris1991factorial; ``mu_star`` by campolongo2007effective.

    Example:
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)))
        >>> probe = Probe(model, torch.rand(1, 1, 4, 4), ClassScore(1))
        >>> MorrisSensitivity(players="grid:2", trajectories=3)(probe).maps["image"].unique().numel()
        4
    """

    players: Annotated[str, "parts: grid:4 (blocks per axis), superpixels:30, regions"] = "grid:4"
    trajectories: Annotated[int, "random orders in which all parts are switched"] = 6
    statistic: Annotated[Statistic, "mu: mean effect; mu_star: mean magnitude; sigma: their spread"] = "mu"
    tolerance: Annotated[
        float | None, "stop when the largest standard error is below this share of the largest value; None: never"
    ] = None
    infill: Annotated[Infill | None, "what a hidden part shows; None: the modality's first two fills, averaged"] = None

    card: ClassVar[Card] = Card(
        family=Family.PERTURBATION,
        shows="what showing a part of the image does to the score, over random states of all other parts",
        caution="depends on the fill and the parts; where effects change with their surroundings the mean misleads",
        equation=r"\mu_j = \frac{1}{r}\sum_t \big[S(z^{(t)}_{j \to 1}) - S(z^{(t)}_{j \to 0})\big]",
        source="morris1991factorial",
        cost_note="trajectories x (parts + 1) forwards for each fill",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        stochastic=True,
        level=Level.REGION,
        agnostic=True,
    )

    def __post_init__(self) -> None:
        if self.trajectories < 2:
            raise BadOption(f"expected at least 2 trajectories, got {self.trajectories}", "6 to 20 are usual")
        if self.tolerance is not None and not self.tolerance > 0:
            raise BadOption(f"expected a tolerance above 0, got {self.tolerance}", "0.2 is 20 % of the largest value")

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``; with a tolerance an upper bound."""
        most = max(u.count for u in players_of(probe, self.players))
        return Cost(len(_fills(probe, self.infill)) * self.trajectories * (most + 1))

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        units, fills = players_of(probe, self.players), _fills(probe, self.infill)
        designs = [trajectories(u.count, self.trajectories, probe.scene.seed) for u in units]
        effects = [torch.zeros(0, u.count, dtype=torch.float64) for u in units]
        settled: set[int] = set()
        start = 0
        for stop in self._stops():
            some = [d[start * (u.count + 1) : stop * (u.count + 1)] for d, u in zip(designs, units, strict=True)]
            scores = torch.stack([_scores(probe, fill, units, some) for fill in fills]).mean(0)
            for i in set(range(probe.batch)) - settled:
                effects[i] = torch.cat([effects[i], elementary_effects(some[i], scores[: len(some[i]), i])])
                if self.tolerance is not None and _settled(effects[i], self.statistic, self.tolerance):
                    settled.add(i)
            if len(settled) == probe.batch:
                break
            start = stop
        found = [_statistic(e, self.statistic) for e in effects]
        mixed = max(float((e.std(0) > e.mean(0).abs()).double().mean()) for e in effects)
        warnings = []
        if mixed >= _INTERACTS and self.statistic == "mu":
            warnings.append(
                f"in {mixed:.0%} of the parts the effect varies more (sigma) than its mean: what they do depends on "
                "what else is shown; look at statistic=mu_star and statistic=sigma"
            )
        return _painted(probe, units, [v for v, _ in found], [e for _, e in found], tuple(warnings))

    def _stops(self) -> list[int]:
        """After how many trajectories the error is looked at."""
        if self.tolerance is None:
            return [self.trajectories]
        return [*range(min(_FIRST, self.trajectories), self.trajectories), self.trajectories]


@dataclass(frozen=True)
class OneAtATime(Explainer):
    """How far the score falls when each part alone is hidden, all others shown.

    ``S(x) - S(x without part j)``: the elementary effect at one single point, which the review calls Morris. It is
    cheap, and blind to evidence that exists twice and to interactions.

    Returns:
        Signed attribution of one value for each part, in the target's unit.

    Raises:
        BadOption: players that cannot be cut.

    Source:
        saltelli2010avoid, who warn of it.

    Example:
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)))
        >>> OneAtATime(players="grid:2")(Probe(model, torch.rand(1, 1, 4, 4), ClassScore(1))).unit
        'logit'
    """

    players: Annotated[str, "parts: grid:4 (blocks per axis), superpixels:30, regions"] = "grid:4"
    infill: Annotated[Infill | None, "what a hidden part shows; None: the modality's first two fills, averaged"] = None

    card: ClassVar[Card] = Card(
        family=Family.PERTURBATION,
        shows="how far the score falls when one part alone is hidden",
        caution="misses evidence that exists twice and all interactions; depends on the fill and the parts",
        equation=r"S(x) - S(x_{j \to \mathrm{fill}})",
        source="saltelli2010avoid",
        cost_note="one forward for each part and fill",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        level=Level.REGION,
        agnostic=True,
    )

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        most = max(u.count for u in players_of(probe, self.players))
        return Cost(len(_fills(probe, self.infill)) * most)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        units = players_of(probe, self.players)
        designs = [~torch.eye(u.count, dtype=torch.bool) for u in units]
        fills = _fills(probe, self.infill)
        scores = torch.stack([_scores(probe, fill, units, designs) for fill in fills]).mean(0)
        whole = probe.baseline_score.double().cpu()
        falls = [w - s[: len(d)] for w, d, s in zip(whole, designs, scores.T, strict=True)]
        return _painted(probe, units, falls, None, ())


def trajectories(count: int, repeats: int, seed: int) -> Tensor:
    """Random states of ``count`` parts in which one part after the other is switched: "repeats * (count + 1) part".

    Args:
        count: of parts.
        repeats: trajectories.
        seed: of the draws.
    """
    draw, rows = torch.Generator().manual_seed(seed), []
    for _ in range(repeats):
        state = torch.rand(count, generator=draw) < 0.5
        rows.append(state.clone())
        for part in torch.randperm(count, generator=draw):
            state[part] = ~state[part]
            rows.append(state.clone())
    return torch.stack(rows)


def elementary_effects(design: Tensor, scores: Tensor) -> Tensor:
    """The effect of showing each part along each trajectory: "trajectory part".

    Args:
        design: as ``trajectories`` gives it.
        scores: of each row.
    """
    count = design.shape[1]
    states = design.view(-1, count + 1, count).double()
    along = scores.double().view(-1, count + 1)
    step = states[:, 1:] - states[:, :-1]  # one part at a time, +1 or -1
    return torch.einsum("ts,tsp->tp", along[:, 1:] - along[:, :-1], step)


def _statistic(effects: Tensor, which: Statistic) -> tuple[Tensor, Tensor]:
    """A statistic over the trajectories with its standard error (of sigma: by leaving one out)."""
    count = len(effects)
    if which != "sigma":
        used = effects.abs() if which == "mu_star" else effects
        return used.mean(0), used.std(0) / count**0.5
    if count < 3:
        return effects.std(0), torch.zeros_like(effects[0])
    left = torch.stack([torch.cat([effects[:i], effects[i + 1 :]]).std(0) for i in range(count)])
    return effects.std(0), left.std(0, correction=0) * (count - 1) ** 0.5


def _settled(effects: Tensor, which: Statistic, tolerance: float) -> bool:
    value, error = _statistic(effects, which)
    return float(error.max()) <= tolerance * float(value.abs().max())


def _fills(probe: Probe, infill: Infill | None) -> tuple[Infill, ...]:
    return (infill,) if infill is not None else tuple(dict.fromkeys(probe.scene.infills[:2]))


def _scores(probe: Probe, fill: Infill, units: Sequence[Units], designs: Sequence[Tensor]) -> Tensor:
    """The score of each state of each item, "state batch"; items with fewer states are shown whole in the rest."""
    return torch.stack(list(Stream(probe, fill).scores(_keeps(units, designs)))).double().cpu()


def _keeps(units: Sequence[Units], designs: Sequence[Tensor]) -> Iterator[Tensor]:
    alike = all(u is units[0] for u in units)
    pairs = list(zip(units, designs, strict=True))[: 1 if alike else None]
    for row in range(max(len(d) for _, d in pairs)):
        yield torch.stack([u.mask(d[row] if row < len(d) else torch.ones(u.count, dtype=torch.bool)) for u, d in pairs])


def _painted(
    probe: Probe, units: Sequence[Units], values: list[Tensor], errors: list[Tensor] | None, warnings: tuple[str, ...]
) -> Attribution:
    """Every voxel with the value of its part."""
    name = probe.model.primary
    like = probe.inputs[name]

    def paint(found: list[Tensor]) -> dict[str, Tensor]:
        return {name: torch.stack([v[u.labels] for v, u in zip(found, units, strict=True)])[:, None].to(like)}

    return Attribution(
        maps=paint(values),
        unit=probe.target.unit,
        signed=True,
        cell=units[0].extent(),
        error=paint(errors) if errors is not None else None,
        warnings=warnings,
    )
