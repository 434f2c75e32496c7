"""Overlap of a map with the region that an expert (or planted truth) gives."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from pellucid.core.card import MetricCard, Property
from pellucid.core.errors import BadRegion, UnknownName
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.metric import Score
from pellucid.core.probe import Probe
from pellucid.metrics.localization.threshold import Thresholded


def iou(marked: Tensor, region: Tensor) -> float:
    """Intersection over union of a mask (in parts, where voxels are tied) and a region."""
    common = float(marked[region].sum())
    return common / (float(marked.sum()) + float(region.sum()) - common)


def dice(marked: Tensor, region: Tensor) -> float:
    """Twice the intersection over the sum of both."""
    return 2 * float(marked[region].sum()) / (float(marked.sum()) + float(region.sum()))


@dataclass(frozen=True)
class _Overlap(Thresholded, ABC, abstract=""):
    """Overlap of the thresholded map with the region."""

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        given = self.thresholded(probe, answer, region)
        if isinstance(given, Score):
            return given
        masks, truth = given
        reasons = tuple(m if isinstance(m, str) else "" for m in masks)
        values = [torch.nan if isinstance(m, str) else self._of(m, truth) for m in masks]
        marked, share = (
            [torch.nan if isinstance(m, str) else float(m.mean()) for m in masks],
            float(truth.double().mean()),
        )
        chance = [self._by_chance(m * share, m + share) for m in marked]
        detail = {"share marked": marked, "share of the region": share, "chance": chance}
        return Score(self.name, torch.tensor(values, dtype=torch.float64), reasons, self.settings(), detail)

    @abstractmethod
    def _of(self, marked: Tensor, region: Tensor) -> float:
        """The number of one map."""

    @abstractmethod
    def _by_chance(self, common: float, both: float) -> float:
        """The number of as many voxels at random, of what they have in common on average and of both sizes."""


@dataclass(frozen=True)
class IoU(_Overlap):
    """Intersection over union of the thresholded map and the expert's region.

    ``|M and G| / |M or G|``; by default M is the map's top ``|G|`` voxels, ties shared. It rewards maps that look like
    the annotation, whether or not the model works that way; compare with what readers reach among themselves.

    Returns:
        Score from 0 to 1, higher is better; undefined without a region or for a constant map.

    Raises:
        BadRegion: the region is empty, everything or of another shape.

    Source:
        jaccard1912distribution.

    Example:
        >>> IoU(threshold="otsu").settings()["threshold"]
        'otsu'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.LOCALIZATION,
        shows="overlap of the map's strongest part with the expert's region",
        caution="agreement with an expert, not with the model; depends on the threshold, which is named",
        equation=r"|M \cap G| \,/\, |M \cup G|",
        source="jaccard1912distribution",
        cost_note="none",
        direction="higher",
        needs_region=True,
    )

    def _of(self, marked: Tensor, region: Tensor) -> float:
        return iou(marked, region)

    def _by_chance(self, common: float, both: float) -> float:
        return common / (both - common)


@dataclass(frozen=True)
class Dice(_Overlap):
    """Dice coefficient of the thresholded map and the expert's region.

    ``2 |M and G| / (|M| + |G|)``; by default M is the map's top ``|G|`` voxels, ties shared. The same ranking as IoU
    on one case (Dice = 2 IoU / (1 + IoU)), larger numbers.

    Returns:
        Score from 0 to 1, higher is better; undefined without a region or for a constant map.

    Raises:
        BadRegion: the region is empty, everything or of another shape.

    Source:
        dice1945measures.

    Example:
        >>> Dice().card.direction
        'higher'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.LOCALIZATION,
        shows="overlap of the map's strongest part with the expert's region",
        caution="agreement with an expert, not with the model; depends on the threshold, which is named",
        equation=r"2|M \cap G| \,/\, (|M| + |G|)",
        source="dice1945measures",
        cost_note="none",
        direction="higher",
        needs_region=True,
    )

    def _of(self, marked: Tensor, region: Tensor) -> float:
        return dice(marked, region)

    def _by_chance(self, common: float, both: float) -> float:
        return 2 * common / both


@dataclass(frozen=True)
class MeanIoU(Thresholded):
    """Mean IoU over the classes of one case: its marked regions, and what lies outside of them all.

    ``(1/C) sum over c of |M_c and G_c| / |M_c or G_c|``, as segmentation counts it; the background's M is what the
    threshold leaves. Around a small finding the background is near 1 and lifts any map toward .5: ``background=false``
    leaves it out. What CheXlocalize calls mIoU is a mean of IoU over cases; a table of cases gives it.

    Returns:
        Score from 0 to 1, higher is better; undefined without a region or for a constant map.

    Raises:
        BadRegion: a region is empty, everything or of another shape.
        UnknownName: the case has no region of that name.

    Source:
        everingham2010pascal.

    Example:
        >>> MeanIoU(regions="edema+tumor", background=False).settings()["regions"]
        'edema+tumor'
    """

    regions: Annotated[str, "names of regions of the case, joined by +; none: the one region of the case"] = ""
    background: Annotated[bool, "whether what lies outside every region is a class of its own"] = True

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.LOCALIZATION,
        shows="overlap of the map with the expert's regions, mean over them and the background",
        caution="agreement with an expert; the background of a small finding lifts it, and a map has one target only",
        equation=r"\frac{1}{C} \sum_c |M_c \cap G_c| \,/\, |M_c \cup G_c|",
        source="everingham2010pascal",
        cost_note="none",
        direction="higher",
        needs_region=True,
    )

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        chosen = self._chosen(probe.scene.regions, region)
        everything = torch.stack([m.cpu() for m in chosen.values()]).any(0) if chosen else None
        outside = self.thresholded(probe, answer, everything)
        if isinstance(outside, Score):
            return outside
        masks, union = outside
        found: dict[str, list[float]] = {}
        for name, one in chosen.items():
            given = self.thresholded(probe, answer, one)
            if isinstance(given, Score):
                return given
            found[name] = [torch.nan if isinstance(m, str) else iou(m, given[1]) for m in given[0]]
        if self.background:
            found["background"] = [torch.nan if isinstance(m, str) else iou(1 - m, ~union) for m in masks]
        values = torch.tensor(list(found.values()), dtype=torch.float64).mean(0)
        reasons = tuple(m if isinstance(m, str) else "" for m in masks)
        return Score(self.name, values, reasons, self.settings(), {"by class": found})

    def _chosen(self, known: Mapping[str, Tensor], region: Tensor | None) -> dict[str, Tensor]:
        names = [n.strip() for n in self.regions.split("+") if n.strip()]
        if missing := [n for n in names if n not in known]:
            raise UnknownName(f"the case has no region {missing[0]!r}", f"regions: {', '.join(known) or 'none'}")
        if len({known[n].shape for n in names}) > 1:
            raise BadRegion("the regions have different shapes", "give all on the input's grid")
        if names:
            return {n: known[n] for n in names}
        return {} if region is None else {"region": region}
