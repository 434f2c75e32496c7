"""Agreement of a map with several readers, beyond what chance would give."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from pellucid.core.card import MetricCard, Property
from pellucid.core.errors import BadRegion, UnknownName
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.metric import Score
from pellucid.core.probe import Probe
from pellucid.metrics.localization.threshold import Threshold, Thresholded
from pellucid.statistics.agreement import cohen, fleiss, krippendorff
from pellucid.statistics.interval import Interval

ONE_READER = "one reader only: agreement among readers needs two or more (--region READER=MASK)"
NO_INTERVAL = "voxels of one image are not independent: an interval needs cases"
_GROWN = 0.5  # of the readers' extent, by which the box around them grows to either side
_MANY_READERS = 16  # above which patterns are looked up and not counted out
_APART = ("value", "undefined")
Table = NDArray[np.float64]


def readers_or_expert(probe: Probe, region: Tensor | None) -> dict[str, Tensor]:
    """Masks by reader; of a case without named readers its one region.

    Raises:
        BadRegion: a mask of another shape than the input.
    """
    known = dict(probe.scene.readers) or ({} if region is None else {"expert": region})
    for name, mask in known.items():
        if tuple(mask.shape) != probe.grid.shape:
            raise BadRegion(
                f"expected the mask of {name} to have shape {probe.grid.shape}, got {tuple(mask.shape)}",
                "give it on the input's grid",
            )
    return {name: mask.cpu().bool() for name, mask in known.items()}


@dataclass(frozen=True)
class _OfReaders(Thresholded, ABC, abstract=""):
    """Agreement in a region of interest that is named, since it depends on how much background that holds."""

    threshold: Annotated[Threshold, "what of the map counts; area tells it the size of the truth"] = "otsu"
    roi: Annotated[str, "where agreement is counted: image, box (around all readers, twice as wide), or a region"] = (
        "image"
    )
    _fewest: ClassVar[int] = 2

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        given = self.thresholded(probe, answer, region)
        if isinstance(given, Score):
            return given
        masks, _ = given
        readers = readers_or_expert(probe, region)
        if len(readers) < self._fewest:
            return Score.undefined(self, probe.batch, ONE_READER)
        place, words = self._place(probe, readers)
        for name, mask in readers.items():
            if int(mask[place].sum()) in (0, int(place.sum())):
                reason = f"{name} marked nothing of the region of interest, or all of it"
                return Score.undefined(self, probe.batch, reason)
        codes, known = coded([r[place] for r in readers.values()])
        rows = [
            m if isinstance(m, str) else self._one(tuple(readers), *patterns(m[place], codes, known)) for m in masks
        ]
        found = [row if isinstance(row, str) else row.get("undefined", "") for row in rows]
        values = [torch.nan if isinstance(row, str) else row["value"] for row in rows]
        beside = [k for k in next((row for row in rows if not isinstance(row, str)), {}) if k not in _APART]
        detail = {k: [None if isinstance(row, str) else row[k] for row in rows] for k in beside}
        detail |= {"roi": words, "roi voxels": int(place.sum()), "readers": list(readers), "interval": NO_INTERVAL}
        return Score(self.name, torch.tensor(values, dtype=torch.float64), tuple(found), self.settings(), detail)

    @abstractmethod
    def _one(self, readers: Sequence[str], table: Table, often: Table) -> dict[str, Any]:
        """Value, why it is undefined if so, and what stands beside it.

        Args:
            readers: names.
            table: "pattern rater" of marks in the region of interest, the map first.
            often: voxels of each pattern.
        """

    def _place(self, probe: Probe, readers: Mapping[str, Tensor]) -> tuple[Tensor, str]:
        shape = probe.grid.shape
        if self.roi == "image":
            return torch.ones(shape, dtype=torch.bool), "the whole image"
        if self.roi == "box":
            return _box(torch.stack(list(readers.values())).any(0)), "a box around all readers, twice as wide"
        if self.roi not in probe.scene.regions:
            known = ", ".join(["image", "box", *probe.scene.regions])
            raise UnknownName(f"the case has no region {self.roi!r} to count agreement in", f"there are: {known}")
        return probe.scene.regions[self.roi].cpu().bool(), f"the region {self.roi}"


@dataclass(frozen=True)
class CohenKappa(_OfReaders):
    """Cohen's kappa of the thresholded map with each reader, in the mean over readers.

    ``(p_o - p_e) / (1 - p_e)`` over voxels of the region of interest. It grows with the background toward Dice: at a
    Dice of .70 it is .40, .68 or .70 for 200, 2,000 or 200,000 voxels, so a limit such as 0.6 means nothing without the
    region of interest; both stand in the detail, with Dice. It works with one expert, too.

    Returns:
        Score from -1 to 1, higher is better; undefined without a region, or where a reader marked nothing or all of it.

    Raises:
        BadRegion: a mask is of another shape, or the region is empty or everything.
        UnknownName: the region of interest is not one of the case.

    Source:
        cohen1960coefficient.

    Example:
        >>> CohenKappa(roi="box").settings()["roi"]
        'box'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.LOCALIZATION,
        shows="agreement of the map's strongest part with each reader, beyond chance",
        caution="agreement with readers, not with the model; grows with the background in the region of interest",
        equation=r"\frac{1}{R} \sum_r (p_o - p_e) \,/\, (1 - p_e)",
        source="cohen1960coefficient",
        cost_note="none",
        direction="higher",
        interval="-1 to 1",
        needs_region=True,
    )
    _fewest: ClassVar[int] = 1

    def _one(self, readers: Sequence[str], table: Table, often: Table) -> dict[str, Any]:
        kappas = {n: _kappa(table[:, 0], table[:, i], often) for i, n in enumerate(readers, 1)}
        pairs = [(i, j) for i in range(1, table.shape[1]) for j in range(1, i)]
        apart = [_kappa(table[:, i], table[:, j], often) for i, j in pairs]
        return {
            "value": float(np.mean(list(kappas.values()))),
            "by reader": kappas,
            "readers with each other": float(np.mean(apart)) if apart else None,
            "dice": _dices(readers, table, often),
        }


