"""A threshold tuned on cases that are not scored with it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.errors import BadOption
from pellucid.metrics.localization.overlap import IoU, iou
from pellucid.metrics.localization.threshold import digest

Pair = tuple[Float[Tensor, "*space"], Bool[Tensor, "*space"]]
LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))


@dataclass(frozen=True)
class Tuned:
    """A threshold, and the cases it was tuned on.

    Args:
        threshold: ``fixed`` or ``share``.
        level: with the highest mean IoU; of several as good the middle one.
        tuned_on: the regions it was tuned on: a metric that knows them does not score such a case.
        curve: mean IoU at each level that was tried.
        cases: that could be thresholded at every level; the others were left out.

    Example:
        >>> region = torch.zeros(8, 8, dtype=torch.bool); region[2:4, 2:6] = True
        >>> tuned = tune_threshold([(region.double() + 0.3 * torch.eye(8).double(), region)])
        >>> tuned.threshold, tuned.level, len(tuned.tuned_on)
        ('fixed', 0.5, 12)
    """

    threshold: Literal["fixed", "share"]
    level: float
    tuned_on: str
    curve: tuple[tuple[float, float], ...]
    cases: int

    @property
    def text(self) -> str:
        """As a metric's parameters on the command: ``--metric Dice:TEXT``."""
        return f"threshold={self.threshold},level={self.level:g},tuned_on={self.tuned_on}"


def tune_threshold(
    pairs: Sequence[Pair], threshold: Literal["fixed", "share"] = "fixed", levels: Sequence[float] = LEVELS
) -> Tuned:
    """The level whose masks overlap best with the regions of some cases, in the mean of IoU.

    Tune on validation cases, on the grid on which maps are scored, and never report these cases: the metrics refuse
    them. The level depends on the method, so tune each on its own maps.

    Args:
        pairs: map and region of each case, "*space".
        threshold: a share of the map's maximum, or the top share of the image.
        levels: to be tried, between 0 and 1.

    Raises:
        BadOption: no case or level, or none of the maps can be thresholded.
    """
    if not pairs or not levels:
        raise BadOption("expected cases and levels to tune on, got none", "give maps with regions of validation cases")
    tried = [IoU(threshold, level) for level in sorted(levels)]
    table = np.asarray([[_one(metric, *pair) for metric in tried] for pair in pairs])
    known = ~np.isnan(table).any(1)
    if not known.any():
        raise BadOption(
            "none of the maps can be thresholded", "look at them: they are constant, or nothing speaks for it"
        )
    means = table[known].mean(0)
    best = np.flatnonzero(means >= means.max() - 1e-12)
    level = sorted(levels)[int(best[(len(best) - 1) // 2])]
    names = "+".join(sorted({digest(region.cpu()) for _, region in pairs}))
    curve = tuple((one, float(mean)) for one, mean in zip(sorted(levels), means, strict=True))
    return Tuned(threshold, float(level), names, curve, int(known.sum()))


def tune_elsewhere(
    pairs: Sequence[Pair],
    patients: Sequence[Hashable] | None = None,
    threshold: Literal["fixed", "share"] = "fixed",
    levels: Sequence[float] = LEVELS,
) -> list[Tuned]:
    """For each case the threshold tuned on all others, where there are too few to set some aside.

    Args:
        pairs: map and region of each case, "*space".
        patients: of each case: what belongs to the same one is left out with it; None: each case is its own.
        threshold: as ``tune_threshold``.
        levels: as ``tune_threshold``.

    Raises:
        BadOption: as ``tune_threshold``, or fewer than two patients.
    """
    owners = list(range(len(pairs))) if patients is None else list(patients)
    if len(owners) != len(pairs) or len(set(owners)) < 2:
        raise BadOption(
            f"expected a patient for each of {len(pairs)} cases, two patients or more, got {len(set(owners))} for "
            f"{len(owners)}",
            "a threshold is tuned on other patients than the one that is scored",
        )
    made = {
        owner: tune_threshold([p for p, o in zip(pairs, owners, strict=True) if o != owner], threshold, levels)
        for owner in dict.fromkeys(owners)
    }
    return [made[owner] for owner in owners]


def _one(metric: IoU, values: Tensor, region: Tensor) -> float:
    marked = metric.marked(values.detach().cpu(), int(region.sum()))
    return torch.nan if isinstance(marked, str) else iou(marked, region.cpu())
