"""How much of the score is gone when the image's own pieces are hidden, most relevant first."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, MetricCard, Property
from pellucid.core.errors import BadOption
from pellucid.core.probe import Probe
from pellucid.core.units import Units, body, superpixels
from pellucid.metrics.faithfulness.filled import FilledMetric, Plan, Reading, rounding, whole_score
from pellucid.metrics.faithfulness.order import most_first

_VOXELS = {2: 16, 3: 128}  # of a piece at least, on the full grid
_NOTHING_TO_LOSE = "the image scores no higher than the fill, so there is no share of the score to lose"


@dataclass(frozen=True)
class IROF(FilledMetric):
    """Which share of the score is gone, on average, while superpixels are hidden, most relevant first.

    ``mean over k = 1 ... L of (S(x) - S(x_k)) / (S(x) - S(fill))``; superpixels (supervoxels) are ranked by the mean of
    the map. The fill is taken from the whole image once: it does not drift while the image is emptied.

    Returns:
        Score, higher is better; above 1 where a part scores below the fill. Undefined where S(x) is not above S(fill).

    Raises:
        BadOption: fewer than two steps or superpixels.

    Source:
        rieger2020irof. Deviation: 1 - mean S(x_k) / S(x) is for a softmax; a logit may be negative, so scores count
        from that of the fill, and both agree where it is 0.

    Example:
        >>> IROF(pieces=40).settings()["steps"]
        20
    """

    pieces: Annotated[int, "superpixels, fewer where they would be too small"] = 60
    steps: Annotated[int, "points of the curve after the first"] = 20

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="which share of the score is gone, on average, while superpixels are hidden, most relevant first",
        caution="depends on the partition and on the fill, which is named; large superpixels hide much at once",
        equation=r"\frac{1}{L}\sum_{k=1}^{L} \frac{S(x) - S(x_k)}{S(x) - S(\mathrm{fill})}",
        source="rieger2020irof",
        cost_note="one forward per step and fill",
        direction="higher",
        interval="any, 1 where nothing is left at once",
        asks=frozenset({Ask.OUTPUT}),
    )

    def __post_init__(self) -> None:
        if min(self.steps, self.pieces) < 2:
            raise BadOption(
                f"expected at least 2 steps and 2 superpixels, got {self.steps} and {self.pieces}",
                "20 and 60 are the defaults",
            )

    def _masks(self, probe: Probe) -> int:
        return self.steps

    def _plan(self, probe: Probe, maps: Tensor) -> Plan:
        found = probe.once(f"{self.pieces} superpixels of the images", lambda: self._pieces(probe))
        ranks = torch.stack([_ranks(u, v) for u, v in zip(found, maps, strict=True)])
        total = torch.tensor([u.count for u in found]).view(-1, *(1,) * (ranks.ndim - 1))

        def keeps() -> Iterator[Tensor]:
            for point in range(1, self.steps + 1):
                yield (ranks >= (point * total / self.steps).round()).float()

        def read(rows: Tensor) -> Reading:
            whole = whole_score(probe)
            span = whole - rows[-1]
            low = span <= rounding(probe, torch.cat([whole[None], rows]))
            gone = (whole - rows) / torch.where(low, 1.0, span)
            reasons = tuple(_NOTHING_TO_LOSE if one else "" for one in low.tolist())
            curve = torch.cat([whole[None], rows]).T.tolist()
            return Reading(gone.mean(0), {"curve": curve, "pieces": total.flatten().tolist()}, reasons)

        return Plan(keeps, read)

    def _pieces(self, probe: Probe) -> list[Units]:
        """Of each item's own image: an item alone is cut as in a batch."""
        out = []
        for image in probe.inputs[probe.model.primary].cpu():
            most = int(body(image).sum()) // _VOXELS[probe.grid.rank]
            out.append(superpixels(image, max(1, min(self.pieces, most)), probe.grid.spacing))
        return out


def _ranks(units: Units, values: Tensor) -> Tensor:
    """Place of each voxel's unit in the order of the map, 0 first."""
    order = most_first(units, values[None])[0]
    place = torch.empty_like(order)
    place[order] = torch.arange(units.count)
    return place[units.labels]
