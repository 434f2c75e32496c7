"""The deletion path read in other ways: mean fall, lead of the most over the least relevant, and over blocks."""

from abc import ABC
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, MetricCard, Property
from pellucid.core.errors import BadOption
from pellucid.core.grid import Grid
from pellucid.core.probe import Probe
from pellucid.core.units import Units, blocks, voxels
from pellucid.metrics.faithfulness.curves import path
from pellucid.metrics.faithfulness.filled import FilledMetric, Plan, Reading, whole_score
from pellucid.metrics.faithfulness.order import most_first

_ALONG = 8  # blocks along the longest side, where no size is given


@dataclass(frozen=True)
class _Path(FilledMetric, ABC, abstract=""):
    """Scores while units are hidden in the order of the map; the same masks as DeletionAUC of the same steps."""

    steps: Annotated[int, "points of the curve after the first"] = 20

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise BadOption(f"expected at least 2 steps, got {self.steps}", "20 is the default")

    def _masks(self, probe: Probe) -> int:
        return self.steps

    def _units(self, grid: Grid) -> Units:
        return voxels(grid.shape)

    def _ordered(self, probe: Probe, maps: Tensor) -> tuple[Units, Tensor, list[int]]:
        """Units, their order "batch unit" (most relevant first), and how many are hidden at each point."""
        units = self._units(probe.grid)
        counts = sorted({round(point * units.count / self.steps) for point in range(self.steps + 1)})
        return units, most_first(units, maps), counts

    def _plan(self, probe: Probe, maps: Tensor) -> Plan:
        units, order, counts = self._ordered(probe, maps)
        whole = whole_score(probe)[None]
        share = torch.tensor(counts, dtype=torch.float64) / units.count

        def read(rows: Tensor) -> Reading:
            curve = torch.cat([whole, rows])
            return Reading(self._value(curve, share), {"curve": curve.T.tolist(), "share": share.tolist()})

        return Plan(lambda: path(units, order, counts[1:], deleting=True), read)

    def _value(self, curve: Tensor, share: Tensor) -> Tensor:
        """The mean fall; "point batch" -> "batch"."""
        return (curve[0] - curve).mean(0)


@dataclass(frozen=True)
class PixelFlipping(_Path):
    """How far the score falls on average while voxels are hidden, most relevant first.

    ``mean over k = 0 ... L of S(x) - S(x with the top k/L hidden)``, on the masks of DeletionAUC. The mask is shared by
    the channels. Compare maps of one case only.

    Returns:
        Score in the target's unit; higher is better. Undefined for a constant map.

    Raises:
        BadOption: fewer than two steps.

    Source:
        bach2015lrp, which flips the pixels of a binary image and shows the curve; the mean is samek2017evaluating's.

    Example:
        >>> PixelFlipping(steps=10).card.direction
        'higher'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="how far the score falls on average while voxels are hidden, most relevant first",
        caution="hidden voxels may leave the data's distribution; depends on the fill, which is named",
        equation=r"\frac{1}{L+1}\sum_{k=0}^{L} (S(x) - S(x_{\mathrm{top}\,k/L \to \mathrm{fill}}))",
        source="bach2015lrp",
        cost_note="one forward per step and fill, shared with DeletionAUC",
        direction="higher",
        unit="target's unit",
        interval="any",
        asks=frozenset({Ask.OUTPUT}),
    )


@dataclass(frozen=True)
class SymmetricRelevanceGain(_Path):
    """How much longer the score lasts when the least relevant voxels are hidden first than when the most are.

    ``area of S with the lowest t hidden - area with the top t hidden``, t in [0, 1]. What the fill does to any image
    enters both and cancels to first order. Under one fill it is InsertionAUC less DeletionAUC, from the same masks.

    Returns:
        Score in the target's unit; higher is better, 0 is chance. Undefined for a constant map.

    Raises:
        BadOption: fewer than two steps.

    Source:
        bluecher2024decoupling.

    Example:
        >>> SymmetricRelevanceGain(steps=10).settings()["steps"]
        10
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="how much longer the score lasts when the least relevant voxels go first than when the most do",
        caution="hidden voxels may leave the data's distribution, though both orders do; the fill is named",
        equation=r"\int_0^1 S(x_{\mathrm{low}\,t \to \mathrm{fill}}) -"
        r" S(x_{\mathrm{top}\,t \to \mathrm{fill}})\,\mathrm{d}t",
        source="bluecher2024decoupling",
        cost_note="two forwards per step and fill, shared with DeletionAUC and InsertionAUC",
        direction="higher",
        unit="target's unit",
        interval="any",
        asks=frozenset({Ask.OUTPUT}),
    )

    def _masks(self, probe: Probe) -> int:
        return 2 * self.steps

    def _plan(self, probe: Probe, maps: Tensor) -> Plan:
        units, order, counts = self._ordered(probe, maps)
        whole = whole_score(probe)[None]
        share = torch.tensor(counts, dtype=torch.float64) / units.count

        def keeps() -> Iterator[Tensor]:
            yield from path(units, order, counts[1:], deleting=True)
            yield from path(units, order, counts[:-1], deleting=False)  # the lowest hidden is the top shown

        def read(rows: Tensor) -> Reading:
            most, least = rows.split(len(counts) - 1)
            most, least = torch.cat([whole, most]), torch.cat([least, whole])
            gain = torch.trapezoid(least, share, dim=0) - torch.trapezoid(most, share, dim=0)
            curves = {"most first": most.T.tolist(), "least first": least.flip(0).T.tolist()}
            return Reading(gain, {**curves, "share": share.tolist()})

        return Plan(keeps, read)


