"""Whether the map's sum over parts of the image says what hiding them does: random subsets from one common bank."""

from abc import ABC
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.card import Ask, MetricCard, Property
from pellucid.core.errors import BadOption
from pellucid.core.grid import Grid
from pellucid.core.probe import Probe
from pellucid.core.units import Units, tiles
from pellucid.metrics.faithfulness.filled import FilledMetric, Plan, Reading, rounding, whole_score

_ALONG = {2: 8, 3: 4}  # blocks along each axis: 64 in all
_STILL = "hiding parts leaves the score as it is, or changes it by the same amount each time"
_EVEN = "the map has the same sum over every part that is hidden"


@dataclass(frozen=True)
class TiledMetric(FilledMetric, ABC, abstract=""):
    """A metric of the map's sums over blocks.

    Args:
        along: blocks along each axis.
    """

    along: Annotated[int | None, "blocks along each axis; None: 8 of an image, 4 of a volume"] = None

    def __post_init__(self) -> None:
        if self.along is not None and self.along < 2:
            raise BadOption(f"expected at least 2 blocks along each axis, got {self.along}", "8 and 4 are the defaults")

    def _tiles(self, grid: Grid) -> Units:
        """An axis with fewer voxels than blocks has as many blocks as voxels."""
        return tiles(grid.shape, [min(n, self.along or _ALONG[grid.rank]) for n in grid.shape])


def sums(units: Units, maps: Float[Tensor, "batch *space"]) -> Float[Tensor, "batch unit"]:
    """Of each map over each unit."""
    return torch.stack([units.means(v) * units.sizes for v in maps.double()])


def bank(units: int, size: int, subsets: int, seed: int) -> Bool[Tensor, "subset unit"]:
    """Random subsets of one size: larger ones hold smaller ones, and fewer subsets are the first of more.

    Args:
        units: to choose from.
        size: of each subset.
        subsets: how many.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(units, generator=generator) for _ in range(subsets)])
    return torch.zeros(subsets, units, dtype=torch.bool).scatter_(1, order[:, :size], True)


def hiding(units: Units, hidden: Bool[Tensor, "subset unit"], batch: int) -> Iterator[Float[Tensor, "batch *space"]]:
    """A mask for each subset, the same for every item: of the batch's size, as other metrics' masks in one sweep."""
    for one in hidden:
        yield units.mask(~one).expand(batch, *units.labels.shape)


def pearson(a: Float[Tensor, "sample batch"], b: Float[Tensor, "sample batch"]) -> Float[Tensor, " batch"]:
    """Correlation over samples; NaN where one of both is constant."""
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / (a.square().sum(0) * b.square().sum(0)).sqrt()


def unvaried(probe: Probe, effects: Tensor, parts: Tensor) -> tuple[str, ...]:
    """Why a correlation means nothing, by item: "sample batch" of effects and of the map's sums."""
    still = (effects - effects.mean(0)).abs().amax(0) <= rounding(probe, torch.cat([effects, whole_score(probe)[None]]))
    even = (parts - parts.mean(0)).abs().amax(0) <= 1e-12 * parts.abs().amax(0)
    return tuple(_STILL if s else _EVEN if e else "" for s, e in zip(still.tolist(), even.tolist(), strict=True))


