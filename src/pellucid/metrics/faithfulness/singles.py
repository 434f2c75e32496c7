"""What the map says of single blocks: one hidden at a time, or one after the other shown."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, MetricCard, Property
from pellucid.core.probe import Probe
from pellucid.metrics.faithfulness.curves import path
from pellucid.metrics.faithfulness.filled import UNMOVED, Plan, Reading, rounding, whole_score
from pellucid.metrics.faithfulness.subsets import TiledMetric, hiding, pearson, sums, unvaried
from pellucid.metrics.maps import ranked


@dataclass(frozen=True)
class FaithfulnessEstimate(TiledMetric):
    """Whether the map's sum over a block tells how far the score falls when this block alone is hidden.

    ``Pearson over blocks i of (A_i, S(x) - S(x with i hidden))``. It does not depend on the map's scale. Where evidence
    is redundant, hiding one block changes nothing, and a right map scores low.

    Returns:
        Score from -1 to 1, higher is better; undefined where nothing hidden changes the score.

    Raises:
        BadOption: fewer than two blocks along each axis.

    Source:
        alvarezmelis2018towards; blocks in place of single voxels, whose absence a network hardly notices.

    Example:
        >>> FaithfulnessEstimate(along=6).card.interval
        '-1 to 1'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="whether the map's sum over a block tells how far the score falls when this block alone is hidden",
        caution="blind to redundant evidence, and to blocks that only matter together; depends on the fill",
        equation=r"\mathrm{corr}_i(A_i,\; S(x) - S(x_{i \to \mathrm{fill}}))",
        source="alvarezmelis2018towards",
        cost_note="one forward per block and fill",
        direction="higher",
        interval="-1 to 1",
        asks=frozenset({Ask.OUTPUT}),
    )

    def _masks(self, probe: Probe) -> int:
        return self._tiles(probe.grid).count

    def _plan(self, probe: Probe, maps: Tensor) -> Plan:
        units = self._tiles(probe.grid)
        alone, parts = torch.eye(units.count, dtype=torch.bool), sums(units, maps).T

        def read(rows: Tensor) -> Reading:
            fall = whole_score(probe) - rows
            return Reading(pearson(fall, parts), {"blocks": units.count}, unvaried(probe, fall, parts))

        return Plan(lambda: hiding(units, alone, probe.batch), read)


@dataclass(frozen=True)
class Monotonicity(TiledMetric):
    """Which share of the steps does not lower the score, while blocks are shown from the least relevant to the most.

    ``mean over k of [S(x_k) >= S(x_k-1)]``, ``x_0`` all fill and blocks added by ascending ``|A|``. A block that speaks
    against the target lowers the score even if the map is right about it; half is chance for a signed linear score.

    Returns:
        Score from 0 to 1, higher is better; undefined for a constant map, or where nothing shown changes the score.

    Raises:
        BadOption: fewer than two blocks along each axis.

    Source:
        arya2019one, where all steps must hold; here their share, so that one slip does not decide.

    Example:
        >>> Monotonicity(along=4).card.direction
        'higher'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="which share of the steps does not lower the score, while blocks are shown, least relevant first",
        caution="evidence against the target counts as a fault of the map; starts from an image no scanner made",
        equation=r"\frac{1}{d}\sum_{k=1}^{d} [S(x_k) \geq S(x_{k-1})]",
        source="arya2019one",
        cost_note="one forward per block and fill",
        direction="higher",
        asks=frozenset({Ask.OUTPUT}),
    )

    def _masks(self, probe: Probe) -> int:
        return self._tiles(probe.grid).count

    def _plan(self, probe: Probe, maps: Tensor) -> Plan:
        units, whole = self._tiles(probe.grid), whole_score(probe)[None]
        order = ranked(sums(units, maps).abs().to(maps)).argsort(dim=1, stable=True)

        def read(rows: Tensor) -> Reading:
            curve = torch.cat([rows, whole])
            least = rounding(probe, curve)
            rising = curve.diff(dim=0) >= -least
            still = (curve.amax(0) - curve.amin(0) <= least).tolist()
            detail = {"curve": curve.T.tolist(), "blocks": units.count}
            return Reading(rising.double().mean(0), detail, tuple(UNMOVED if one else "" for one in still))

        return Plan(lambda: path(units, order, range(units.count), deleting=False), read)