@dataclass(frozen=True)
class _OfMany(_OfReaders, ABC, abstract=""):
    """The thresholded map as one more rater beside the readers; the readers alone stand beside it."""

    def _one(self, readers: Sequence[str], table: Table, often: Table) -> dict[str, Any]:
        alone, joined = self._of(table[:, 1:], often), self._of(table, often)
        return {
            "value": joined.value,
            "undefined": joined.note if np.isnan(joined.value) else "",
            "readers alone": alone.value,
            "difference": joined.value - alone.value,
            "dice": _dices(readers, table, often),
        }

    @abstractmethod
    def _of(self, table: Table, often: Table) -> Interval:
        """Agreement of raters, from every pattern of marks and how often it occurs."""


@dataclass(frozen=True)
class FleissKappa(_OfMany):
    """Fleiss' kappa of the readers with the thresholded map as one more of them.

    ``(P - P_e) / (1 - P_e)`` over voxels of the region of interest, P the share of pairs of raters that agree. The
    readers' own kappa stands in the detail with the difference: a map that agrees as they do changes nothing. As every
    kappa of masks it grows with the background.

    Returns:
        Score up to 1, higher is better; undefined with one reader, or where a reader marked nothing or everything.

    Raises:
        BadRegion: a mask is of another shape, or the region is empty or everything.
        UnknownName: the region of interest is not one of the case.

    Source:
        fleiss1971measuring.

    Example:
        >>> FleissKappa().card.interval
        '-1 to 1'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.LOCALIZATION,
        shows="agreement of several readers with the map as one more of them, beyond chance",
        caution="agreement with readers, not with the model; compare with the readers alone, in the same place",
        equation=r"(\bar{P} - \bar{P}_e) \,/\, (1 - \bar{P}_e)",
        source="fleiss1971measuring",
        cost_note="none",
        direction="higher",
        interval="-1 to 1",
        needs_region=True,
    )

    def _of(self, table: Table, often: Table) -> Interval:
        ones = table.sum(1)
        return fleiss(np.stack([ones, table.shape[1] - ones], 1), often)


@dataclass(frozen=True)
class KrippendorffAlpha(_OfMany):
    """Krippendorff's alpha of the readers with the thresholded map as one more of them.

    ``1 - D_o / D_e`` over voxels of the region of interest, of categories. With every reader at every voxel it is
    Fleiss' kappa but for a share of one voxel; it is what protocols ask for.

    Returns:
        Score up to 1, higher is better; undefined with one reader, or where a reader marked nothing or everything.

    Raises:
        BadRegion: a mask is of another shape, or the region is empty or everything.
        UnknownName: the region of interest is not one of the case.

    Source:
        hayes2007answering.

    Example:
        >>> KrippendorffAlpha("fixed", 0.5).level
        0.5
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.LOCALIZATION,
        shows="agreement of several readers with the map as one more of them, by their disagreement",
        caution="agreement with readers, not with the model; compare with the readers alone, in the same place",
        equation=r"1 - D_o \,/\, D_e",
        source="hayes2007answering",
        cost_note="none",
        direction="higher",
        interval="-1 to 1",
        needs_region=True,
    )

    def _of(self, table: Table, often: Table) -> Interval:
        return krippendorff(table, weights=often)


