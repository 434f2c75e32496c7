"""Figures of one explanation and of a panel: bare image first, then the contour of the region, then the color wash."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from pellucid.core.case import Region
from pellucid.core.errors import BadOption, ShapeMismatch
from pellucid.core.explanation import Explanation
from pellucid.core.grid import Grid
from pellucid.core.image import Image
from pellucid.core.prepare import Prepared
from pellucid.show.pane import Outline, Ramp, Tile
from pellucid.show.raster import gray_of, paint_map
from pellucid.show.rules import Display, Map, decide, peak, place_words
from pellucid.show.scenery import Framing, Pane, Scenery, make_scenery, region_center
from pellucid.show.sheet import Sheet
from pellucid.show.words import RESEARCH, cell_words, edges, image_cell, modality_word

Stage = Literal["bare", "contour", "wash"]
STAGES: tuple[Stage, ...] = ("bare", "contour", "wash")
_TITLES = {"bare": "Image", "contour": "Region above the null", "wash": "Map over the image"}
_LINES = {"for": "above the null: speaks for the target", "against": "speaks against the target"}
_DARK = 0.05
_MOST = 0.8  # of a pane that the network saw: beyond it a picture of the field's border says nothing
_FILIGREE = 8  # pixels of a native cell below which full lines would hide the wash they bound
_BELOW_NULL = "no region: nothing above the null"
_ALONE = 0.7  # of the width of a row, where a single pane stands in it


@dataclass(frozen=True, eq=False)
class Sketch:
    """An explanation made ready to draw.

    Args:
        explanation: one item of it is drawn.
        values: its map on ``grid``.
        grid: of the image, or of the network where there is no image.
        display: what may be shown of it.
        cell: native resolution along the axes of ``grid``; empty: not stated.
    """

    explanation: Explanation
    values: Map
    grid: Grid
    display: Display
    cell: tuple[float, ...]

    @property
    def peak(self) -> tuple[int, ...]:
        """The voxel of the strongest evidence; the middle where no map is shown or every value is 0."""
        if not self.display.shown or not self.values.any():
            return _middle(self.grid, self.explanation.prepared)
        return peak(self.values, self.display.signed)

    @property
    def place(self) -> str:
        """Where the map peaks, no finer than its native resolution; empty where nothing rises above the null."""
        if not self.display.shown or self.values.max() <= (self.display.null or 0.0):
            return ""
        return place_words(self.peak, self.grid, self.cell)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What there is to draw: no contour without a null, nothing but the image below the operating point."""
        if not self.display.shown:
            return ("bare",)
        return STAGES if self.display.null is not None else ("bare", "wash")


def sketch(explanation: Explanation, show_anyway: bool = False) -> Sketch:
    """Bring a map onto the image's grid and decide what may be shown of it.

    Raises:
        ShapeMismatch: the map and the image do not share a grid.
        NonFinite: NaN or infinity in the map.
    """
    values = explanation.numpy()[0]
    holder = explanation.image.grid if explanation.image is not None else None
    grid = holder or (explanation.prepared.source if explanation.prepared is not None else Grid.regular(values.shape))
    if values.shape != grid.shape:
        raise ShapeMismatch(
            f"expected a map on the image's grid {grid.shape}, got {values.shape}",
            "explain with the image that was prepared for the network",
        )
    return Sketch(explanation, values, grid, decide(explanation, values, show_anyway), image_cell(explanation))


def draw(explanation: Explanation, framing: Framing | None = None, stages: Sequence[Stage] = STAGES) -> Figure:
    """The figure of one explanation, under the display rules.

    Args:
        explanation: with a map.
        framing: region, notes, slices, size.
        stages: which of bare image, contour and wash, in this order; those that may not be drawn are left out.

    Raises:
        PellucidError: of the map, the region or the framing.
    """
    framing = framing or Framing()
    one = sketch(explanation, framing.show_anyway)
    return draw_sketch(one, scenery_of(one, framing, stages), stages)


