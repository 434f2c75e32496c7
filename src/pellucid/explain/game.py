"""A case as a game: players are parts of the image, a coalition is shown, the rest filled, the score is the payoff."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.explanation import Attribution
from pellucid.core.infill import Infill, disagreement
from pellucid.core.masking import Stream
from pellucid.core.players import players_of
from pellucid.core.probe import Probe
from pellucid.core.units import Units


@dataclass(frozen=True, eq=False)
class Found:
    """What the players of one item are worth.

    Args:
        values: for each fill.
        empty: the score of nobody, for each fill.
        error: standard error of the mean over the fills; None: nothing was drawn.
        unsplit: share of all value that lies in groups which were valued as one and shared out by size.
    """

    values: Float[Tensor, "fill player"]
    empty: Float[Tensor, " fill"]
    error: Float[Tensor, " player"] | None = None
    unsplit: float = 0.0


# asks for coalitions "coalition player", is sent their payoffs "fill coalition", returns what it found
Strategy = Generator[Tensor, Tensor, Found]


def fills_of(probe: Probe, infill: Infill | None) -> tuple[Infill, ...]:
    """The fill that was chosen, or the scene's first two, one of them where both are the same."""
    return (infill,) if infill is not None else tuple(dict.fromkeys(probe.scene.infills[:2]))


class Game:
    """The game of each item of a batch.

    ``v(S)`` is the score with the players of ``S`` as they are and all others filled: the interventional value on a
    given fill, not an average over what could stand there. All inputs of the primary input's shape are shown and
    hidden together.

    Args:
        probe: of the batch.
        players: see ``parse_players``.
        infill: what stands for the hidden; None: the scene's first two, one after the other.
    """

    def __init__(self, probe: Probe, players: str, infill: Infill | None) -> None:
        self.probe = probe
        self.players = players_of(probe, players)
        self.fills = fills_of(probe, infill)
        self._streams = [Stream(probe, fill) for fill in self.fills]
        device = probe.model.device
        moved = {id(u): Units(u.labels.to(device), u.count, u.names) for u in self.players}
        self._units = [moved[id(u)] for u in self.players]

    @property
    def full(self) -> Float[Tensor, " batch"]:
        """The score with everybody shown, whatever the fill."""
        return self.probe.baseline_score.double().cpu()

    def payoffs(self, shown: Sequence[Bool[Tensor, "coalition player"]]) -> Float[Tensor, "batch fill coalition"]:
        """The score of each item's coalitions, as many for each item."""
        rows = [list(stream.scores(self._keeps(shown))) for stream in self._streams]
        return torch.stack([torch.stack(row) for row in rows]).permute(2, 0, 1).double().cpu()

    def _keeps(self, shown: Sequence[Tensor]) -> Iterator[Tensor]:
        device = self.probe.model.device
        asked = [s.to(device) for s in shown]
        alike = all(u is self._units[0] for u in self._units) and all(torch.equal(s, asked[0]) for s in asked)
        if not alike:
            for row in range(len(asked[0])):
                yield torch.stack([units.mask(s[row]) for units, s in zip(self._units, asked, strict=True)])
            return
        for some in asked[0].split(self._streams[0].chunk):
            yield from self._units[0].masks(some)[:, None]

    def play(self, strategies: Sequence[Strategy]) -> list[Found]:
        """Run one strategy for each item side by side: each goes its own way, whatever the others of the batch ask."""
        waiting: dict[int, Tensor] = {i: next(s) for i, s in enumerate(strategies)}
        answers: dict[int, list[Tensor]] = {i: [] for i in waiting}
        found: dict[int, Found] = {}
        while waiting:
            rows = min(len(asked) for asked in waiting.values())
            everybody = [torch.ones(rows, u.count, dtype=torch.bool) for u in self.players]
            paid = self.payoffs([waiting[i][:rows] if i in waiting else all_ for i, all_ in enumerate(everybody)])
            for i in list(waiting):
                answers[i].append(paid[i])
                waiting[i] = waiting[i][rows:]
                if len(waiting[i]):
                    continue
                try:
                    waiting[i] = strategies[i].send(torch.cat(answers.pop(i), 1))
                    answers[i] = []
                except StopIteration as end:
                    found[i] = end.value
                    del waiting[i]
        return [found[i] for i in range(len(strategies))]

    def attribution(self, found: Sequence[Found], warnings: Sequence[str] = ()) -> Attribution:
        """Each player's value spread evenly over its voxels, so that the map sums to the difference of the scores.

        Args:
            found: for each item.
            warnings: of the method itself.
        """
        probe, primary = self.probe, self.probe.model.primary
        like = probe.baseline_score

        def spread(values: Sequence[Tensor]) -> Tensor:
            maps = [u.density(v.to(u.labels.device)) for u, v in zip(self._units, values, strict=True)]
            return torch.stack(maps)[:, None].to(like)

        errors = [f.error for f in found if f.error is not None]
        extents = torch.tensor([u.extent() for u in self.players])
        effects = [torch.cat([f.values[k] for f in found]) for k in range(len(self.fills))]
        still = [n for n, x in probe.inputs.items() if x.shape[2:] != probe.inputs[primary].shape[2:]]
        return Attribution(
            maps={primary: spread([f.values.mean(0) for f in found])},
            unit=probe.target.unit,
            signed=True,
            cell=tuple(float(e) for e in extents.mean(0)),
            error={primary: spread(errors)} if errors else None,
            difference=(self.full - torch.stack([f.empty.mean() for f in found])).to(like),
            warnings=(
                *(f"input {n!r} was held fixed: it has another shape" for n in still),
                *disagreement(effects, self.fills),
                *warnings,
            ),
        )
