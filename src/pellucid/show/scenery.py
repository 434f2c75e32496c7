"""What a map is drawn on: the image cut into panes at exact pixels, with its reference region, letters and ruler."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pellucid.core.case import Region
from pellucid.core.errors import BadOption
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image
from pellucid.core.prepare import Prepared
from pellucid.show.palette import Palette, palette_of
from pellucid.show.pane import Outline, Tile
from pellucid.show.planes import Plane, body_axis, planes
from pellucid.show.raster import Pixels, Window, is_color, linear, paint_base, peaks, window_of
from pellucid.show.rules import scale_bar
from pellucid.show.words import number

_TALLEST = 1.25  # height of a pane over its width, at most
_ROOM = 0.35  # of the network's field, left around it where the picture is cut to it
_DARK = 0.08
_SOURCES = {
    "expert": "expert outline",
    "planted": "PLANTED truth",
    "atlas": "atlas region",
    "drawn": "drawn region",
    "predicted": "the model's own prediction",
}
_LETTERS = ("LR", "PA", "HF")


@dataclass(frozen=True, eq=False)
class Framing:
    """How a case is framed, the same for all its maps.

    Args:
        region: outlined in a style of its own; None: there is none.
        region_name: for the legend.
        notes: sentences every picture of the case must carry; words in capitals at their start are burned in.
        at: voxel through which a volume is cut; None: center of the region, else the map's peak.
        show_anyway: draw maps although the model says no.
        width: of the panes of one row together, in pixels.
        whole: show the whole image, also where the network saw only a small part of it.
        views: planes of a volume: all three, or the first one (axial in a patient).
    """

    region: Region | None = None
    region_name: str = ""
    notes: tuple[str, ...] = ()
    at: tuple[int, ...] | None = None
    show_anyway: bool = False
    width: int = 860
    whole: bool = False
    views: Literal[1, 3] = 3


@dataclass(frozen=True, eq=False)
class Pane:
    """One plane of the image, painted.

    Args:
        plane: that is cut.
        base: RGB.
        name: plane and slice, in words.
        outlines: of the reference region and of the field the network saw.
        scale: pixels per unit length of the grid.
    """

    plane: Plane
    base: Pixels
    name: str
    outlines: tuple[Outline, ...]
    scale: float


@dataclass(frozen=True, eq=False)
class Scenery:
    """The panes of an image, before any map.

    Args:
        grid: of what is drawn: the image's, or the part of it around what the network saw.
        start: first voxel of that part.
        at: voxel through which a volume is cut, on ``grid``.
        panes: painted.
        palette: of the modality.
        window: values shown as black and white, in words.
        marks: burned into every pane.
        notes: below every figure.
    """

    grid: Grid
    start: tuple[int, ...]
    at: tuple[int, ...]
    panes: tuple[Pane, ...]
    palette: Palette
    window: str
    marks: tuple[str, ...]
    notes: tuple[str, ...]

    def crop(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """The part of "*space" values on the image's grid that is drawn."""
        return values[tuple(slice(s, s + n) for s, n in zip(self.start, self.grid.shape, strict=True))]

    def pixels(self, pane: Pane, values: NDArray[np.generic], smooth: bool) -> Pixels:
        """A map (already cropped) at the pixels of a pane."""
        return peaks(pane.plane.cut(values, self.at), pane.base.shape[:2], smooth)

    def tile(self, pane: Pane, bare: bool = False) -> Tile:
        """A pane without a map; ``bare``: also without outlines."""
        height, width = pane.base.shape[:2]
        bar = scale_bar(self.grid, min(width / pane.scale, height / pane.scale))
        return Tile(
            title=pane.name,
            base=pane.base,
            outlines=() if bare else pane.outlines,
            sides=pane.plane.sides,
            ruler=(bar[0] * pane.scale, bar[1]) if bar else None,
            marks=self.marks,
        )


def make_scenery(
    image: Image | None, prepared: Prepared | None, grid: Grid, framing: Framing, at: Sequence[int], across: int
) -> Scenery:
    """Cut, size and paint the panes of a case.

    Args:
        image: None: a map without an image, drawn on a dark field.
        prepared: tells which part of the image the network saw.
        grid: of the image, or of the map where there is none.
        framing: region, notes and size.
        at: voxel through which a volume is cut, on ``grid``.
        across: panes in a row.

    Raises:
        BadOption: ``at`` lies outside the grid.
    """
    if len(at) != grid.rank or any(not 0 <= i < n for i, n in zip(at, grid.shape, strict=True)):
        raise BadOption(f"expected a voxel inside {grid.shape}, got {tuple(at)}", "give one index per axis")
    start, shape = ((0,) * grid.rank, grid.shape) if framing.whole else _field(prepared, grid, at)
    part = _Part(image, prepared, grid.cropped(start, shape), start, at, framing, window_of(image) if image else None)
    cut = planes(part.grid)[: framing.views]
    scale = _scale(cut, part.grid, (framing.width - 12 * (across - 1)) / across)
    panes = []
    for plane in cut:
        height, width = (max(8, round(e * scale)) for e in plane.extent(shape))
        size = (height, width)
        outlines = tuple(o for o in (part.reference(plane, size), part.seen(plane, size)) if o)
        panes.append(Pane(plane, part.base(plane, size), _slice_words(plane, grid, at), outlines, scale))
    words = part.window.words if part.window else ""
    marks = burned(framing.notes)
    return Scenery(part.grid, start, part.local, tuple(panes), part.palette, words, marks, framing.notes)