def draw_sketch(one: Sketch, scenery: Scenery, stages: Sequence[Stage], brief: bool = False) -> Figure:
    """The figure of a map that is ready to draw.

    Args:
        one: the map.
        scenery: may serve several maps.
        stages: see ``draw``.
        brief: for a page that says the rest beside it: below the picture only what it must not lose when copied.
    """
    chosen: list[Stage] = [s for s in STAGES if s in stages and s in one.stages] or ["bare"]
    drawn = [_row(one, scenery, stage) for stage in chosen]
    names = [_title(stage, scenery) for stage in chosen]
    p = one.explanation.provenance
    head = f"{p.case} \u00b7 {p.method} \u00b7 target: {p.target}"
    return _sheet(head, names, drawn, _foot(one, scenery, brief), 3).draw()


def draw_image(
    image: Image,
    framing: Framing | None = None,
    name: str = "",
    prepared: Prepared | None = None,
    only_bare: bool = False,
) -> Figure:
    """The whole bare image and, where there is a reference region or the network saw only a part, an image with both.

    Args:
        image: to draw.
        framing: region, notes, slices, size.
        name: of the case, a pseudonym.
        prepared: tells which part of the image the network saw.
        only_bare: a thumbnail: the first plane of the bare image without words around it.
    """
    framing = replace(framing or Framing(), whole=True)
    at = framing.at or _center(framing.region, image.grid) or _middle(image.grid, prepared)
    across = 1 if only_bare else 2 if image.grid.rank == 2 else 3
    scenery = make_scenery(image, prepared, image.grid, framing, at, across)
    outlined = any(_telling(o) for p in scenery.panes for o in p.outlines)
    if across == 2 and not outlined:  # one pane alone may be larger
        alone = replace(framing, width=round(_ALONE * framing.width))
        scenery = make_scenery(image, prepared, image.grid, alone, at, 1)
    rows = [tuple(scenery.tile(p, bare=True) for p in scenery.panes)]
    if only_bare:
        return Sheet("", ((replace(rows[0][0], title=""),),)).draw()
    if outlined:
        rows.append(tuple(scenery.tile(p) for p in scenery.panes))
    second = "Reference region" if framing.region is not None else "What the network saw"
    head = " \u00b7 ".join(w for w in (name, modality_word(image.modality)) if w)
    return _sheet(head, ["Image", second][: len(rows)], rows, _notes(scenery), 2).draw()


def draw_panel(
    explanations: Sequence[Explanation], framing: Framing | None = None, titles: Sequence[str] = ()
) -> Figure:
    """One sheet for all maps of a case: the bare image, then each map at the same place and size.

    Each map keeps its own scale, written under it: colors of two methods are not comparable.

    Args:
        explanations: of the case.
        framing: what is shown of each; None: the usual.
        titles: of the maps; none: their methods.

    Raises:
        BadOption: no explanation.
    """
    if not explanations:
        raise BadOption("expected at least one explanation, got none", "explain with at least one method")
    framing = framing or Framing()
    sketches = [sketch(e, framing.show_anyway) for e in explanations]
    p = explanations[0].provenance
    names = titles or [one.explanation.provenance.method for one in sketches]
    stages: list[Stage] = ["contour" if "contour" in o.stages else o.stages[-1] for o in sketches]
    foot = ("each map has a scale of its own: colors of two methods are not comparable",)
    return draw_rows(sketches, names, stages, f"{p.case} \u00b7 target: {p.target}", foot, framing)


