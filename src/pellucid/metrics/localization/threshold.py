"""Which voxels of a map count as marked, where a metric needs a mask and not values."""

import hashlib
import re
from abc import ABC
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from skimage.filters import threshold_otsu
from torch import Tensor

from pellucid.core.errors import BadOption
from pellucid.core.explanation import Answer
from pellucid.core.metric import Metric, Score
from pellucid.core.probe import Probe
from pellucid.metrics.localization.truth import NOT_FINITE, compared

Threshold = Literal["area", "otsu", "fixed", "share"]
TUNED_HERE = "the threshold was tuned on this very case"
_DIGESTS = re.compile(r"[0-9a-f]{12}(\+[0-9a-f]{12})*")


@dataclass(frozen=True)
class Thresholded(Metric, ABC, abstract=""):
    """A metric of the map as a mask; a benchmark only, a thresholded map is never for display."""

    threshold: Annotated[
        Threshold,
        "what counts: as many top voxels as the region has (area), above Otsu's threshold (otsu), a share of the "
        "map's maximum or more (fixed), or the top share of the image",
    ] = "area"
    level: Annotated[float | None, "the share that fixed and share need, between 0 and 1"] = None
    tuned_on: Annotated[str, "regions that level was tuned on, as tuning gives them; such a case is undefined"] = ""

    def __post_init__(self) -> None:
        kinds = get_args(Threshold)
        if self.threshold not in kinds:
            raise BadOption(
                f"expected threshold {', '.join(map(repr, kinds[:-1]))} or {kinds[-1]!r}, got {self.threshold!r}",
                "choose one of these",
            )
        wants = self.threshold in ("fixed", "share")
        if wants and (self.level is None or not 0 < self.level < 1):
            raise BadOption(
                f"expected a level between 0 and 1 for threshold {self.threshold!r}, got {self.level}",
                "write for example threshold=fixed,level=0.5, or tune it on other cases",
            )
        if not wants and (self.level is not None or self.tuned_on):
            raise BadOption(f"threshold {self.threshold!r} has no level", "leave it out, or choose fixed or share")
        if self.tuned_on and not _DIGESTS.fullmatch(self.tuned_on):
            raise BadOption("expected tuned_on as tuning gives it, got something else", "copy the whole setting")

    def given(self, probe: Probe, answer: Answer, region: Tensor | None) -> tuple[Tensor, Tensor] | Score:
        """The maps and the region, or an undefined Score: also where the threshold was tuned on this case."""
        found = compared(self, probe, answer, region)
        if not isinstance(found, Score) and digest(found[1]) in self.tuned_on.split("+"):
            return Score.undefined(self, probe.batch, TUNED_HERE)
        return found

    def thresholded(
        self, probe: Probe, answer: Answer, region: Tensor | None
    ) -> tuple[list[Tensor | str], Tensor] | Score:
        """Each item's marked voxels (see ``marked``) or why there are none, and the region; or an undefined Score."""
        found = self.given(probe, answer, region)
        if isinstance(found, Score):
            return found
        maps, truth = found
        return [self.marked(one, int(truth.sum())) for one in maps], truth

    def marked(self, values: Float[Tensor, "*space"], size: int) -> Float[Tensor, "*space"] | str:
        """How far each voxel counts as marked, from 0 to 1, or why none does.

        Voxels tied at the last place of ``area`` and ``share`` share what is left, so that their order does not matter.

        Args:
            values: of one map.
            size: voxels of the region.
        """
        if not bool(torch.isfinite(values).all()):
            return NOT_FINITE
        if bool(values.max() == values.min()):
            return "the map is constant: it has no highest part"
        if self.threshold == "otsu":
            return (values > float(threshold_otsu(values.numpy()))).double()
        if self.level is not None and self.threshold == "fixed":
            return above(values, self.level)
        many = size if self.level is None else max(1, round(self.level * values.numel()))
        return top(values, many)


def above(values: Float[Tensor, "*space"], level: float) -> Float[Tensor, "*space"] | str:
    """Voxels of at least a share of the map's maximum, which must speak for the target."""
    highest = float(values.max())
    return (values >= level * highest).double() if highest > 0 else "the map has no evidence for the target"


def top(values: Float[Tensor, "*space"], size: int) -> Float[Tensor, "*space"]:
    """The highest voxels, those tied at the last place in part."""
    level = values.flatten().kthvalue(values.numel() - size + 1).values
    higher, tied = (values > level).double(), (values == level).double()
    return higher + tied * ((size - higher.sum()) / tied.sum())


def digest(region: Bool[Tensor, "*space"]) -> str:
    """What tells a case's region from others, whatever method made the map."""
    words = f"{tuple(region.shape)}".encode()
    return hashlib.blake2b(words + np.packbits(region.numpy()).tobytes(), digest_size=6).hexdigest()
