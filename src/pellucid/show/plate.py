"""A figure for a journal: white ground, the width of a column, image and map at their own resolution, and no name."""

import io
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image as Picture

from pellucid.core.image import Image
from pellucid.show.figure import Sketch
from pellucid.show.palette import Palette, palette_of
from pellucid.show.planes import Plane, planes
from pellucid.show.raster import gray_of, paint_base, paint_map, window_of
from pellucid.show.raster import is_color as has_color
from pellucid.show.rules import scale_bar
from pellucid.show.words import number

SINGLE, DOUBLE = 85.0, 174.0  # mm: one column and two, of most journals
PRINT_DPI = 300
_INCH = 25.4
_GAP, _HEAD, _FOOT = 1.6, 4.2, 9.0  # mm
_MARGIN = 0.6
_TALLEST = 1.3
_DARK = 0.05
_HALO = (withStroke(linewidth=1.8, foreground="black"),)
_TEXT = {"font.family": "DejaVu Sans", "svg.hashsalt": "pellucid", "svg.fonttype": "path", "pdf.fonttype": 42}


@dataclass(frozen=True)
class Cell:
    """One panel.

    Args:
        plane: that is cut.
        bare: without the map.
        title: above it.
    """

    plane: Plane
    bare: bool
    title: str


def draw_plate(one: Sketch, image: Image, width: float, marks: tuple[str, ...] = ()) -> Figure:
    """The image without and with a map, under the display rules.

    One column shows one plane (axial in a patient), two columns show all three; a map that may not be shown is left
    out.

    Args:
        one: the map.
        image: under it.
        width: of the figure, in mm.
        marks: burned into each panel (``PLANTED``).
    """
    rows = _cells(one, width)
    sizes = [_sizes(row, one, width) for row in rows]
    ramp = one.display.shown
    height = sum(max(h for _, h in row) + _HEAD for row in sizes) + (_FOOT if ramp else _MARGIN)
    with mpl.rc_context(_TEXT):
        figure = Figure(figsize=(width / _INCH, height / _INCH), dpi=PRINT_DPI, facecolor="white")
        top = height
        for cells, row in zip(rows, sizes, strict=True):
            left = _MARGIN
            for cell, (wide, tall) in zip(cells, row, strict=True):
                box = (left / width, (top - _HEAD - tall) / height, wide / width, tall / height)
                axes = figure.add_axes(box)
                _panel(axes, cell, one, image, marks)
                figure.text(left / width, (top - _HEAD + 0.8) / height, cell.title, fontsize=7, va="bottom")
                left += wide + _GAP
            top -= _HEAD + max(h for _, h in row)
        if ramp:
            wide = min(60.0, width - 2 * _MARGIN - 16)
            _ramp(figure.add_axes((7 / width, 5.6 / height, wide / width, 2 / height)), one, palette_of(image.modality))
    return figure


def _cells(one: Sketch, width: float) -> list[list[Cell]]:
    cut = planes(one.grid)
    method = one.explanation.provenance.method
    stages = [True, False] if one.display.shown else [True]
    if one.grid.rank == 2 or width < DOUBLE:
        return [[Cell(cut[0], bare, _title(cut[0], bare, one, method)) for bare in stages]]
    return [[Cell(p, bare, _title(p, bare, one, method)) for p in cut] for bare in stages]


def _title(plane: Plane, bare: bool, one: Sketch, method: str) -> str:
    name = "" if plane.normal is None else f"{plane.name} {one.peak[plane.normal] + 1}/{one.grid.shape[plane.normal]}"
    return ", ".join(w for w in ("Image" if bare else method, name) if w)


def _sizes(row: list[Cell], one: Sketch, width: float) -> list[tuple[float, float]]:
    """Width and height of each panel in mm, all at one scale, as wide together as the figure."""
    extents = [c.plane.extent(one.grid.shape) for c in row]
    room = width - 2 * _MARGIN - _GAP * (max(2, len(row)) - 1)
    scale = room / (sum(e[1] for e in extents) if len(row) > 1 else 2 * extents[0][1])
    scale = min(scale, _TALLEST * room / max(2, len(row)) / max(e[0] for e in extents))
    return [(e[1] * scale, e[0] * scale) for e in extents]


