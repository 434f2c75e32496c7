"""A map drawn into the pixels of its own image, slice by slice, for viewers that can show nothing but pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Literal

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from pellucid.core.errors import BadOption
from pellucid.core.explanation import Explanation
from pellucid.core.grid import Grid
from pellucid.core.image import Image
from pellucid.show.figure import Sketch, sketch
from pellucid.show.lettering import (
    Colors,
    Line,
    Patch,
    count,
    frame_patch,
    mark_patches,
    side_patches,
    strip,
)
from pellucid.show.palette import Palette, palette_of
from pellucid.show.pane import FAINT, WARN, Ramp
from pellucid.show.planes import Sides, side_letters
from pellucid.show.raster import Window, is_color, linear, peaks, window_of
from pellucid.show.rules import Map, scale_bar
from pellucid.show.scenery import burned
from pellucid.show.words import cell_words, score_words

RESEARCH_MARK = "RESEARCH - NOT FOR DIAGNOSIS"
MAX_BYTES = 2**30  # of all frames: about 1,000 slices of 512 x 512 with their strip
Overlay = Literal["contour", "wash"]
_NARROW = 400  # columns below which the words below a picture could not be read: it is enlarged
_DARK = 13  # gray of a map's own field


@dataclass(frozen=True, eq=False)
class Capture:
    """Pictures of a map on its image.

    Args:
        frames: "frame row column color"; the image begins at the upper left pixel, the words stand below it.
        slices: of the image, one for each frame, along its first axis; 0 for a 2-D image.
        zoom: pixels of a frame along each edge of a pixel of the image.
        words: what is drawn, in one sentence.
    """

    frames: Colors
    slices: tuple[int, ...]
    zoom: int
    words: str


def capture(
    explanation: Explanation, notes: Sequence[str] = (), overlay: Overlay | None = None, show_anyway: bool = False
) -> Capture:
    """Draw a map over every slice of its image, as the report draws it: same scale, null, colors and sentences.

    The picture is as stored, never turned, so that it scrolls along with its source. Where a map may not be laid over
    the image (PET) and no region may be drawn, it stands beside it. Below the model's operating point one frame
    without a map says so. Beyond ``MAX_BYTES`` the slices nearest to the peak are drawn, and the words say so.

    Args:
        explanation: with its image, of a DICOM source: axes are (slice, row, column) or (row, column).
        notes: sentences every picture of the case must carry.
        overlay: None: the contour of the region where there is a null, else the wash.
        show_anyway: draw a map although the model says no; the picture then says so.

    Raises:
        BadOption: the explanation has no image, or no contour can be drawn without a null.
        PellucidError: of the map.
    """
    if explanation.image is None:
        raise BadOption("expected an explanation with its image, got one without", "explain a case, not a bare tensor")
    one = sketch(explanation, show_anyway)
    if overlay == "contour" and one.display.shown and one.display.null is None:
        raise BadOption("no contour can be drawn: the null of this map was not measured", "choose the wash")
    chosen: Overlay = overlay or ("contour" if one.display.null is not None else "wash")
    drawing = _Drawing(one, explanation.image, tuple(notes), chosen)
    first = drawing.frame(drawing.slices[0])
    frames = np.empty((len(drawing.slices), *first.shape), np.uint8)
    for number, place in enumerate(drawing.slices):
        frames[number] = first if number == 0 else drawing.frame(place)
    return Capture(frames, drawing.slices, drawing.zoom, drawing.said)


@dataclass(frozen=True, eq=False)
class _Drawing:
    """What does not change from slice to slice."""

    one: Sketch
    image: Image
    notes: tuple[str, ...]
    overlay: Overlay

    @property
    def grid(self) -> Grid:
        return self.one.grid

    @property
    def rows(self) -> int:
        return self.grid.shape[-2]

    @property
    def columns(self) -> int:
        return self.grid.shape[-1]

    @cached_property
    def zoom(self) -> int:
        return max(1, ceil(_NARROW / self.columns))

    @property
    def size(self) -> tuple[int, int]:
        """Of the picture of the image, in pixels."""
        return self.rows * self.zoom, self.columns * self.zoom

    @property
    def letters(self) -> int:
        """Height of the letters, in pixels: 1/44 of the width is legible on a screen that fits the picture."""
        return max(13, round(self.size[1] / 44))

    @property
    def thick(self) -> int:
        return max(1, round(max(self.size) / 500))

    @cached_property
    def palette(self) -> Palette:
        return palette_of(self.image.modality)

    @cached_property
    def window(self) -> Window:
        return window_of(self.image)

    @cached_property
    def colored(self) -> bool:
        return is_color(self.image)

    @property
    def beside(self) -> bool:
        """Whether the map stands beside the image and not over it."""
        return self.overlay == "wash" and self.one.display.shown and not self.palette.washes

    @property
    def smooth(self) -> bool:
        cell = self.one.cell
        return bool(cell) and min(c / s for c, s in zip(cell, self.grid.spacing, strict=True)) >= 2

    @cached_property
    def slices(self) -> tuple[int, ...]:
        if self.grid.rank == 2:
            return (0,)
        total, peak = self.grid.shape[0], int(self.one.peak[0])
        if not self.one.display.shown:
            return (total // 2,)
        tall, wide = self.size[0] + len(self.strip), self.strip.shape[1]
        most = max(1, min(total, MAX_BYTES // (tall * wide * 3)))
        start = min(max(0, peak - most // 2), total - most)
        return tuple(range(start, start + most))

    @cached_property
    def base_colors(self) -> Colors:
        gray = np.arange(256, dtype=np.uint8)
        return np.repeat((gray[::-1] if self.palette.base.endswith("_r") else gray)[:, None], 3, 1)

    @cached_property
    def map_colors(self) -> Colors:
        steps = self.palette.colormap(self.one.display.signed, self.beside)(np.linspace(0, 1, 256))
        return np.round(255 * steps[:, :3]).astype(np.uint8)

    @cached_property
    def strip(self) -> Colors:
        width = self.size[1] * (2 if self.beside else 1)
        bar = scale_bar(self.grid, self.columns * self.grid.spacing[-1])
        ruler = (bar[0] / self.grid.spacing[-1] * self.zoom, bar[1]) if bar else None
        return strip(self._lines(), width, self.letters, ruler, self._ramp(), numbered=self.grid.rank == 3)

    @cached_property
    def patches(self) -> tuple[Patch, ...]:
        """Letters at the sides, marks, and the native cell, which are the same on every slice."""
        found = list(mark_patches(burned(self.notes), self.letters))
        if self.grid.letters is not None:
            down, across = self.grid.rank - 2, self.grid.rank - 1
            sides = Sides(
                side_letters(self.grid, down, forward=False),
                side_letters(self.grid, down, forward=True),
                side_letters(self.grid, across, forward=False),
                side_letters(self.grid, across, forward=True),
            )
            found.extend(side_patches(sides, self.size, round(1.3 * self.letters)))
        if self.one.cell and self.one.display.shown:
            edges = zip(self.one.cell[-2:], self.grid.spacing[-2:], strict=True)
            tall, wide = (round(self.zoom * c / s) for c, s in edges)
            found.append(frame_patch((tall, wide), self.size, self.thick))
        return tuple(found)

    @property
    def said(self) -> str:
        made = self.one.explanation.provenance
        if not self.one.display.shown:
            return self.one.display.notes[0]
        kind = "region above the null" if self.overlay == "contour" else "map"
        words = f"{kind} of {made.method} for {made.target}, {'beside' if self.beside else 'over'} the image"
        return f"{words}; {self.part}" if self.part else words

    @property
    def part(self) -> str:
        """Which slices are drawn, where they are not all."""
        total, first, last = self.grid.shape[0], self.slices[0] + 1, self.slices[-1] + 1
        return "" if self.grid.rank == 2 or last - first + 1 == total else f"slices {first} to {last} of {total} only"

    def frame(self, place: int) -> Colors:
        """One slice with everything that belongs on it."""
        values = self._cut(self.one.values, place)
        picture = self._base(place)
        if not self.one.display.shown:
            panes = [picture]
        elif self.beside:
            panes = [picture, self._washed(np.full_like(picture, _DARK), values)]
        else:
            panes = [self._washed(picture, values) if self.overlay == "wash" else picture]
        if self.one.display.shown and not self.beside:
            self._outline(panes[-1], values)
        for pane in panes:
            for patch in self.patches:
                patch.lay(pane)
        words = self.strip.copy()
        if self.grid.rank == 3:
            count(f"slice {place + 1} of {self.grid.shape[0]}", words.shape[1], self.letters).lay(words)
        return np.concatenate([np.concatenate(panes, 1), words], 0)

    def _cut(self, values: Map, place: int) -> Map:
        return values if self.grid.rank == 2 else values[place]

    def _base(self, place: int) -> Colors:
        """The image through its window: gray as its modality is read, or its own color."""
        channels = self.image.data if self.colored else self.image.data[:1]
        width = (self.window.high - self.window.low) or 1.0
        shown = []
        for channel in channels:
            values = self._cut(channel.detach().cpu().float().numpy(), place)
            values = linear(values, self.size) if self.zoom > 1 else values
            share = np.clip((values - self.window.low) * (255 / width), 0, 255)
            shown.append(np.rint(share).astype(np.uint8))
        return np.stack(shown, -1) if len(shown) == 3 else self.base_colors[shown[0]]

    def _washed(self, picture: Colors, values: Map) -> Colors:
        """The map's colors over the luminance of the picture; nothing where the rules paint nothing."""
        display = self.one.display
        if self.zoom > 1:
            values = peaks(values, self.size, self.smooth)
        if self.colored and not self.beside:
            gray = picture @ np.asarray([0.299, 0.587, 0.114], np.float32)
            picture = np.repeat(np.rint(gray).astype(np.uint8)[..., None], 3, -1)
        alpha = display.alpha(values)
        shown = alpha > 0
        if not shown.any():
            return picture
        box = tuple(slice(found[0], found[-1] + 1) for found in (np.flatnonzero(shown.any(1 - a)) for a in (0, 1)))
        part, values = (shown.astype(np.float32) if self.beside else alpha)[box][..., None], values[box]
        low, high = display.limits
        share = np.rint(np.clip((values - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)
        picture[box] = np.rint(picture[box] * (1 - part) + self.map_colors[share] * part).astype(np.uint8)
        return picture

    def _outline(self, picture: Colors, values: Map) -> None:
        display = self.one.display
        if self.zoom > 1:
            values = peaks(values, self.size, self.smooth)
        colors = (self.palette.contour, self.palette.against)
        for color, inside in zip(colors, (display.region(values), display.against(values)), strict=True):
            if inside is not None and inside.any():
                draw_outline(picture, inside, color, self.thick, dashed=color == self.palette.against)

    def _ramp(self) -> Ramp | None:
        display = self.one.display
        if self.overlay != "wash" or not display.shown:
            return None
        low, high = display.limits
        colors = self.palette.colormap(display.signed, self.beside)
        return Ramp(colors, low, high, display.null, display.signed, display.unit)

    def _lines(self) -> list[Line]:
        """Sentences of the strip, those of the report and none of the patient."""
        made, display = self.one.explanation.provenance, self.one.display
        marks = " - ".join((RESEARCH_MARK, *burned(self.notes)))
        found = [Line(marks, WARN, bold=True), Line(f"{made.method} \u00b7 target: {made.target} \u00b7 {made.model}")]
        if not display.shown:
            return [*found, *(Line(n, "white", bold=True) for n in display.notes), *(Line(n) for n in self.notes)]
        if self.beside:
            found.append(Line("left: the image; right: the map, which is not laid over images of this modality"))
        if display.null is not None and not self.beside:
            found.append(Line("above the null: speaks for the target", sample=self.palette.contour))
            if display.signed:
                found.append(Line("speaks against the target", sample=self.palette.against, dashed=True))
        prediction = self.one.explanation.prediction
        told = [score_words(prediction)] if prediction is not None else []
        told += [display.scale_words] if self.overlay == "wash" else []
        told += [*display.notes, cell_words(self.one.explanation), self.window.words, *self.notes]
        return [*found, *(Line(words, FAINT) for words in dict.fromkeys(told) if words)]


def draw_outline(picture: Colors, inside: NDArray[np.bool_], color: str, thick: int, dashed: bool) -> None:
    """A line just outside a region in a dark case, closed where the region runs into the border.

    Args:
        picture: RGB, changed in place.
        inside: the region on its pixels.
        color: of the line.
        thick: of the line, in pixels; its case has the same on either side.
        dashed: leave gaps.
    """
    room = 2 * thick + 1
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    top, left = max(rows[0] - room, 0), max(columns[0] - room, 0)
    box = slice(top, rows[-1] + room + 1), slice(left, columns[-1] + room + 1)
    region, part = inside[box].copy(), picture[box]
    border = np.zeros(inside.shape, bool)
    border[:thick] = border[-thick:] = border[:, :thick] = border[:, -thick:] = True
    region &= ~border[box]  # where it reaches the border of the picture the line runs along it, inside
    square = np.ones((3, 3), bool)
    grown = binary_dilation(region, square, iterations=thick)
    around = binary_dilation(grown, square, iterations=thick) & ~grown
    core = binary_erosion(region, square, iterations=3 * thick, border_value=1)  # a small region is not blackened
    within = region & ~binary_erosion(region, square, iterations=thick, border_value=1)
    within &= binary_dilation(core, square, iterations=4 * thick)
    line = (grown & ~region) | (inside[box] & border[box])
    if dashed:
        down, across = (np.arange(n) // (5 * thick) for n in region.shape)
        line &= (down[:, None] + across[None]) % 2 == 0
    part[around | within] = 0
    part[line] = np.round(255 * np.asarray(to_rgb(color))).astype(np.uint8)