def coded(readers: Sequence[Tensor]) -> tuple[NDArray[np.int64], Table]:
    """For each voxel which pattern of readers marked it, and the patterns "pattern reader".

    Args:
        readers: masks of the same voxels.
    """
    codes = np.zeros(readers[0].numel(), dtype=np.int64)
    for place, mask in enumerate(readers):
        codes |= mask.flatten().numpy().astype(np.int64) << place
    seen = np.arange(2 ** len(readers))
    if len(readers) > _MANY_READERS:
        seen, codes = np.unique(codes, return_inverse=True)
    return codes, ((seen[:, None] >> np.arange(len(readers))) & 1).astype(float)


def patterns(marked: Tensor, codes: NDArray[np.int64], known: Table) -> tuple[Table, Table]:
    """Every pattern of marks "pattern rater", the map first, and how many voxels have it; ties count in part.

    Args:
        marked: by the map, from 0 to 1, of each voxel.
        codes: as ``coded`` gives them.
        known: likewise.
    """
    share, count = marked.flatten().double().numpy(), len(known)
    often = np.concatenate([np.bincount(codes, part, count) for part in (1 - share, share)]).astype(float)
    table = np.concatenate([np.column_stack([np.full(count, float(mark)), known]) for mark in (0, 1)])
    return table[often > 0], often[often > 0]


def _kappa(one: Table, other: Table, often: Table) -> float:
    """Of two columns of a table of patterns."""
    return cohen([[float((a * b) @ often) for b in (other, 1 - other)] for a in (one, 1 - one)]).value


def _dices(readers: Sequence[str], table: Table, often: Table) -> dict[str, float]:
    """Of the map with each reader, in the same region of interest."""
    sizes = often @ table
    return {
        n: float(2 * (often @ (table[:, 0] * table[:, i])) / (sizes[0] + sizes[i])) for i, n in enumerate(readers, 1)
    }


def _box(marked: Tensor) -> Tensor:
    """The box around what is marked, grown to either side."""
    box = torch.zeros_like(marked)
    where = marked.nonzero()
    low, high = where.amin(0), where.amax(0) + 1
    more = ((high - low) * _GROWN).ceil().long()
    box[tuple(slice(max(0, int(a - m)), int(b + m)) for a, b, m in zip(low, high, more, strict=True))] = True
    return box
