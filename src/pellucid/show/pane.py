"""One pane of a figure: image, wash, outlines, letters, ruler, native cell, and the color scale under it."""

import textwrap
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from pellucid.show.planes import Sides
from pellucid.show.raster import Pixels
from pellucid.show.words import number

INK, PAPER, FAINT, WARN = "#dfe5ea", "#0d1117", "#a3afba", "#ffb224"
DPI = 100
SMALL, BODY, LETTER = 8.0, 8.5, 11.0
CHARACTER, SMALL_CHARACTER = (0.56 * size * DPI / 72 for size in (BODY, SMALL))  # mean widths, in pixels
DASHES: dict[str, object] = {
    "for": "solid",
    "against": (0, (3.2, 1.8)),
    "expert": (0, (7.0, 2.0, 1.6, 2.0)),
    "seen": (0, (1.0, 2.2)),
}
_MISSING = "\u25a1"
_HALO = (withStroke(linewidth=2.6, foreground="black"),)


@dataclass(frozen=True, eq=False)
class Outline:
    """A line around part of a pane.

    Args:
        values: "row column" at the pane's pixels.
        level: the line follows this value.
        color: of the line.
        style: ``for``, ``against``, ``expert`` or ``seen``.
        label: for the legend.
        fine: a hairline without a case, so that it does not hide a wash of fine structures.
    """

    values: Pixels
    level: float
    color: str
    style: str
    label: str
    fine: bool = False

    @property
    def visible(self) -> bool:
        """Whether any of it lies in the pane."""
        return bool(self.values.max() > self.level)


@dataclass(frozen=True, eq=False)
class Ramp:
    """The color scale of a wash.

    Args:
        colors: from the low to the high end.
        low: value at the left end.
        high: value at the right end.
        null: value below which nothing is painted; None: not measured.
        signed: whether the scale runs to both sides of 0.
        unit: of the values.
    """

    colors: Colormap
    low: float
    high: float
    null: float | None
    signed: bool
    unit: str

    def share(self, value: float) -> float:
        """Where a value lies between the ends."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Values that are named, the most important first."""
        marks = [(self.high, f"{number(self.high)} {self.unit}")]
        if self.null is not None and self.null < self.high:
            marks.append((self.null, f"null {number(self.null)}"))
        marks.append((self.low, number(self.low)))
        return [*marks, (0.0, "0")] if self.signed else marks


@dataclass(frozen=True, eq=False)
class Tile:
    """One pane.

    Args:
        title: above it.
        base: RGB in [0, 1].
        wash: RGBA laid over it; None: nothing.
        ramp: color scale of the wash; None: none is drawn here.
        outlines: drawn over both.
        sides: orientation letters; None: the image states none.
        ruler: length in pixels and its words; None: no millimeters.
        cell: native resolution in pixels (height, width) and its words; None: not drawn.
        marks: words burned into the picture (``PLANTED``).
        message: over the lower part of the pane.
    """

    title: str
    base: Pixels
    wash: Pixels | None = None
    ramp: Ramp | None = None
    outlines: tuple[Outline, ...] = ()
    sides: Sides | None = None
    ruler: tuple[float, str] | None = None
    cell: tuple[float, float, str] | None = None
    marks: tuple[str, ...] = ()
    message: str = ""


def glyphs(words: str) -> str:
    """Words with what the built-in font cannot draw as a box, on one line: a pseudonym may hold anything."""
    known = _charmap()
    return "".join(c if ord(c) in known else _MISSING for c in " ".join(words.split()))


@cache
def _charmap() -> frozenset[int]:
    """The characters of DejaVu Sans, which comes with matplotlib."""
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())


