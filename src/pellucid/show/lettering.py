"""Words drawn into pixels: the strip below a picture, letters at its sides, and marks that no viewer can switch off."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib import font_manager
from numpy.typing import NDArray
from PIL import Image as Canvas
from PIL import ImageDraw, ImageFont

from pellucid.show.pane import FAINT, INK, PAPER, WARN, Ramp, glyphs
from pellucid.show.planes import Sides

Colors = NDArray[np.uint8]
_HATCH = 5  # pixels between the lines of the part of a scale that is not painted


@dataclass(frozen=True)
class Line:
    """A sentence of the strip.

    Args:
        words: wrapped where they are too long.
        color: of the letters.
        bold: for what must not be missed.
        sample: color of a piece of line before the words; empty: none.
        dashed: whether that piece is dashed.
    """

    words: str
    color: str = INK
    bold: bool = False
    sample: str = ""
    dashed: bool = False


@dataclass(frozen=True, eq=False)
class Patch:
    """Pixels that are laid over a picture.

    Args:
        top: first row.
        left: first column.
        colors: RGB.
        alpha: 0 to 1, "row column".
    """

    top: int
    left: int
    colors: Colors
    alpha: NDArray[np.float32]

    def lay(self, picture: Colors) -> None:
        """Change the picture in place; what reaches beyond it is cut."""
        height, width = picture.shape[:2]
        first = max(self.top, 0), max(self.left, 0)
        last = min(self.top + len(self.alpha), height), min(self.left + self.alpha.shape[1], width)
        if first[0] >= last[0] or first[1] >= last[1]:
            return
        box = slice(first[0], last[0]), slice(first[1], last[1])
        own = slice(first[0] - self.top, last[0] - self.top), slice(first[1] - self.left, last[1] - self.left)
        share = self.alpha[own][..., None]
        picture[box] = np.round(picture[box] * (1 - share) + self.colors[own] * share).astype(np.uint8)


def strip(
    lines: Sequence[Line],
    width: int,
    size: int,
    ruler: tuple[float, str] | None,
    ramp: Ramp | None,
    numbered: bool = False,
) -> Colors:
    """The strip below a picture: ruler, sentences, color scale.

    Args:
        lines: sentences, the most important first.
        width: of the picture, in pixels.
        size: of the letters, in pixels.
        ruler: length in pixels and its words; None: no millimeters.
        ramp: color scale of a wash; None: there is none.
        numbered: keep the right end of the first row free for the number of the slice.
    """
    pad, step = size // 2, round(1.4 * size)
    wrapped = [(line, _wrap(line, width - 2 * pad, size)) for line in lines]
    first = step if numbered or ruler is not None else 0
    height = first + step * sum(len(rows) for _, rows in wrapped) + (round(2.6 * size) if ramp else 0) + 2 * pad
    canvas = Canvas.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    if ruler is not None:
        _ruler(pen, ruler, pad, size)
    top = pad + first
    for line, rows in wrapped:
        indent = _indent(line, size)
        if line.sample:
            _sample(pen, line, (pad, top + size // 2), size)
        for row in rows:
            pen.text((pad + indent, top), row, fill=line.color, font=font(size, line.bold))
            top += step
    if ramp is not None:
        _ramp(canvas, pen, ramp, (pad, top + pad), size)
    return np.asarray(canvas, np.uint8)


def count(words: str, width: int, size: int) -> Patch:
    """The number of a slice, at the right end of the strip's first row."""
    wide = round(font(size).getlength(words)) + 2
    canvas = Canvas.new("RGB", (wide, round(1.3 * size)), PAPER)
    ImageDraw.Draw(canvas).text((0, 0), words, fill=INK, font=font(size))
    colors = np.asarray(canvas, np.uint8)
    return Patch(size // 2, width - wide - size // 2, colors, np.ones(colors.shape[:2], np.float32))


def side_patches(sides: Sides, shape: tuple[int, int], size: int) -> tuple[Patch, ...]:
    """Orientation letters at the middle of the four edges, white in a dark halo."""
    height, width = shape
    found = []
    for letter, down, across in (
        (sides.top, 0.0, 0.5), (sides.bottom, 1.0, 0.5), (sides.left, 0.5, 0.0), (sides.right, 0.5, 1.0)
    ):  # fmt: skip
        colors, alpha = _haloed(letter, size)
        tall, wide = alpha.shape
        found.append(Patch(round(down * (height - tall)), round(across * (width - wide)), colors, alpha))
    return tuple(found)


def mark_patches(marks: Sequence[str], size: int) -> tuple[Patch, ...]:
    """Words such as PLANTED in a box in the upper left corner."""
    found, top = [], size // 2
    for mark in marks:
        wide, tall = round(font(size, True).getlength(mark)) + size, round(1.7 * size)
        canvas = Canvas.new("RGB", (wide, tall), "black")
        pen = ImageDraw.Draw(canvas)
        pen.rectangle((0, 0, wide - 1, tall - 1), outline=WARN)
        pen.text((size // 2, size // 5), glyphs(mark), fill=WARN, font=font(size, True))
        colors = np.asarray(canvas, np.uint8)
        found.append(Patch(top, size // 2, colors, np.ones(colors.shape[:2], np.float32)))
        top += tall + size // 3
    return tuple(found)


def frame_patch(box: tuple[int, int], shape: tuple[int, int], thick: int) -> Patch:
    """The native cell as an empty box of true size in the lower right corner, white in a dark case."""
    tall, wide = (max(2 * thick + 1, min(b, n - 6 * thick)) for b, n in zip(box, shape, strict=True))
    rim = 3 * thick
    alpha = np.ones((tall + 2 * rim, wide + 2 * rim), np.float32)
    colors = np.zeros((*alpha.shape, 3), np.uint8)
    colors[thick : -thick or None, thick : -thick or None] = 255
    colors[2 * thick : -2 * thick, 2 * thick : -2 * thick] = 0
    alpha[rim:-rim, rim:-rim] = 0
    return Patch(shape[0] - tall - 2 * rim, shape[1] - wide - 2 * rim, colors, alpha)


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    face = font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(face), size)


def _wrap(line: Line, width: int, size: int) -> list[str]:
    """Words in rows of at most ``width`` pixels; a word that is longer than a row is cut."""
    letters, room = font(size, line.bold), width - _indent(line, size)
    rows = [""]
    for word in glyphs(line.words).split():
        longer = f"{rows[-1]} {word}".strip()
        if letters.getlength(longer) <= room:
            rows[-1] = longer
            continue
        rows.append("")
        for letter in word:
            if rows[-1] and letters.getlength(rows[-1] + letter) > room:
                rows.append("")
            rows[-1] += letter
    return [row for row in rows if row]


def _indent(line: Line, size: int) -> int:
    return round(2.6 * size) if line.sample else 0


def _sample(pen: ImageDraw.ImageDraw, line: Line, at: tuple[int, int], size: int) -> None:
    left, middle = at
    thick = max(2, size // 6)
    pieces = ((0.0, 0.8), (1.2, 2.0)) if line.dashed else ((0.0, 2.0),)
    for start, end in pieces:
        pen.line((left + start * size, middle, left + end * size, middle), fill=line.sample, width=thick)


def _ruler(pen: ImageDraw.ImageDraw, ruler: tuple[float, str], pad: int, size: int) -> None:
    length, words = ruler
    middle, tick, thick = pad + size // 2, max(2, size // 4), max(1, size // 8)
    pen.line((pad, middle, pad + length, middle), fill="white", width=thick)
    for x in (pad, pad + length):
        pen.line((x, middle - tick, x, middle + tick), fill="white", width=thick)
    pen.text((pad + length + size // 2, pad), words, fill=INK, font=font(size))


def _ramp(canvas: Canvas.Image, pen: ImageDraw.ImageDraw, ramp: Ramp, at: tuple[int, int], size: int) -> None:
    """A bar with its ends, its null and its unit; hatched where nothing is painted."""
    left, top = at
    wide, tall = canvas.width - 2 * left, round(0.7 * size)
    steps = np.round(255 * ramp.colors(np.linspace(0, 1, wide))[None, :, :3]).astype(np.uint8)
    canvas.paste(Canvas.fromarray(np.repeat(steps, tall, 0)), (left, top))
    if ramp.null is not None:
        end = min(max(ramp.null, 0.0), ramp.high)
        first, last = (left + ramp.share(v) * wide for v in (-end if ramp.signed else 0.0, end))
        pen.rectangle((first, top, last, top + tall - 1), fill=PAPER, outline=FAINT)
        for x in np.arange(first + _HATCH, last, _HATCH):
            pen.line((x, top, max(first, x - tall), top + min(tall - 1, x - first)), fill=FAINT)
    taken: list[tuple[float, float]] = []
    for value, words in ramp.ticks():
        length = font(size).getlength(words)
        start = left + min(max(ramp.share(value) * wide - length / 2, 0.0), max(wide - length, 0.0))
        if all(start + length + size / 2 < a or start > b + size / 2 for a, b in taken):
            taken.append((start, start + length))
            pen.text((start, top + tall + size // 5), words, fill=INK, font=font(size))


def _haloed(words: str, size: int) -> tuple[Colors, NDArray[np.float32]]:
    halo = max(1, size // 7)
    letters = font(size, True)
    wide, tall = round(letters.getlength(words)) + 4 * halo, round(1.25 * size) + 2 * halo
    inner, outer = (Canvas.new("L", (wide, tall), 0) for _ in range(2))
    place = (2 * halo, halo)
    ImageDraw.Draw(inner).text(place, words, fill=255, font=letters)
    ImageDraw.Draw(outer).text(place, words, fill=255, font=letters, stroke_width=halo)
    white = np.asarray(inner, np.uint8)
    return np.repeat(white[..., None], 3, -1), np.asarray(outer, np.float32) / 255
