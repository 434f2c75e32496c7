"""Methods that hide parts of the image and watch the score."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family, Level
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.grid import Grid
from pellucid.core.infill import Infill, disagreement
from pellucid.core.masking import Stream
from pellucid.core.probe import Probe
from pellucid.core.space import per_item, starts


@dataclass(frozen=True)
class Occlusion(Explainer):
    """How far the score falls when a block of the image is hidden.

    A window slides over the image; each voxel gets the mean fall over the windows that cover it. There is no neutral
    fill: a black hole in a lung is a pneumothorax. So two fills are averaged by default, and their spread is told.
    Evidence that exists twice is missed, because hiding one copy changes nothing.

    Returns:
        Signed attribution in the target's unit: positive where hiding lowers the score.

    Raises:
        BadOption: a window or stride that is not positive, or a stride that leaves gaps.

    Source:
        zeiler2014visualizing. Overlapping windows are averaged by coverage.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> model, x = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))), torch.rand(1, 1, 4, 4)
        >>> Occlusion(window=2, stride=2)(Probe(model, x, ClassScore(1))).maps["image"].unique().numel()
        4
    """

    window: Annotated[
        float | None, "edge of the hidden block in the grid's unit (mm, or px); None: 1/8 of the image, 1/4 in 3-D"
    ] = None
    stride: Annotated[
        float | None, "step of the window in the grid's unit; None: half the window, in 3-D the window"
    ] = None
    infill: Annotated[Infill | None, "what the block shows; None: the modality's first two fills, averaged"] = None

    card: ClassVar[Card] = Card(
        family=Family.PERTURBATION,
        shows="how far the score falls when a block is hidden",
        caution="depends on the fill, which can look like disease; misses evidence that exists twice; window-coarse",
        equation=r"\mathrm{mean}_{w \ni i}\;\big[S(x) - S(x_{w \to \mathrm{fill}})\big]",
        source="zeiler2014visualizing",
        cost_note="one forward per window position and fill",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        level=Level.REGION,
        agnostic=True,
    )

    def __post_init__(self) -> None:
        for name, value in (("window", self.window), ("stride", self.stride)):
            if value is not None and value <= 0:
                raise BadOption(f"expected a positive {name}, got {value}", "give a length in mm (or px)")

    def geometry(self, grid: Grid) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Window and stride in voxels along each axis."""
        share, step = (8, 2) if grid.rank == 2 else (4, 1)  # a volume has many more positions
        typical = prod(n * s for n, s in zip(grid.shape, grid.spacing, strict=True)) ** (1 / grid.rank)
        edge = self.window or max(typical / share, 4 * min(grid.spacing))
        if self.stride is not None and self.stride > edge:
            raise BadOption(
                f"expected a stride of at most the window's {edge:g}, got {self.stride:g}",
                "voxels between two windows would never be hidden: take a smaller stride or a larger window",
            )
        window = tuple(min(n, max(1, round(v))) for n, v in zip(grid.shape, grid.voxels(edge), strict=True))
        stride = tuple(max(1, round(v)) for v in grid.voxels(self.stride or edge / step))
        return window, stride

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        grid = probe.grid
        window, stride = self.geometry(grid)
        positions = prod(len(starts(n, w, s)) for n, w, s in zip(grid.shape, window, stride, strict=True))
        return Cost(positions * (2 if self.infill is None else 1))

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        grid = probe.grid
        window, stride = self.geometry(grid)
        fills = probe.scene.infills[:2] if self.infill is None else (self.infill,)
        falls = [_falls(probe, fill, window, stride) for fill in fills]
        names = [n for n, x in probe.inputs.items() if tuple(x.shape[2:]) == grid.shape]
        fixed = [n for n in probe.inputs if n not in names]
        warnings = [f"input {n!r} was held fixed: it has another shape" for n in fixed]
        mean = torch.stack(falls).mean(0)
        warnings += disagreement(falls, fills)
        return Attribution(
            maps={probe.model.primary: mean},
            unit=probe.target.unit,
            signed=True,
            cell=tuple(float(w) for w in window),
            warnings=tuple(warnings),
        )


def _falls(probe: Probe, fill: Infill, window: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Mean fall of the score over the windows that cover each voxel: "batch 1 *space"."""
    shape = probe.grid.shape
    whole = probe.baseline_score
    total = torch.zeros(probe.batch, 1, *shape, device=whole.device, dtype=whole.dtype)
    cover = torch.zeros(1, 1, *shape, device=whole.device, dtype=whole.dtype)
    scores = Stream(probe, fill).scores(_keeps(shape, window, stride))
    for corner, score in zip(_corners(shape, window, stride), scores, strict=True):
        block = (slice(None), slice(None), *(slice(c, c + w) for c, w in zip(corner, window, strict=True)))
        total[block] += per_item(whole - score, total)
        cover[block] += 1
    return total / cover.clamp_min(1)


def _corners(shape: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return product(*(starts(n, w, s) for n, w, s in zip(shape, window, stride, strict=True)))


def _keeps(shape: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...]) -> Iterator[Tensor]:
    for corner in _corners(shape, window, stride):
        keep = torch.ones(1, *shape)
        keep[(slice(None), *(slice(c, c + w) for c, w in zip(corner, window, strict=True)))] = 0
        yield keep
