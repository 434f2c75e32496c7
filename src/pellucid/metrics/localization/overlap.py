"""Overlap of a map with the region that an expert (or planted truth) gives."""

from abc import ABC
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool
from skimage.filters import threshold_otsu
from torch import Tensor

from pellucid.core.card import MetricCard, Property
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.metric import Metric, Score
from pellucid.core.probe import Probe
from pellucid.metrics.localization.truth import NOT_FINITE, compared


@dataclass(frozen=True)
class _Overlap(Metric, ABC, abstract=""):
    """Overlap of the thresholded map with the region; a benchmark only, never for display."""

    threshold: Annotated[
        Literal["area", "otsu"], "what of the map counts: as many top voxels as the region has, or Otsu's threshold"
    ] = "area"

    def __post_init__(self) -> None:
        if self.threshold not in ("area", "otsu"):
            raise BadOption(f"expected threshold 'area' or 'otsu', got {self.threshold!r}", "choose one of these")

    def _overlap(self, probe: Probe, answer: Answer, region: Tensor | None, dice: bool) -> Score:
        given = compared(self, probe, answer, region)
        if isinstance(given, Score):
            return given
        maps, truth = given
        values, reasons = [], []
        for one in maps:
            value, reason = self._one(one, truth, dice)
            values.append(value)
            reasons.append(reason)
        return Score(self.name, torch.tensor(values, dtype=torch.float64), tuple(reasons), self.settings())

    def _one(self, values: Tensor, region: Tensor, dice: bool) -> tuple[float, str]:
        if not bool(torch.isfinite(values).all()):
            return float("nan"), NOT_FINITE
        if bool(values.max() == values.min()):
            return float("nan"), "the map is constant: it has no highest part"
        size = int(region.sum())
        if self.threshold == "area":
            level = values.flatten().kthvalue(values.numel() - size + 1).values
            above, tied = values > level, values == level
            # voxels tied at the level share what is left of the area, so that their order does not matter
            share = (size - float(above.sum())) / float(tied.sum())
            common = float((above & region).sum()) + share * float((tied & region).sum())
            chosen = float(size)
        else:
            picked = values > float(threshold_otsu(values.numpy()))
            common, chosen = float((picked & region).sum()), float(picked.sum())
        if dice:
            return 2 * common / (chosen + size), ""
        return common / (chosen + size - common), ""


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
        >>> IoU(threshold="otsu").settings()
        {'threshold': 'otsu'}
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

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        return self._overlap(probe, answer, region, dice=False)


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

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        return self._overlap(probe, answer, region, dice=True)
