"""Owen values: Shapley values inside a hierarchy of the players, which many players can afford."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family, Level
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.infill import Infill
from pellucid.core.players import parse_players, players_of
from pellucid.core.probe import Probe
from pellucid.core.units import Units
from pellucid.explain.game import Found, Game, Strategy, fills_of

_Indices = NDArray[np.int64]
_UNSPLIT = 0.25  # of the value, shared out by size, from which on the reader is warned
_AT_ONCE = 8  # groups split between two looks at which are the largest


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Players in groups of two parts each, down to single players.

    Args:
        members: of each group; the first holds all players.
        parts: the two groups that a group falls into; None: a single player.
    """

    members: Bool[Tensor, "group player"]
    parts: tuple[tuple[int, int] | None, ...]

    @property
    def splits(self) -> int:
        """How often a group is split in two when all are, each in every setting of its siblings."""
        total, level, times = 0, [0], 1
        while level:
            inner = [p for p in (self.parts[g] for g in level) if p is not None]
            total += len(inner) * times
            level, times = [g for pair in inner for g in pair], 2 * times
        return total


def halved(centers: Float[Tensor, "player axis"]) -> Hierarchy:
    """Groups cut in two along their longest axis, between two rows of players.

    Args:
        centers: of the players, in one unit of length for all axes.
    """
    places = centers.numpy()
    members, parts, todo = [], [], [np.arange(len(places))]
    for group in todo:
        members.append(group)
        parts.append(None)
        if len(group) == 1:
            continue
        own = places[group]
        line = own[:, np.ptp(own, 0).argmax()]
        rows = line if len(group) == 2 else np.unique(line)
        middle = rows.max() if len(group) == 2 else rows[len(rows) // 2]
        low = line < middle if rows[0] != rows[-1] else np.arange(len(group)) < len(group) // 2
        parts[-1] = (len(todo), len(todo) + 1)
        todo += [group[low], group[~low]]
    return _of_lists(members, parts, len(centers))


def similar(features: Float[Tensor, "player feature"]) -> Hierarchy:
    """Groups joined bottom up by what adds least spread (Ward), so that neighbors that look alike come together."""
    count = len(features)
    if count == 1:
        return _of_lists([[0]], [None], 1)
    groups, joined = [[p] for p in range(count)], []
    for first, second in linkage(features.numpy(), "ward")[:, :2].astype(int):
        joined.append((int(first), int(second)))
        groups.append(groups[first] + groups[second])
    last = len(groups) - 1  # the whole: it comes first
    parts = [None if g < count else (last - joined[g - count][0], last - joined[g - count][1]) for g in range(last + 1)]
    return _of_lists(groups[::-1], parts[::-1], count)


def _of_lists(
    groups: Sequence[Sequence[int] | _Indices], parts: Sequence[tuple[int, int] | None], count: int
) -> Hierarchy:
    members = torch.zeros(len(groups), count, dtype=torch.bool)
    for row, group in enumerate(groups):
        members.numpy()[row, group] = True
    return Hierarchy(members, tuple(parts))


@dataclass(frozen=True, eq=False)
class _Group:
    """A group in one setting: who else is shown, and the scores without and with the group, for each fill."""

    number: int
    shown: NDArray[np.bool_]
    without: NDArray[np.float64]
    whole: NDArray[np.float64]
    weight: float


def owen(tree: Hierarchy, sizes: Int[Tensor, " player"], full: Tensor, splits: int) -> Strategy:
    """Split the group of the largest value in two, again and again, each part valued with and without the other.

    Args:
        tree: of the players.
        sizes: voxels of each player: a group that is never split is shared out by them.
        full: the score of everybody.
        splits: at most.
    """
    members = tree.members.numpy()  # thousands of small arrays: numpy is some times faster than torch here
    single = members.argmax(1)
    empty = (yield torch.zeros(1, len(sizes), dtype=torch.bool))[:, 0]
    values = np.zeros((len(empty), len(sizes)))
    heap: list[tuple[float, int, _Group]] = []
    order = 0

    def keep(group: _Group) -> None:
        nonlocal order
        gain = (group.whole - group.without) * group.weight
        if tree.parts[group.number] is None:
            values[:, single[group.number]] += gain
            return
        order += 1
        heappush(heap, (-abs(sum(gain.tolist())) / len(gain), order, group))

    keep(_Group(0, np.zeros(len(sizes), dtype=np.bool_), empty.numpy(), full.expand(len(empty)).numpy(), 1.0))
    while heap and splits > 0:
        chosen = [heappop(heap)[2] for _ in range(min(_AT_ONCE, splits, len(heap)))]
        splits -= len(chosen)
        asked = np.stack([g.shown | members[p] for g in chosen for p in tree.parts[g.number] or ()])
        paid = (yield torch.from_numpy(asked)).numpy()
        for g, (one, other) in zip(chosen, paid.T.reshape(len(chosen), 2, -1), strict=True):
            first, second = tree.parts[g.number] or (0, 0)
            for part, sibling, alone, rest in ((first, second, one, other), (second, first, other, one)):
                keep(_Group(part, g.shown, g.without, alone, g.weight / 2))
                keep(_Group(part, g.shown | members[sibling], rest, g.whole, g.weight / 2))
    left, known = -sum(value for value, _, _ in heap), float(np.abs(values.mean(0)).sum())
    for _, _, g in heap:
        share = members[g.number] * sizes.numpy()
        values += (g.whole - g.without)[:, None] * g.weight * share / share.sum()
    return Found(torch.from_numpy(values), empty, unsplit=left / (left + known) if left else 0.0)


@dataclass(frozen=True)
class PartitionSHAP(Explainer):
    """What each part of the image contributes to the score, found by splitting it where the score is.

    Owen values on a hierarchy of the players: the image is cut in two, each half valued with and without the other, and
    so on, the group of the largest value next. Blocks are halved along their longest axis; superpixels and regions
    join with neighbors that look alike. ``v(S)`` is the score with S as it is and all else filled. Players are compared
    only within their groups, so it equals the Shapley value for additive scores and depends on the hierarchy else; what
    is never split is shared out by size.

    Returns:
        Signed attribution in the target's unit; it sums to the score minus that of the filled image.

    Raises:
        BadOption: no such players, more players than samples, or fewer than 4 samples.

    Source:
        owen1977values, in the order of lundberg2017unified's software.

    Example:
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> model, x = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))), torch.rand(1, 1, 4, 4)
        >>> PartitionSHAP("grid:4", samples=200)(Probe(model, x, ClassScore(1))).maps["image"].unique().numel()
        16
    """

    players: Annotated[
        str | None,
        "grid:8 (blocks per axis), superpixels:60, regions, or regions:NAME+NAME; None: grid:8, in 3-D grid:4",
    ] = None
    samples: Annotated[int, "coalitions scored for each fill at most, nobody and everybody included"] = 512
    infill: Annotated[Infill | None, "what the hidden show; None: the modality's first two fills, averaged"] = None

    card: ClassVar[Card] = Card(
        family=Family.PERTURBATION,
        shows="the share of each part in the score's difference from the filled image, finest where the score is",
        caution="speaks relative to the fill, on images the model never saw; depends on how the parts are grouped",
        equation=r"\phi_{A} = \frac{1}{2}\left[v(S \cup A) - v(S)\right] + "
        r"\frac{1}{2}\left[v(S \cup A \cup B) - v(S \cup B)\right]",
        source="owen1977values",
        cost_note="two forwards per split and fill",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        level=Level.REGION,
        agnostic=True,
        completes=True,
    )

    def __post_init__(self) -> None:
        if self.players is not None:
            parse_players(self.players)
        if self.samples < 4:
            raise BadOption(f"expected at least 4 samples, got {self.samples}", "512 is usual")

    def _players(self, probe: Probe) -> str:
        return self.players or ("grid:8" if probe.grid.rank == 2 else "grid:4")

    def hierarchies(self, probe: Probe) -> tuple[Hierarchy, ...]:
        """Of the players of each item.

        Raises:
            BadOption: more players than samples.
        """
        text = self._players(probe)
        units = players_of(probe, text)
        most = max(u.count for u in units)
        if most > self.samples:
            raise BadOption(
                f"expected at most as many players as samples, got {most} players and {self.samples} samples",
                "take more samples, or fewer players",
            )
        if parse_players(text).kind == "grid":
            return probe.once(f"hierarchy {text}", lambda: (halved(_places(units[0], probe)),) * probe.batch)
        images = probe.inputs[probe.model.primary]
        return probe.once(
            f"hierarchy {text}",
            lambda: tuple(similar(_features(u, x, probe)) for u, x in zip(units, images, strict=True)),
        )

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        splits = min((self.samples - 2) // 2, max(h.splits for h in self.hierarchies(probe)))
        return Cost((1 + 2 * splits) * len(fills_of(probe, self.infill)))

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        trees = self.hierarchies(probe)
        game = Game(probe, self._players(probe), self.infill)
        strategies = [
            owen(tree, units.sizes, full, (self.samples - 2) // 2)
            for tree, units, full in zip(trees, game.players, game.full, strict=True)
        ]
        found = game.play(strategies)
        unsplit = max(f.unsplit for f in found)
        warnings = []
        if unsplit > _UNSPLIT:
            warnings.append(
                f"{unsplit:.0%} of the value lies in groups that the samples did not suffice to split: there it is "
                "shared out by size; take more samples, or fewer players"
            )
        return game.attribution(found, warnings)


def _places(units: Units, probe: Probe) -> Tensor:
    """Centers in the grid's unit."""
    return units.centers() * torch.tensor(probe.grid.spacing, dtype=torch.float64)


def _features(units: Units, image: Tensor, probe: Probe) -> Tensor:
    """Where each player lies, in edges of a player, and its mean intensities, in standard deviations of the image."""
    places = _places(units, probe)
    volume = torch.tensor([n * s for n, s in zip(probe.grid.shape, probe.grid.spacing, strict=True)]).prod()
    edge = float(volume / units.count) ** (1 / probe.grid.rank)
    image = image.double().cpu()
    means = torch.stack([units.means(channel) for channel in image], 1)
    spread = image.flatten(1).std(1).clamp_min(1e-12) * len(image) ** 0.5
    return torch.cat([places / edge, means / spread], 1)
