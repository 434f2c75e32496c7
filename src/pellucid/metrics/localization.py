"""Whether a map lies where an expert (or planted truth) says the finding is."""

from abc import ABC
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool
from scipy.ndimage import distance_transform_edt
from skimage.filters import threshold_otsu
from torch import Tensor

from pellucid.core.card import MetricCard, Property
from pellucid.core.errors import BadOption, BadRegion
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer, Attribution
from pellucid.core.grid import Calibration, Grid
from pellucid.core.metric import Metric, Score
from pellucid.core.probe import Probe

_NO_REGION = "no expert or planted region"
_NO_MAP = "the answer is not a map"
_NOT_FINITE = "the map is not finite"


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
        maps = _maps(answer, probe)
        if region is None or maps is None:
            return Score.undefined(self, probe.batch, _NO_REGION if region is None else _NO_MAP)
        _check(region, probe.grid)
        values, reasons = [], []
        for one in maps:
            value, reason = self._one(one, region.cpu(), dice)
            values.append(value)
            reasons.append(reason)
        return Score(self.name, torch.tensor(values, dtype=torch.float64), tuple(reasons), self.settings())

    def _one(self, values: Tensor, region: Tensor, dice: bool) -> tuple[float, str]:
        if not bool(torch.isfinite(values).all()):
            return float("nan"), _NOT_FINITE
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


@dataclass(frozen=True)
class HitRate(Metric):
    """Whether the map's highest point lies in the expert's region (the pointing game).

    Tied maxima count at their expected value: the share of them inside, so a constant map scores the region's share of
    the image and not 1. One point says nothing about the rest of the map; chance is the region's share, in the detail.

    Returns:
        Score from 0 to 1, higher is better; undefined without a region, or when millimeters are asked of pixels.

    Raises:
        BadRegion: the region is empty, everything or of another shape.

    Source:
        zhang2018topdown, and saporta2022chexlocalize for the name.

    Example:
        >>> HitRate(radius_mm=5).settings()
        {'radius_mm': 5}
    """

    radius_mm: Annotated[float, "a peak this near to the region still hits; needs millimeters"] = 0.0

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.LOCALIZATION,
        shows="whether the map's highest point lies in the expert's region",
        caution="one point only; a large region is hit by chance",
        equation=r"|\arg\max \cap\, G| \,/\, |\arg\max|",
        source="zhang2018topdown",
        cost_note="none",
        direction="higher",
        needs_region=True,
    )

    def __post_init__(self) -> None:
        if self.radius_mm < 0:
            raise BadOption(f"expected a radius of at least 0 mm, got {self.radius_mm}", "0 asks for a hit inside")

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        maps = _maps(answer, probe)
        if region is None or maps is None:
            return Score.undefined(self, probe.batch, _NO_REGION if region is None else _NO_MAP)
        _check(region, probe.grid)
        target = region.cpu()
        if self.radius_mm > 0:
            if probe.grid.calibration is Calibration.NONE:
                return Score.undefined(
                    self, probe.batch, "the image has no millimeters, so a radius in mm means nothing"
                )
            distance = distance_transform_edt(~target.numpy(), sampling=probe.grid.spacing)
            target = torch.from_numpy(np.asarray(distance) <= self.radius_mm)
        finite = torch.isfinite(maps).flatten(1).all(1)
        highest = maps == maps.flatten(1).amax(1).view(-1, *(1,) * (maps.ndim - 1))
        hits = (highest & target).flatten(1).sum(1).double() / highest.flatten(1).sum(1).double()
        hits[~finite] = torch.nan
        reasons = tuple("" if f else _NOT_FINITE for f in finite.tolist())
        return Score(self.name, hits, reasons, self.settings(), {"chance": float(target.double().mean())})


def _maps(answer: Answer, probe: Probe) -> Tensor | None:
    if not isinstance(answer, Attribution):
        return None
    return answer.collapsed(probe.model.primary).detach().cpu()


def _check(region: Tensor, grid: Grid) -> None:
    if tuple(region.shape) != grid.shape:
        raise BadRegion(f"expected a region of shape {grid.shape}, got {tuple(region.shape)}", "use the input's grid")
    inside = int(region.sum())
    if inside in (0, region.numel()):
        what = "empty" if inside == 0 else "the whole image"
        raise BadRegion(f"the region is {what} on the network's grid", "check that mask and image show the same field")