@dataclass(frozen=True, eq=False)
class _Part:
    """The part of an image that is drawn, before it is cut into planes."""

    image: Image | None
    prepared: Prepared | None
    grid: Grid
    start: tuple[int, ...]
    at: Sequence[int]
    framing: Framing
    window: Window | None

    @property
    def local(self) -> tuple[int, ...]:
        return tuple(i - s for i, s in zip(self.at, self.start, strict=True))

    @property
    def palette(self) -> Palette:
        return palette_of(self.image.modality if self.image else None)

    @cached_property
    def mask(self) -> NDArray[np.bool_] | None:
        region = self.framing.region
        return None if region is None else region.on(self.grid).cpu().numpy()

    def base(self, plane: Plane, size: tuple[int, int]) -> Pixels:
        if self.image is None or self.window is None:
            return np.full((*size, 3), _DARK, np.float32)
        box = tuple(slice(s, s + n) for s, n in zip(self.start, self.grid.shape, strict=True))
        chosen = self.image.data if is_color(self.image) else self.image.data[:1]
        cut = [linear(plane.cut(c[box].detach().cpu().float().numpy(), self.local), size) for c in chosen]
        return paint_base(np.stack(cut), self.window, self.palette)

    def reference(self, plane: Plane, size: tuple[int, int]) -> Outline | None:
        region = self.framing.region
        if region is None or self.mask is None:
            return None
        label = region_label(region, self.framing.region_name)
        return Outline(linear(plane.cut(self.mask, self.local), size), 0.5, self.palette.expert, "expert", label)

    def seen(self, plane: Plane, size: tuple[int, int]) -> Outline | None:
        """The border of what the network looked at; none where that is everything."""
        if self.prepared is None:
            return None
        index = np.empty((size[0] * size[1], self.grid.rank))
        if plane.normal is not None:
            index[:, plane.normal] = self.local[plane.normal]
        lines = []
        for axis, count, flip in zip((plane.rows, plane.columns), size, plane.flip, strict=True):
            voxels = (np.arange(count) + 0.5) * self.grid.shape[axis] / count - 0.5
            lines.append(self.grid.shape[axis] - 1 - voxels if flip else voxels)
        down, across = np.meshgrid(*lines, indexing="ij")
        index[:, plane.rows], index[:, plane.columns] = down.ravel(), across.ravel()
        inside = self.prepared.grid.index(self.grid.world(index))
        last = np.asarray(self.prepared.grid.shape) - 0.5
        depth = np.minimum(inside + 0.5, last - inside).min(1).reshape(size).astype(np.float32)
        # a rim of less than a voxel is the rounding of the sizes, not a part that was left out
        return None if depth.min() > -1 else Outline(depth, 0.0, "#cfd8e0", "seen", "what the network saw")


def burned(notes: Sequence[str]) -> tuple[str, ...]:
    """The words in capitals at the start of the notes, which are written into every pane.

    Example:
        >>> burned(("PLANTED nodule, not a finding", "de-identified"))
        ('PLANTED',)
    """
    found = []
    for note in notes:
        words = []
        for word in note.split():
            plain = word.strip(".,:;()")
            if not (plain.isupper() and len(plain) > 3):
                break
            words.append(plain)
        if words:
            found.append(" ".join(words))
    return tuple(dict.fromkeys(found))


def region_label(region: Region, name: str) -> str:
    """What the outline of a reference region is, for the legend."""
    kind = _SOURCES.get(region.source, region.source)
    return f"{kind}: {name}" if name else kind


def region_center(region: Region, grid: Grid) -> tuple[int, ...]:
    """The voxel of the region that lies closest to its center of mass."""
    index = np.argwhere(region.on(grid).cpu().numpy())
    if not len(index):
        return tuple((n - 1) // 2 for n in grid.shape)
    center = index.mean(0)
    return tuple(int(i) for i in index[np.abs(index - center).sum(1).argmin()])


def _field(prepared: Prepared | None, grid: Grid, at: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The part of the image to draw: what the network saw with some room, where that is a small part."""
    whole = (0,) * grid.rank, grid.shape
    if prepared is None:
        return whole
    corners = np.asarray(np.meshgrid(*((-0.5, n - 0.5) for n in prepared.grid.shape))).reshape(grid.rank, -1).T
    inside = prepared.source.index(prepared.grid.world(corners))
    low, high = inside.min(0), inside.max(0)
    if np.prod(np.clip(high - low, 0, grid.shape) / np.asarray(grid.shape)) > 0.5:
        return whole
    room = _ROOM * (high - low)
    first = np.clip(np.floor(np.minimum(low - room, at)), 0, None).astype(int)
    last = np.clip(np.ceil(np.maximum(high + room, at)) + 1, None, grid.shape).astype(int)
    return tuple(int(v) for v in first), tuple(int(v) for v in last - first)


def _scale(cut: Sequence[Plane], grid: Grid, pane: float) -> float:
    """Pixels per unit length: one for all planes, so that one ruler serves them."""
    extents = [p.extent(grid.shape) for p in cut]
    return min(min(pane / w, _TALLEST * pane / h) for h, w in extents)


def _slice_words(plane: Plane, grid: Grid, at: Sequence[int]) -> str:
    if plane.normal is None:
        return ""
    words = f"{plane.name} {at[plane.normal] + 1}/{grid.shape[plane.normal]}"
    if grid.calibration is not Calibration.PATIENT or grid.letters is None:
        return words
    body = body_axis(grid, plane.normal)
    if abs(grid.matrix[body, plane.normal]) < 0.966 * grid.spacing[plane.normal]:  # cosine of 15 degrees
        return words
    position = float(grid.world(np.asarray([list(at)], float))[0][body])
    return f"{words} \u00b7 {_LETTERS[body][0 if position >= 0 else 1]} {number(abs(position))} mm"
