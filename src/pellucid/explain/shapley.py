"""Shapley values: what each part of the image earns, averaged over all orders in which the parts could appear."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pellucid.core.card import Ask, Card, Cost, Family, Level
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.infill import Infill
from pellucid.core.players import parse_players, players_of
from pellucid.core.probe import Probe
from pellucid.explain.coalitions import exact, sampled, spent
from pellucid.explain.game import Game, fills_of

_MOST = 14  # players whose coalitions can all be scored: 16384 for each fill
_FILL = "what the hidden show; None: the modality's first two fills, averaged"
_PLAYERS = "grid:4 (blocks per axis), grid:2x4x4, superpixels:30, regions, or regions:NAME+NAME"


@dataclass(frozen=True)
class ExactShapley(Explainer):
    """What each part of the image contributes to the score, over every coalition of the others.

    ``sum over S of |S|! (M-|S|-1)! / M! (v(S + j) - v(S))``, where ``v(S)`` is the score with the players of S as they
    are and all others filled. The only fair split of the score's difference from the all-filled image, but of that
    alone: half-filled images are none the model knows, and few players are coarse. A player's value is spread evenly
    over its voxels.

    Returns:
        Signed attribution in the target's unit; it sums to the score minus that of the filled image.

    Raises:
        BadOption: no such players, or more than 14.

    Source:
        shapley1953value. Players as lundberg2017unified.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> model, x = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))), torch.rand(1, 1, 4, 4)
        >>> answer = ExactShapley("grid:2")(Probe(model, x, ClassScore(1)))
        >>> float(answer.gap) < 1e-4
        True
    """

    players: Annotated[str | None, f"{_PLAYERS}; None: grid:3, in 3-D grid:2"] = None
    infill: Annotated[Infill | None, _FILL] = None

    card: ClassVar[Card] = Card(
        family=Family.PERTURBATION,
        shows="the fair share of each part of the image in the score's difference from the filled image",
        caution="speaks relative to the fill, on images the model never saw; few players, so coarse",
        equation=r"\sum_{S \not\ni j} \frac{|S|!\,(M-|S|-1)!}{M!}\,\left[v(S \cup j) - v(S)\right]",
        source="shapley1953value",
        cost_note="one forward per coalition (2^players) and fill",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        level=Level.REGION,
        agnostic=True,
        completes=True,
    )

    def __post_init__(self) -> None:
        if self.players is not None:
            parse_players(self.players)

    def _players(self, probe: Probe) -> str:
        return self.players or ("grid:3" if probe.grid.rank == 2 else "grid:2")

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        count = max(u.count for u in players_of(probe, self._players(probe)))
        return Cost((2**count - 1) * len(fills_of(probe, self.infill)))

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        count = max(u.count for u in players_of(probe, self._players(probe)))
        if count > _MOST:
            raise BadOption(
                f"expected at most {_MOST} players, got {count}: every coalition is scored, which would be 2^{count}",
                "take fewer players (grid:3, in 3-D grid:2), or KernelSHAP, which samples",
            )
        game = Game(probe, self._players(probe), self.infill)
        return game.attribution(game.play([exact(u.count, v) for u, v in zip(game.players, game.full, strict=True)]))


@dataclass(frozen=True)
class KernelSHAP(Explainer):
    """What each part of the image contributes to the score, estimated from a sample of coalitions.

    Shapley values by weighted regression: coalitions in pairs with their complements, small ones all taken, sizes
    evenly spread, nobody and everybody exact. Where the budget holds every coalition the values are exact; under 64
    coalitions, or 4 per player, random orders forth and back are averaged. ``v(S)`` is the score with the players of S
    as they are and all others filled. Each value has its standard error; it is one of chance, not of the fill.

    Returns:
        Signed attribution in the target's unit, with the standard error of each value; it sums to the score minus that
        of the filled image.

    Raises:
        BadOption: no such players, too few samples for them, or a tolerance that is not positive.

    Source:
        lundberg2017unified; pairs and error after covert2021improving. Deviation: stratified, layers enumerated.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> model, x = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))), torch.rand(1, 1, 8, 8)
        >>> answer = KernelSHAP("grid:4", samples=96)(Probe(model, x, ClassScore(1)))
        >>> float(answer.error["image"].max()) < 1e-6  # two parts at a time cannot err, let alone one
        True
    """

    players: Annotated[str, _PLAYERS] = "grid:4"
    samples: Annotated[int, "coalitions scored for each fill, nobody and everybody included; at least 2 per player"] = (
        512
    )
    tolerance: Annotated[
        float | None, "stop when the largest standard error is below this share of the largest value; None: never"
    ] = None
    infill: Annotated[Infill | None, _FILL] = None

    card: ClassVar[Card] = Card(
        family=Family.PERTURBATION,
        shows="the fair share of each part of the image in the score's difference from the filled image, estimated",
        caution="speaks relative to the fill, on images the model never saw; as coarse as its players; sampling error",
        equation=r"\min_{\phi}\;\sum_{S} \frac{M-1}{C(M,|S|)\,|S|\,(M-|S|)}"
        r"\,\left[v(S) - v(\emptyset) - \sum_{j \in S} \phi_j\right]^2",
        source="lundberg2017unified",
        cost_note="one forward per coalition and fill",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        stochastic=True,
        level=Level.REGION,
        agnostic=True,
        completes=True,
    )

    def __post_init__(self) -> None:
        parse_players(self.players)
        if self.samples < 2:
            raise BadOption(f"expected at least 2 samples, got {self.samples}", "512 is usual")
        if self.tolerance is not None and not self.tolerance > 0:
            raise BadOption(f"expected a tolerance above 0, got {self.tolerance}", "0.05 is 5 % of the largest value")

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``; with a tolerance an upper bound."""
        units = players_of(probe, self.players)
        return Cost(max(spent(u.count, self.samples) for u in units) * len(fills_of(probe, self.infill)))

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        self.cost(probe)  # refuses too few samples before any pass is made
        game = Game(probe, self.players, self.infill)
        strategies = [
            sampled(u.count, v, self.samples, self.tolerance, probe.scene.seed)
            for u, v in zip(game.players, game.full, strict=True)
        ]
        return game.attribution(game.play(strategies))