def _panel(axes: Axes, cell: Cell, one: Sketch, image: Image, marks: tuple[str, ...]) -> None:
    plane, at, palette = cell.plane, one.peak, palette_of(image.modality)
    down, across = plane.extent(one.grid.shape)
    extent = (0.0, across, down, 0.0)
    chosen = image.data if has_color(image) else image.data[:1]
    base = np.stack([plane.cut(c.detach().cpu().float().numpy(), at) for c in chosen])
    rgb = paint_base(base, window_of(image), palette)
    if cell.bare:
        axes.imshow(rgb, extent=extent, aspect="auto")
    else:
        alone = not palette.washes
        ground = np.full_like(rgb, _DARK) if alone else gray_of(rgb)
        values = plane.cut(one.values, at)
        axes.imshow(ground, extent=extent, aspect="auto")
        axes.imshow(
            paint_map(values, one.display, palette, alone), extent=extent, aspect="auto", interpolation="nearest"
        )
        _lines(axes, values, plane, one, palette)
    axes.set(xlim=(0, across), ylim=(down, 0), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    _words(axes, plane, one, marks, bar=cell.bare)


def _lines(axes: Axes, values: NDArray[np.float32], plane: Plane, one: Sketch, palette: Palette) -> None:
    """Along the edges of the voxels beyond the null, so that no line is drawn where nothing exceeds it."""
    regions = ((one.display.region(values), palette.contour, "-"), (one.display.against(values), palette.against, "--"))
    for region, color, style in regions:
        if region is None or not region.any():
            continue
        edges = _edges(region) * np.asarray([plane.spacing[1], plane.spacing[0]])
        for tint, thick in (("black", 1.6), (color, 0.8)):
            axes.add_collection(LineCollection(list(edges), colors=tint, linewidths=thick, linestyles=style))


def _edges(region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Segments (x, y) between pixels inside and outside."""
    padded = np.pad(region, 1).astype(np.int8)
    r, c = np.nonzero(np.diff(padded, axis=0)[:, 1:-1])
    flat = np.stack([np.stack([c, r], 1), np.stack([c + 1, r], 1)], 1)
    r, c = np.nonzero(np.diff(padded, axis=1)[1:-1])
    upright = np.stack([np.stack([c, r], 1), np.stack([c, r + 1], 1)], 1)
    return np.concatenate([flat, upright]).astype(float)


def _words(axes: Axes, plane: Plane, one: Sketch, marks: tuple[str, ...], bar: bool) -> None:
    style = {"color": "white", "path_effects": _HALO, "transform": axes.transAxes}
    if plane.sides is not None:
        for letter, x, y, ha, va in (
            (plane.sides.top, 0.5, 0.985, "center", "top"), (plane.sides.bottom, 0.5, 0.015, "center", "bottom"),
            (plane.sides.left, 0.015, 0.5, "left", "center"), (plane.sides.right, 0.985, 0.5, "right", "center"),
        ):  # fmt: skip
            axes.text(x, y, letter, ha=ha, va=va, fontsize=7, fontweight="bold", **style)
    for line, mark in enumerate(marks):
        axes.text(0.02, 0.98 - 0.09 * line, mark, ha="left", va="top", fontsize=6, fontweight="bold", **style)
    down, across = plane.extent(one.grid.shape)
    found = scale_bar(one.grid, min(down, across)) if bar else None
    if found is not None:
        x, y = 0.03 * across, 0.955 * down
        for tint, thick in (("black", 2.6), ("white", 1.4)):
            axes.plot([x, x + found[0]], [y, y], color=tint, lw=thick, solid_capstyle="butt")
        axes.text(x, y - 0.03 * down, found[1], color="white", fontsize=6, va="bottom", path_effects=_HALO)


def _ramp(axes: Axes, one: Sketch, palette: Palette) -> None:
    low, high = one.display.limits
    colors = palette.colormap(one.display.signed, alone=not palette.washes)
    axes.imshow(colors(np.linspace(0, 1, 256))[None], aspect="auto", extent=(low, high, 0, 1))
    null = one.display.null
    ticks = [low, high] if null is None or null >= high else [low, null, high]
    if null is not None:
        end = min(null, high)
        start = -end if one.display.signed else 0.0
        axes.add_patch(
            Rectangle((start, 0), end - start, 1, facecolor="white", edgecolor="#555", hatch="/////", lw=0.4)
        )
    axes.set_yticks([])
    axes.set_xticks(ticks, [number(t) for t in ticks], fontsize=6)
    axes.tick_params(length=1.5, pad=1, width=0.5)
    axes.set_xlabel(
        one.display.unit + ("; hatched: up to the null" if null is not None else ""), fontsize=6, labelpad=1
    )


def plate_bytes(figure: Figure) -> dict[str, bytes]:
    """A plate as TIFF of 300 dpi (LZW), SVG and PDF, by ending: no date, no author, the same bytes every time."""
    found, stream = {}, io.BytesIO()
    with mpl.rc_context(_TEXT):
        figure.savefig(stream, format="png", dpi=PRINT_DPI, facecolor="white")
        pixels = Picture.open(stream).convert("RGB")  # journals refuse a transparent layer
        stream = io.BytesIO()
        pixels.save(stream, "TIFF", compression="tiff_lzw", dpi=(PRINT_DPI, PRINT_DPI))
        found["tif"] = stream.getvalue()
        for end, undated in (("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
            stream = io.BytesIO()
            figure.savefig(stream, format=end, facecolor="white", metadata=undated)
            found[end] = stream.getvalue()
    return found
