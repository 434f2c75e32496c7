"""Whether a map agrees with readers as well as they do with one another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool
from scipy import ndimage
from torch import Tensor

from pellucid.core.card import MetricCard, Property
from pellucid.core.case import consensus
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.metric import Score
from pellucid.core.probe import Probe
from pellucid.metrics.localization.overlap import dice, iou
from pellucid.metrics.localization.readers import ONE_READER, readers_or_expert
from pellucid.metrics.localization.threshold import Threshold, Thresholded

_Measure = Literal["iou", "dice", "hit"]


@dataclass(frozen=True)
class HumanBenchmark(Thresholded):
    """Whether the map agrees with readers as well as they do with one another: leave one reader out.

    Each reader, and the map, are measured against the consensus of the other readers, all by the same measure; the
    value is the map's mean less the readers'. ``hit``: one point each, the map's peak and the deepest point of a
    reader's mask (never "any of several"). The threshold is Otsu's: ``area`` would tell the map the size of the truth.

    Returns:
        Score from -1 to 1, at least minus the margin is no worse than readers; one case is a difference and no verdict:
        that takes an interval of its mean over cases. Undefined with one reader, or where the others share nothing.

    Raises:
        BadRegion: a mask is of another shape, or the consensus of all is everything.

    Source:
        saporta2022chexlocalize for the benchmark, whose readers may give several points; the symmetry is ours.

    Example:
        >>> HumanBenchmark(measure="hit", margin=0.1).settings()["measure"]
        'hit'
    """

    threshold: Annotated[Threshold, "what of the map counts; area tells it the size of the truth"] = "otsu"
    measure: Annotated[_Measure, "by which map and readers are measured alike"] = "iou"
    ties: Annotated[bool, "whether what exactly half of the others marked is in their consensus"] = True
    margin: Annotated[float, "how much worse than readers is still no worse"] = 0.1

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.LOCALIZATION,
        shows="how much better than the readers the map agrees with the consensus of the other readers",
        caution="agreement with readers, not with the model; on one case a difference, no verdict",
        equation=r"\frac{1}{R} \sum_r m(M, C_{-r}) - m(G_r, C_{-r})",
        source="saporta2022chexlocalize",
        cost_note="none",
        direction="higher",
        interval="-1 to 1",
        needs_region=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.measure not in get_args(_Measure):
            raise BadOption(f"expected measure {', '.join(get_args(_Measure))}, got {self.measure!r}", "choose one")
        if not 0 <= self.margin < 1:
            raise BadOption(f"expected a margin from 0 to below 1, got {self.margin}", "0.1 is a tenth of the measure")

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        given = self.given(probe, answer, region)
        if isinstance(given, Score):
            return given
        readers = readers_or_expert(probe, region)
        if len(readers) < 2:
            return Score.undefined(self, probe.batch, ONE_READER)
        others = {name: consensus([m for n, m in readers.items() if n != name], self.ties) for name in readers}
        for name, truth in others.items():
            if int(truth.sum()) in (0, truth.numel()):
                what = "nothing" if not bool(truth.any()) else "the whole image"
                return Score.undefined(self, probe.batch, f"without {name} the readers' consensus is {what}")
        spacing = probe.grid.spacing
        people = {name: self._reader(mask, others[name], spacing) for name, mask in readers.items()}
        rows = [self._map(one, list(others.values())) for one in given[0]]
        reasons = tuple(row if isinstance(row, str) else "" for row in rows)
        maps = [torch.nan if isinstance(row, str) else float(np.mean(row)) for row in rows]
        bench = float(np.mean(list(people.values())))
        detail = {
            "map": maps,
            "readers": bench,
            "by reader": people,
            "map by reader left out": [None if isinstance(r, str) else dict(zip(others, r, strict=True)) for r in rows],
            "verdict": "none on one case: the map is no worse than readers by this margin where the lower end of an "
            "interval of the mean over cases lies above minus the margin",
        }
        values = torch.tensor(maps, dtype=torch.float64) - bench
        return Score(self.name, values, reasons, self.settings(), detail)

    def _reader(self, mask: Tensor, truth: Tensor, spacing: tuple[float, ...]) -> float:
        """A reader against the others."""
        if self.measure == "hit":
            box = ndimage.find_objects(mask.numpy().astype(np.uint8))[0]
            depth = np.asarray(ndimage.distance_transform_edt(np.pad(mask.numpy()[box], 1), sampling=spacing))
            return _hit(torch.from_numpy(depth[(slice(1, -1),) * mask.ndim].copy()), truth[box])
        return (iou if self.measure == "iou" else dice)(mask.double(), truth)

    def _map(self, values: Tensor, truths: Sequence[Tensor]) -> list[float] | str:
        """A map against the same, one for each reader left out, or why it cannot be measured."""
        found: list[float] = []
        for truth in truths:
            marked = self.marked(values, int(truth.sum()))
            if isinstance(marked, str):
                return marked
            measure = iou if self.measure == "iou" else dice
            found.append(_hit(values, truth) if self.measure == "hit" else measure(marked, truth))
        return found


def _hit(values: Tensor, truth: Tensor) -> float:
    """Whether the highest point lies inside; of several, the share that does."""
    highest = values == values.max()
    return float((highest & truth).sum()) / float(highest.sum())