def draw_pane(axes: Axes, tile: Tile) -> None:
    """Image, then wash, then outlines, then what must stand beside them."""
    height, width = tile.base.shape[:2]
    axes.imshow(tile.base, interpolation="none", aspect="auto")
    if tile.wash is not None:
        axes.imshow(tile.wash, interpolation="none", aspect="auto")
    for outline in (o for o in tile.outlines if o.visible):
        _draw_outline(axes, outline)
    _letters(axes, tile, height, width)
    if tile.ruler is not None:
        _ruler(axes, tile, height, width)
    if tile.cell is not None:
        _cell(axes, tile, height, width)
    for line, mark in enumerate(tile.marks):
        box = {"facecolor": "black", "edgecolor": WARN, "pad": 2.5, "lw": 0.8}
        axes.text(
            9, 12 + 20 * line, glyphs(mark), color=WARN, fontsize=BODY, fontweight="bold", va="top", bbox=box,
            parse_math=False,
        )  # fmt: skip
    if tile.message:
        lines = textwrap.fill(glyphs(tile.message), max(12, int(width / CHARACTER) - 4))
        box = {"facecolor": "black", "edgecolor": "none", "alpha": 0.8, "pad": 5}
        axes.text(
            width / 2, 0.78 * height, lines, color="white", fontsize=BODY, ha="center", va="center", bbox=box,
            parse_math=False,
        )  # fmt: skip
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def draw_ramp(axes: Axes, ramp: Ramp, width: int) -> None:
    """A bar as wide as the axes with its ends, its null and its unit; hatched where nothing is painted.

    The axes are in pixels of the pane: the bar takes the upper 9, the words stand below.
    """
    steps = ramp.colors(np.linspace(0, 1, 256))[None]
    axes.imshow(steps, aspect="auto", extent=(-0.5, width - 0.5, 8.5, -0.5), interpolation="bilinear")
    if ramp.null is not None:
        end = min(max(ramp.null, 0.0), ramp.high)
        left, right = (ramp.share(v) * width - 0.5 for v in (-end if ramp.signed else 0.0, end))
        axes.add_patch(Rectangle((left, -0.5), right - left, 9, facecolor=PAPER, edgecolor=FAINT, hatch="////", lw=0.6))
    taken: list[tuple[float, float]] = []
    for value, words in ramp.ticks():
        center, half = ramp.share(value) * width, len(words) * SMALL_CHARACTER / 2
        left = min(max(center - half, 0.0), width - 2 * half)
        if all(left + 2 * half + 6 < a or left > b + 6 for a, b in taken):
            taken.append((left, left + 2 * half))
            at_left, at_right = center < half, center > width - half
            ha = "left" if at_left else "right" if at_right else "center"
            x = 0 if at_left else width - 1 if at_right else center
            axes.text(x, 12, words, color=INK, fontsize=SMALL, ha=ha, va="top", parse_math=False)


def _draw_outline(axes: Axes, outline: Outline) -> None:
    """A line of 1.9 px in a dark case, closed where the region runs into the border of the pane."""
    inside = np.pad(outline.values, 1, mode="edge")
    border = np.ones(inside.shape, bool)
    border[1:-1, 1:-1] = False
    inside[border] = np.minimum(inside[border], 2 * outline.level - inside[border])
    if not inside.min() < outline.level < inside.max():
        return
    rows, columns = (np.arange(-1, n + 1, dtype=np.float32) for n in outline.values.shape)
    width = 0.6 if outline.fine else 0.9 if outline.style == "seen" else 1.4
    style = {"colors": [outline.color], "linewidths": [width], "linestyles": [DASHES[outline.style]]}
    drawn = axes.contour(columns, rows, inside, levels=[outline.level], **style)
    if not outline.fine:
        drawn.set(path_effects=[withStroke(linewidth=width + 1.4, foreground="black", alpha=0.85)])


def _letters(axes: Axes, tile: Tile, height: int, width: int) -> None:
    if tile.sides is None:
        return
    places = (
        (tile.sides.top, width / 2, 5, "center", "top"),
        (tile.sides.bottom, width / 2, height - 6, "center", "bottom"),
        (tile.sides.left, 6, height / 2, "left", "center"),
        (tile.sides.right, width - 7, height / 2, "right", "center"),
    )
    for letter, x, y, ha, va in places:
        axes.text(x, y, letter, ha=ha, va=va, color="white", fontsize=LETTER, fontweight="bold", path_effects=_HALO)


def _ruler(axes: Axes, tile: Tile, height: int, width: int) -> None:
    """The scale bar in the lower left corner, its words above the letter of the side where they would reach it."""
    length, words = tile.ruler or (0.0, "")
    for color, thick in (("black", 4.0), ("white", 1.8)):
        axes.plot([9, 9 + length], [height - 10] * 2, color=color, lw=thick, solid_capstyle="butt")
    lines = textwrap.fill(words, max(8, int((width - 14) / SMALL_CHARACTER)))
    reaches = tile.sides is not None and 9 + len(words) * SMALL_CHARACTER > width / 2 - 12
    y = height - (28 if reaches else 15)
    axes.text(9, y, lines, va="bottom", color="white", fontsize=SMALL, path_effects=_HALO, parse_math=False)


def _cell(axes: Axes, tile: Tile, rows: int, columns: int) -> None:
    """The smallest statement the map can make, as a box of true size in the lower right corner."""
    tall, wide, words = tile.cell or (0.0, 0.0, "")
    height, width = min(tall, rows - 14), min(wide, columns - 14)
    right, bottom = columns - 7, rows - 7
    for color, thick in (("black", 2.6), ("white", 1.1)):
        axes.add_patch(Rectangle((right - width, bottom - height), width, height, fill=False, ec=color, lw=thick))
    inside = height > 0.4 * rows
    y, va = (bottom - height + 4, "top") if inside else (bottom - height - 5, "bottom")
    x = right - (4 if inside else 0)
    beside = len(tile.ruler[1]) * SMALL_CHARACTER if tile.ruler is not None and y > rows - 48 else 0.0
    letter = 18.0 if tile.sides is not None and y > rows - 24 else 0.0
    free = min(columns - 22 - beside, columns / 2 - letter) if letter else columns - 22 - beside
    if len(words) * SMALL_CHARACTER <= free:  # else the words below the picture must do
        style = {"ha": "right", "va": va, "color": "white", "fontsize": SMALL, "path_effects": _HALO}
        axes.text(x, y, words, parse_math=False, **style)
