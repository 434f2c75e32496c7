"""The sheet a figure is drawn on: rows of panes at exact pixels, a legend and a footer that cannot be cut off."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from pellucid.show.pane import (
    BODY,
    CHARACTER,
    DASHES,
    DPI,
    FAINT,
    INK,
    PAPER,
    SMALL,
    SMALL_CHARACTER,
    Tile,
    draw_pane,
    draw_ramp,
    glyphs,
)

_MARGIN, _GAP, _LINE, _TITLE, _RAMP = 14, 12, 17, 22, 30
_NARROWEST, _WIDEST = 400, 420
_SAMPLE = 34
_COMPRESSION = 5  # 4% larger than the strongest, in less than half the time
_Entry = tuple[str, str, str]


@dataclass(frozen=True, eq=False)
class Sheet:
    """Rows of panes with what stands around them.

    Args:
        head: first line.
        rows: of tiles.
        foot: sentences below.
        names: headings of the rows; empty: they have none.
    """

    head: str
    rows: tuple[tuple[Tile, ...], ...]
    foot: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def draw(self) -> Figure:
        """The figure: one pixel of a pane is one pixel of the picture."""
        inner = max(
            _NARROWEST if self.foot else 0, *(sum(t.base.shape[1] for t in r) + _GAP * (len(r) - 1) for r in self.rows)
        )
        names = self.names or ("",) * len(self.rows)
        heights = [_height(r) + (_LINE if n else 0) for r, n in zip(self.rows, names, strict=True)]
        head = textwrap.wrap(self.head, int(inner / (1.15 * CHARACTER)))
        foot = [line for text in self.foot for line in textwrap.wrap(text, int(inner / SMALL_CHARACTER))]
        legend = _legend(self.rows, inner)
        below = _LINE * (len(legend) + len(foot)) + (8 if legend else 0)
        height = 2 * _MARGIN + 4 + _LINE * len(head) + sum(heights) + _GAP * len(heights) + below
        page = _Page.blank(inner + 2 * _MARGIN, height)
        y = page.lines(head, _MARGIN, INK, BODY + 0.5, "bold") + 4
        for name, row, row_height in zip(names, self.rows, heights, strict=True):
            if name:
                page.text(name, _MARGIN, y + 2, INK, BODY, "bold")
            page.row(row, y + (_LINE if name else 0), inner, shared=bool(self.names))
            y += row_height + _GAP
        y = page.legend(legend, y) + (8 if legend else 0)
        page.lines(foot, y, FAINT, SMALL, "normal")
        return page.figure


class _Drawing(Figure):
    """A figure that a notebook shows, although pyplot (which is not thread-safe) never heard of it."""

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure, scale: float = 1.0) -> bytes:
    """A figure as PNG, without a word about the machine that made it.

    Args:
        figure: from this package.
        scale: pixels of the file per pixel of the sheet (3 for print at 300 dpi).
    """
    out, before = io.BytesIO(), figure.dpi
    figure.set_dpi(DPI * scale)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = PIL.Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])  # opaque: three channels are enough
    figure.set_dpi(before)
    picture.save(out, format="PNG", compress_level=_COMPRESSION)
    return out.getvalue()


@dataclass(frozen=True, eq=False)
class _Page:
    """Places things on a figure in pixels from its upper left corner."""

    figure: Figure
    width: float
    height: float

    @classmethod
    def blank(cls, width: float, height: float) -> "_Page":
        figure = _Drawing(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
        FigureCanvasAgg(figure)
        return cls(figure, width, height)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        made = self.figure.add_axes(
            (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        )
        made.set_axis_off()
        made.set_xlim(-0.5, width - 0.5)
        made.set_ylim(height - 0.5, -0.5)
        return made

    def text(self, words: str, x: float, y: float, color: str, size: float, weight: str = "normal") -> None:
        self.figure.text(
            x / self.width, 1 - y / self.height, glyphs(words), color=color, fontsize=size, fontweight=weight, va="top",
            parse_math=False,
        )  # fmt: skip

    def lines(self, lines: Sequence[str], y: float, color: str, size: float, weight: str) -> float:
        for line in lines:
            self.text(line, _MARGIN, y, color, size, weight)
            y += _LINE
        return y

    def row(self, row: Sequence[Tile], y: float, inner: int, shared: bool) -> None:
        """Panes side by side; a color scale that serves the whole row (``shared``) may be wider than its pane."""
        tallest, x = max(t.base.shape[0] for t in row), _MARGIN
        alone = shared and sum(t.ramp is not None for t in row) == 1 and row[0].ramp is not None
        for tile in row:
            height, width = tile.base.shape[:2]
            self.text(_shortened(tile.title, width), x, y + 4, INK, BODY)
            draw_pane(self.axes(x, y + _TITLE, width, height), tile)
            if tile.ramp is not None:
                wide = max(width, min(inner, _WIDEST)) if alone else width
                below = tallest if alone else height
                draw_ramp(self.axes(x, y + _TITLE + below + 5, wide, _RAMP - 5), tile.ramp, wide)
            x += width + _GAP

    def legend(self, lines: Sequence[Sequence[_Entry]], y: float) -> float:
        for line in lines:
            x = float(_MARGIN)
            for style, color, label in line:
                self._sample(style, color, x, y + 7)
                self.text(label, x + _SAMPLE, y, INK, SMALL)
                x += _legend_width(label)
            y += _LINE
        return y

    def _sample(self, style: str, color: str, x: float, y: float) -> None:
        place = self.figure.transFigure
        if style == "cell":
            corner = ((x + 9) / self.width, 1 - (y + 5) / self.height)
            box = Rectangle(corner, 10 / self.width, 10 / self.height, fill=False, ec=color, lw=1.2, transform=place)
            self.figure.add_artist(box)
            return
        xs, ys = (x / self.width, (x + 27) / self.width), (1 - y / self.height,) * 2
        line = Line2D(xs, ys, color=color, lw=1.6, linestyle=DASHES[style], transform=place)
        self.figure.add_artist(line)


def _height(row: Sequence[Tile]) -> int:
    bar = _RAMP if any(t.ramp is not None for t in row) else 0
    return _TITLE + max(t.base.shape[0] for t in row) + bar


def _shortened(words: str, width: int) -> str:
    most = max(8, int(width / CHARACTER))
    return words if len(words) <= most else words[: most - 1] + "\u2026"


def _legend_width(label: str) -> float:
    return _SAMPLE + len(label) * SMALL_CHARACTER + 12


def _legend(rows: Sequence[Sequence[Tile]], width: float) -> list[list[_Entry]]:
    """What the lines mean, each once, in as many lines as needed."""
    found: dict[_Entry, None] = {}
    for tile in (t for row in rows for t in row):
        found |= {(o.style, o.color, o.label): None for o in tile.outlines if o.visible}
        if tile.cell is not None:
            found["cell", "white", "native resolution, true size"] = None
    lines: list[list[_Entry]] = []
    used = width + 1
    for entry in found:
        needed = _legend_width(entry[2])
        if used + needed > width + 14:
            lines.append([])
            used = 0
        lines[-1].append(entry)
        used += needed
    return lines
