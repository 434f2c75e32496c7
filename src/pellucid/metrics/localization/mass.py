"""How much of a map's evidence lies in the region that an expert (or planted truth) gives."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool
from scipy import ndimage
from sklearn.metrics import average_precision_score
from torch import Tensor

from pellucid.core.card import MetricCard, Property
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.metric import Metric, Score
from pellucid.core.probe import Probe
from pellucid.metrics.localization.truth import NOT_FINITE, compared
from pellucid.metrics.maps import ranked

_NOTHING = "the map has no evidence for the target"


@dataclass(frozen=True)
class _OfRegion(Metric, ABC, abstract=""):
    """A number of each map and the region; chance is the region's share of the image, in the detail."""

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        given = compared(self, probe, answer, region)
        if isinstance(given, Score):
            return given
        maps, truth = given
        truth = self._shaped(truth)
        found = [self._one(m.double(), truth) if bool(torch.isfinite(m).all()) else NOT_FINITE for m in maps]
        values = torch.tensor([torch.nan if isinstance(f, str) else f for f in found], dtype=torch.float64)
        reasons = tuple(f if isinstance(f, str) else "" for f in found)
        return Score(self.name, values, reasons, self.settings(), {"chance": float(truth.double().mean())})

    def _shaped(self, region: Tensor) -> Tensor:
        """The region as this metric reads it."""
        return region

    @abstractmethod
    def _one(self, values: Tensor, region: Tensor) -> float | str:
        """The number of one map, or why there is none."""


@dataclass(frozen=True)
class RelevanceMass(_OfRegion):
    """Share of the evidence for the target that lies in the expert's region.

    ``sum of A+ in G / sum of A+`` of the map's positive part: a signed sum can exceed 1 or explode. A map spread evenly
    scores the region's share of the image, which stands in the detail as chance; large regions score high by area.

    Returns:
        Score from 0 to 1, higher is better; undefined without a region or where nothing speaks for the target.

    Raises:
        BadRegion: the region is empty, everything or of another shape.

    Source:
        arras2022clevrxai.

    Example:
        >>> RelevanceMass().card.interval
        '0 to 1'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.LOCALIZATION,
        shows="share of the evidence for the target that lies in the expert's region",
        caution="agreement with an expert, not with the model; a large region holds much by its area alone",
        equation=r"\sum_{G} A^+ \,/\, \sum A^+",
        source="arras2022clevrxai",
        cost_note="none",
        direction="higher",
        needs_region=True,
    )

    def _one(self, values: Tensor, region: Tensor) -> float | str:
        return _share(values, region)


@dataclass(frozen=True)
class EnergyPointing(_OfRegion):
    """Share of the evidence for the target that lies in the boxes around the expert's finding.

    ``sum of A+ in B / sum of A+``, where B holds the box around each connected part of the region. It forgives a map
    that is right about the place and not about the outline; otherwise as RelevanceMass.

    Returns:
        Score from 0 to 1, higher is better; undefined without a region or where nothing speaks for the target.

    Raises:
        BadRegion: the region is empty, everything or of another shape.

    Source:
        wang2020scorecam, which has boxes; each connected part of a mask gets its own.

    Example:
        >>> EnergyPointing().card.needs_region
        True
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.LOCALIZATION,
        shows="share of the evidence for the target that lies in the boxes around the expert's finding",
        caution="agreement with an expert, not with the model; a box around a thin or bent finding is mostly empty",
        equation=r"\sum_{B} A^+ \,/\, \sum A^+",
        source="wang2020scorecam",
        cost_note="none",
        direction="higher",
        needs_region=True,
    )

    def _shaped(self, region: Tensor) -> Tensor:
        labels, _ = ndimage.label(region.numpy(), structure=np.ones((3,) * region.ndim))
        boxes = torch.zeros_like(region)
        for box in ndimage.find_objects(labels):
            boxes[box] = True
        return boxes

    def _one(self, values: Tensor, region: Tensor) -> float | str:
        return _share(values, region)


@dataclass(frozen=True)
class RelevanceRank(_OfRegion):
    """Share of the expert's region that the map's strongest voxels cover, as many of them as the region has.

    ``|top |G| of A and G| / |G|``; voxels tied at the last place share what is left, so that their order does not
    matter. A constant map scores the region's share of the image.

    Returns:
        Score from 0 to 1, higher is better; undefined without a region.

    Raises:
        BadRegion: the region is empty, everything or of another shape.

    Source:
        arras2022clevrxai, with ties at their expected value.

    Example:
        >>> RelevanceRank().card.direction
        'higher'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.LOCALIZATION,
        shows="share of the expert's region that the map's strongest voxels cover",
        caution="agreement with an expert, not with the model; says nothing about the strength of the evidence",
        equation=r"|\mathrm{top}_{|G|}(A) \cap G| \,/\, |G|",
        source="arras2022clevrxai",
        cost_note="none",
        direction="higher",
        needs_region=True,
    )

    def _one(self, values: Tensor, region: Tensor) -> float | str:
        values, size = ranked(values[None])[0], int(region.sum())
        level = values.flatten().kthvalue(values.numel() - size + 1).values
        above, tied = values > level, values == level
        share = (size - float(above.sum())) / float(tied.sum())
        return (float((above & region).sum()) + share * float((tied & region).sum())) / size


@dataclass(frozen=True)
class AUPRC(_OfRegion):
    """How well the map's values part the voxels of the expert's region from the rest, over all thresholds.

    Average precision ``sum over thresholds of (R_n - R_{n-1}) P_n`` over voxels, not the trapezoid, which promises too
    much. A random map scores the region's share of the image: compare with it, it stands in the detail.

    Returns:
        Score from 0 to 1, higher is better; undefined without a region.

    Raises:
        BadRegion: the region is empty, everything or of another shape.

    Source:
        arun2021assessing for maps; scikit-learn's average precision.

    Example:
        >>> AUPRC().card.cost_note
        'none'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.LOCALIZATION,
        shows="how well the map's values part the expert's region from the rest, over all thresholds",
        caution="agreement with an expert, not with the model; chance is the region's share of the image",
        equation=r"\sum_n (R_n - R_{n-1})\, P_n",
        source="arun2021assessing",
        cost_note="none",
        direction="higher",
        needs_region=True,
    )

    def _one(self, values: Tensor, region: Tensor) -> float | str:
        return float(average_precision_score(region.flatten().numpy(), ranked(values[None])[0].flatten().numpy()))


def _share(values: Tensor, region: Tensor) -> float | str:
    """Of the map's positive part, how much lies in the region."""
    positive = values.clamp(min=0)
    total = float(positive.sum())
    return float(positive[region].sum()) / total if total > 0 else _NOTHING