@dataclass(frozen=True)
class _Blocks(_Path, ABC, abstract=""):
    """The path over blocks of the image."""

    block: Annotated[float | None, "edge of the blocks in the grid's unit (mm, or px); None: 1/8 of the longest"] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block is not None and not self.block > 0:
            raise BadOption(f"expected a block with an edge above 0, got {self.block}", "8 px or 10 mm are usual")

    def _units(self, grid: Grid) -> Units:
        edge = self.block or max(n * s for n, s in zip(grid.shape, grid.spacing, strict=True)) / _ALONG
        return blocks(
            grid.shape, [min(n, max(1, round(v))) for n, v in zip(grid.shape, grid.voxels(edge), strict=True)]
        )


@dataclass(frozen=True)
class RegionPerturbation(_Blocks):
    """How far the score falls on average while blocks are hidden, most relevant first (AOPC).

    ``mean over k = 0 ... L of S(x) - S(x with the top k/L of the blocks hidden)``; blocks are ranked by the mean of the
    map. Squares and cubes have the same edge in millimeters along every axis. Compare maps of one case only.

    Returns:
        Score in the target's unit; higher is better. Undefined for a constant map.

    Raises:
        BadOption: fewer than two steps, or a block without extent.

    Source:
        samek2017evaluating, where 100 regions are hidden; here all are, in equal shares.

    Example:
        >>> RegionPerturbation(block=8.0).settings()["block"]
        8.0
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="how far the score falls on average while blocks are hidden, most relevant first",
        caution="the edges of hidden blocks are a structure of their own; depends on their size and the fill",
        equation=r"\frac{1}{L+1}\sum_{k=0}^{L} (S(x) - S(x_{k\,\mathrm{blocks} \to \mathrm{fill}}))",
        source="samek2017evaluating",
        cost_note="one forward per step and fill, shared with Selectivity",
        direction="higher",
        unit="target's unit",
        interval="any",
        asks=frozenset({Ask.OUTPUT}),
    )


@dataclass(frozen=True)
class Selectivity(_Blocks):
    """Area under the score while blocks are hidden, most relevant first; a selective map makes it fall fast.

    ``trapezoid of S(x with the top t of the blocks hidden) over t in [0, 1]``: the curve of RegionPerturbation, from
    the same forwards, read as an area. Compare maps of one case only.

    Returns:
        Score in the target's unit; lower is better. Undefined for a constant map.

    Raises:
        BadOption: fewer than two steps, or a block without extent.

    Source:
        montavon2018methods.

    Example:
        >>> Selectivity().card.direction
        'lower'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="how fast the score falls when the map's top blocks are hidden first",
        caution="the edges of hidden blocks are a structure of their own; depends on their size and the fill",
        equation=r"\int_0^1 S(x_{\mathrm{top}\,t\,\mathrm{blocks} \to \mathrm{fill}})\,\mathrm{d}t",
        source="montavon2018methods",
        cost_note="one forward per step and fill, shared with RegionPerturbation",
        direction="lower",
        unit="target's unit",
        interval="any",
        asks=frozenset({Ask.OUTPUT}),
    )

    def _value(self, curve: Tensor, share: Tensor) -> Tensor:
        return torch.trapezoid(curve, share, dim=0)