def draw_rows(
    sketches: Sequence[Sketch],
    names: Sequence[str],
    stages: Sequence[Stage],
    head: str,
    foot: Sequence[str],
    framing: Framing,
) -> Figure:
    """The bare image, then maps on one grid at the same place and size, each over its own image.

    Args:
        sketches: at least one.
        names: heading of each.
        stages: how each is drawn.
        head: first line.
        foot: sentences below, before those that every picture of the case carries.
        framing: region, notes, slices, size.
    """
    first = sketches[0]
    across = min(3, len(sketches) + 1) if first.grid.rank == 2 else 3
    across = 2 if first.grid.rank == 2 and len(sketches) == 3 else across  # four panes make a square
    scenery = _scenery(first, framing, across)
    rows, titles = [tuple(scenery.tile(p, bare=True) for p in scenery.panes)], ["Image"]
    drawn = []
    for one, name, stage in zip(sketches, names, stages, strict=True):
        under = scenery
        if one.explanation.provenance.input_digest != first.explanation.provenance.input_digest:
            at = tuple(i + s for i, s in zip(scenery.at, scenery.start, strict=True))
            image, prepared = one.explanation.image, first.explanation.prepared
            under = make_scenery(image, prepared, one.grid, framing, at, across)
            rows.append(tuple(under.tile(p, bare=True) for p in under.panes))
            titles = [f"Image, {names[0]}", *titles[1:], f"Image, {name}"]
        drawn.append(_row(one, under, stage))
    return _sheet(head, [*titles, *names], [*rows, *drawn], (*foot, *_notes(scenery)), across).draw()


def _sheet(
    head: str, names: Sequence[str], rows: Sequence[tuple[Tile, ...]], foot: tuple[str, ...], across: int
) -> Sheet:
    """Rows of planes under their names; single panes side by side, each with its name above it."""
    if len(rows[0]) > 1:
        return Sheet(head, tuple(rows), foot, tuple(names))
    line = [replace(r[0], title=name) for r, name in zip(rows, names, strict=True)]
    return Sheet(head, tuple(tuple(line[n : n + across]) for n in range(0, len(line), across)), foot)


def scenery_of(one: Sketch, framing: Framing, stages: Sequence[Stage] = STAGES) -> Scenery:
    """The panes a map is drawn on."""
    count = len([s for s in stages if s in one.stages]) or 1
    return _scenery(one, framing, (1 if count == 1 else count) if one.grid.rank == 2 else 3)


def _scenery(one: Sketch, framing: Framing, across: int) -> Scenery:
    explanation = one.explanation
    at = framing.at or _center(framing.region, one.grid) or one.peak
    return make_scenery(explanation.image, explanation.prepared, one.grid, framing, at, across)


