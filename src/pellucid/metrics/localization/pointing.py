"""Whether a map's highest point lies in the region that an expert (or planted truth) gives."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Bool
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from pellucid.core.card import MetricCard, Property
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.grid import Calibration
from pellucid.core.metric import Metric, Score
from pellucid.core.probe import Probe
from pellucid.metrics.localization.truth import NOT_FINITE, compared, finite


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
        given = compared(self, probe, answer, region)
        if isinstance(given, Score):
            return given
        maps, target = given
        if self.radius_mm > 0:
            if probe.grid.calibration is Calibration.NONE:
                return Score.undefined(
                    self, probe.batch, "the image has no millimeters, so a radius in mm means nothing"
                )
            distance = distance_transform_edt(~target.numpy(), sampling=probe.grid.spacing)
            target = torch.from_numpy(np.asarray(distance) <= self.radius_mm)
        sound = finite(maps)
        highest = maps == maps.flatten(1).amax(1).view(-1, *(1,) * (maps.ndim - 1))
        hits = (highest & target).flatten(1).sum(1).double() / highest.flatten(1).sum(1).double()
        hits[[not s for s in sound]] = torch.nan
        reasons = tuple("" if s else NOT_FINITE for s in sound)
        return Score(self.name, hits, reasons, self.settings(), {"chance": float(target.double().mean())})