@dataclass(frozen=True)
class FaithfulnessCorrelation(TiledMetric):
    """Whether the map's sum over a random part of the image tells how far the score falls when that part is hidden.

    ``Pearson over subsets S of (sum of A over S, S(x) - S(x with S hidden))``; subsets are ``share`` of the blocks, the
    same for every case and map. It does not depend on the map's scale.

    Returns:
        Score from -1 to 1, higher is better; undefined where nothing hidden changes the score.

    Raises:
        BadOption: fewer than three subsets, or a share outside (0, 1).

    Source:
        bhatt2020evaluating; blocks in place of single voxels, whose absence a network hardly notices.

    Example:
        >>> FaithfulnessCorrelation(subsets=50).settings()["share"]
        0.2
    """

    subsets: Annotated[int, "random subsets"] = 100
    share: Annotated[float, "of the blocks in each subset"] = 0.2

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="whether the map's sum over a random part tells how far the score falls when the part is hidden",
        caution="linear: parts that only matter together are missed; depends on the fill, which is named",
        equation=r"\mathrm{corr}_S(\sum_{i \in S} A_i,\; S(x) - S(x_{S \to \mathrm{fill}}))",
        source="bhatt2020evaluating",
        cost_note="one forward per subset and fill, shared with SensitivityN",
        direction="higher",
        interval="-1 to 1",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subsets < 3 or not 0 < self.share < 1:
            raise BadOption(
                f"expected at least 3 subsets and a share within (0, 1), got {self.subsets} and {self.share}",
                "100 and 0.2 are the defaults",
            )

    def _masks(self, probe: Probe) -> int:
        return self.subsets

    def _plan(self, probe: Probe, maps: Tensor) -> Plan:
        units = self._tiles(probe.grid)
        return _correlated(probe, units, sums(units, maps), [_size(self.share, units)], self.subsets)


@dataclass(frozen=True)
class SensitivityN(TiledMetric):
    """Whether the map's sum over any n blocks tells how far the score falls when they are hidden, for several n.

    ``mean over n of Pearson over subsets S of n blocks of (sum of A over S, S(x) - S(x with S hidden))``, per case; n
    are equal shares of the blocks, 0.2 ... 0.8 for four sizes. Each n's correlation stands in the detail.

    Returns:
        Score from -1 to 1, higher is better; undefined where nothing hidden changes the score.

    Raises:
        BadOption: fewer than one size or three subsets.

    Source:
        ancona2018towards; random subsets within one case, as there.

    Example:
        >>> SensitivityN(sizes=9).settings()["subsets"]
        50
    """

    sizes: Annotated[int, "different n, in equal shares of the blocks"] = 4
    subsets: Annotated[int, "random subsets of each size"] = 50

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="whether the map's sum over any n blocks tells how far the score falls when they are hidden",
        caution="linear: large n leave the data's distribution; depends on the fill, which is named",
        equation=r"\frac{1}{|N|}\sum_{n \in N} \mathrm{corr}_{|S|=n}(\sum_{i \in S} A_i,\;"
        r" S(x) - S(x_{S \to \mathrm{fill}}))",
        source="ancona2018towards",
        cost_note="one forward per size, subset and fill, shared with FaithfulnessCorrelation",
        direction="higher",
        interval="-1 to 1",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sizes < 1 or self.subsets < 3:
            raise BadOption(
                f"expected at least 1 size and 3 subsets, got {self.sizes} and {self.subsets}",
                "4 and 50 are the defaults",
            )

    def _masks(self, probe: Probe) -> int:
        return self.sizes * self.subsets

    def _plan(self, probe: Probe, maps: Tensor) -> Plan:
        units = self._tiles(probe.grid)
        chosen = [_size(i / (self.sizes + 1), units) for i in range(1, self.sizes + 1)]
        return _correlated(probe, units, sums(units, maps), sorted(set(chosen)), self.subsets)


def _size(share: float, units: Units) -> int:
    return min(units.count - 1, max(1, round(share * units.count)))


def _correlated(probe: Probe, units: Units, parts: Tensor, sizes: Sequence[int], subsets: int) -> Plan:
    """The correlation over the subsets of each size, and the mean of these."""
    hidden = torch.cat([bank(units.count, size, subsets, probe.scene.seed) for size in sizes])

    def read(rows: Tensor) -> Reading:
        fall, total = whole_score(probe) - rows, hidden.double() @ parts.T
        found, said = [], []
        for effects, of_map in zip(fall.split(subsets), total.split(subsets), strict=True):
            found.append(pearson(effects, of_map))
            said.append(unvaried(probe, effects, of_map))
        reasons = tuple(next(filter(None, one), "") for one in zip(*said, strict=True))
        detail = {"sizes": list(sizes), "blocks": units.count, "by size": torch.stack(found).T.tolist()}
        return Reading(torch.stack(found).mean(0), detail, reasons)

    return Plan(lambda: hiding(units, hidden, probe.batch), read)