def _middle(grid: Grid, prepared: Prepared | None) -> tuple[int, ...]:
    """The middle of what the network saw, or of the grid."""
    whole = tuple((n - 1) // 2 for n in grid.shape)
    if prepared is None:
        return whole
    center = (np.asarray(prepared.grid.shape, float) - 1) / 2
    found = grid.index(prepared.grid.world(center[None]))[0]
    return tuple(int(np.clip(round(i), 0, n - 1)) for i, n in zip(found, grid.shape, strict=True))


def _center(region: Region | None, grid: Grid) -> tuple[int, ...] | None:
    return region_center(region, grid) if region is not None else None


def _telling(outline: Outline) -> bool:
    """Whether an outline is worth a picture of its own: any reference region, or a field well short of the image."""
    share = float((outline.values > outline.level).mean())
    return 0 < share < (_MOST if outline.style == "seen" else 2)


def _title(stage: Stage, scenery: Scenery) -> str:
    if stage == "wash" and not scenery.palette.washes:
        return "Map beside the image (lines only on this modality)"
    return _TITLES[stage]


def _row(one: Sketch, scenery: Scenery, stage: Stage) -> tuple[Tile, ...]:
    """All planes at one stage; the first carries what need not be repeated."""
    return tuple(_tile(one, scenery, pane, stage, lead=n == 0) for n, pane in enumerate(scenery.panes))


def _tile(one: Sketch, scenery: Scenery, pane: Pane, stage: Stage, lead: bool) -> Tile:
    tile = scenery.tile(pane, bare=stage == "bare")
    display = one.display
    if not display.shown:
        return replace(tile, message=display.notes[0] if lead else "")
    if stage == "bare":
        return tile
    smooth = _smooth(one)
    values = scenery.pixels(pane, scenery.crop(one.values), smooth)
    contours = _contours(display, values, scenery, smooth)
    if stage == "wash" and (not one.cell or min(one.cell) * pane.scale < _FILIGREE):
        contours = tuple(replace(c, fine=True) for c in contours)
    outlines = (*contours, *tile.outlines)
    tile = replace(tile, outlines=outlines, cell=_cell(one, pane, lead))
    if stage == "contour":
        return replace(tile, message=_BELOW_NULL) if lead and not _above(display, one.values) else tile
    alone = not scenery.palette.washes
    base = np.full_like(tile.base, _DARK) if alone else gray_of(tile.base)
    ramp = _ramp(display, scenery, alone) if lead else None
    return replace(tile, base=base, wash=paint_map(values, display, scenery.palette, alone), ramp=ramp)


def _above(display: Display, values: Map) -> bool:
    """Whether a region is drawn anywhere, on this slice or another."""
    regions = (display.region(values), display.against(values))
    return any(r is not None and bool(r.any()) for r in regions)


def _contours(display: Display, values: Map, scenery: Scenery, smooth: bool) -> tuple[Outline, ...]:
    """Lines around what exceeds the null: between pixel centers of a smooth map, else along the pixels' edges."""
    if display.null is None:
        return ()
    colors = (scenery.palette.contour, scenery.palette.against)
    signs = ((1.0, "for"), (-1.0, "against"))[: 2 if display.signed else 1]
    found = []
    for color, (sign, style) in zip(colors, signs, strict=False):
        strength = sign * values
        level = display.null if smooth else 0.5
        shown = strength if smooth else (strength > display.null).astype(np.float32)
        found.append(Outline(shown, level, color, style, _LINES[style]))
    return tuple(found)


def _ramp(display: Display, scenery: Scenery, alone: bool) -> Ramp:
    low, high = display.limits
    colors = scenery.palette.colormap(display.signed, alone)
    return Ramp(colors, low, high, display.null, display.signed, display.unit)


def _smooth(one: Sketch) -> bool:
    """Whether the map is smooth at the scale of the image's voxels, so that lines between them may be drawn."""
    return bool(one.cell) and min(c / s for c, s in zip(one.cell, one.grid.spacing, strict=True)) >= 2


def _cell(one: Sketch, pane: Pane, lead: bool) -> tuple[float, float, str] | None:
    if not one.cell:
        return None
    sides = (one.cell[pane.plane.rows], one.cell[pane.plane.columns])
    words = edges(sides, one.grid.unit) if lead or sides[0] != sides[1] else ""
    return sides[0] * pane.scale, sides[1] * pane.scale, words


def _foot(one: Sketch, scenery: Scenery, brief: bool) -> tuple[str, ...]:
    place = f"peak: {one.place}" if one.place else ""
    resolution = cell_words(one.explanation) if one.display.shown else ""
    scale = one.display.scale_words if one.display.shown else ""
    if brief:
        lines = (*_elsewhere(one, scenery), scale, resolution, *scenery.notes, RESEARCH)
    else:
        lines = (*_elsewhere(one, scenery), scale, *one.display.notes, resolution, place, *_notes(scenery))
    return tuple(dict.fromkeys(line for line in lines if line))


def _elsewhere(one: Sketch, scenery: Scenery) -> tuple[str, ...]:
    """A warning where the region exists but none of the slices drawn goes through it."""
    region = one.display.region(one.values)
    if region is None or not region.any():
        return ()
    part = scenery.crop(region)
    if any(pane.plane.cut(part, scenery.at).any() for pane in scenery.panes):
        return ()
    return ("the region above the null lies outside the slices shown here: see the place of its peak",)


def _notes(scenery: Scenery) -> tuple[str, ...]:
    return tuple(n for n in (*scenery.notes, scenery.window, RESEARCH) if n)
