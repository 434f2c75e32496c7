"""A case: the images of one examination with what is known about it, and never a patient's name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from pellucid.core.errors import BadRegion, UnknownName
from pellucid.core.grid import Grid
from pellucid.core.image import Image
from pellucid.core.space import resample


@dataclass(frozen=True, eq=False)
class Region:
    """A mask on a grid, with where it comes from.

    Args:
        mask: "*space", true inside.
        grid: of the same shape.
        source: ``expert``, ``planted``, ``atlas``, ``drawn`` or ``predicted``.
        reader: who drew it, where several readers marked the same finding; empty: nobody in particular.

    Raises:
        BadRegion: the mask is empty or of another shape than its grid.

    Example:
        >>> drawn = Region(torch.eye(4) > 0, Grid.regular((4, 4)), source="drawn")
        >>> int(drawn.on(Grid.regular((4, 4)).resized((2, 2))).sum())
        2
    """

    mask: Bool[Tensor, "*space"]
    grid: Grid
    source: str = "expert"
    reader: str = ""

    def __post_init__(self) -> None:
        if tuple(self.mask.shape) != self.grid.shape:
            raise BadRegion(
                f"expected a mask of shape {self.grid.shape}, got {tuple(self.mask.shape)}",
                "give the mask on the image's own grid",
            )
        if not bool(self.mask.any()):
            raise BadRegion("expected a region with at least one voxel, got an empty mask", "leave the region out")

    def on(self, grid: Grid) -> Bool[Tensor, "*size"]:
        """The mask at the voxel centers of another grid of the same world (nearest)."""
        if self.grid.same_geometry(grid):
            return self.mask
        moved = resample(self.mask[None, None].float(), self.grid, grid, mode="nearest")
        return moved[0, 0] > 0.5


@dataclass(frozen=True)
class SeriesChoice:
    """Which series of a study became the image, in words that say nothing of the patient.

    Args:
        number: its place in the list of ``pellucid dicom series``, from 1.
        of: series there were.
        why: it was chosen.
        rejected: the others, each with its place and the reason.
        by: ``card``: the model's, by rule; ``number``: somebody's.

    Example:
        >>> SeriesChoice(2, 2, "the only one that fits the model card", ("1: a localizer",)).words
        'series 2 of 2, the only one that fits the model card; not taken: 1: a localizer'
    """

    number: int
    of: int
    why: str
    rejected: tuple[str, ...] = ()
    by: Literal["card", "number"] = "card"

    @property
    def words(self) -> str:
        """In one sentence."""
        others = f"; not taken: {'; '.join(self.rejected)}" if self.rejected else ""
        return f"series {self.number} of {self.of}, {self.why}{others}"


@dataclass(frozen=True, eq=False)
class Case:
    """What is explained: named images, regions and facts of one examination.

    Args:
        name: a pseudonym; it appears in file names and reports.
        images: by input name of the model; a single image is simply called ``image``.
        regions: by name: expert annotations, planted truth, organs.
        covariates: numbers the model or a subgroup analysis uses.
        label: the reference label, where known.
        group: site or scanner, for strata.
        notes: sentences every picture of the case must carry (``PLANTED ...``).
        patient: a pseudonym that cases of one patient share; None: nobody said, and the case stands for itself.
        series: which series of a study the image is, where there were several; None: there was no choice.
        files: that each image was read from. They may be named after the patient: opened again, and never shown.

    Example:
        >>> film = Image(torch.zeros(1, 8, 8), Grid.regular((8, 8)))
        >>> Case("case-7", {"image": film}, label="normal").region("nodule")
        Traceback (most recent call last):
        pellucid.core.errors.UnknownName: case case-7 has no region 'nodule'. regions: none.
    """

    name: str
    images: Mapping[str, Image]
    regions: Mapping[str, Region] = field(default_factory=dict)
    covariates: Mapping[str, float] = field(default_factory=dict)
    label: str | None = None
    group: str | None = None
    notes: tuple[str, ...] = ()
    patient: str | None = None
    series: SeriesChoice | None = None
    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict, repr=False)

    def region(self, name: str) -> Region:
        """The region of this name, or an error that lists those there are."""
        if name not in self.regions:
            raise UnknownName(
                f"case {self.name} has no region {name!r}", f"regions: {', '.join(self.regions) or 'none'}"
            )
        return self.regions[name]


def as_mask(values: Tensor) -> Bool[Tensor, "*space"]:
    """Any non-zero voxel as true."""
    return (values != 0).to(torch.bool)


def consensus(masks: Sequence[Bool[Tensor, "*space"]], ties: bool = True) -> Bool[Tensor, "*space"]:
    """Voxels that the majority of several readers marked.

    Args:
        masks: of the same finding, one of each reader, on one grid.
        ties: whether a voxel that exactly half of them marked is inside (of two readers the union, else the overlap).

    Example:
        >>> anna, boris = torch.tensor([True, True, False]), torch.tensor([False, True, False])
        >>> consensus([anna, boris]).tolist(), consensus([anna, boris], ties=False).tolist()
        ([True, True, False], [False, True, False])
    """
    votes = 2 * torch.stack(list(masks)).sum(0)
    return votes >= len(masks) if ties else votes > len(masks)
