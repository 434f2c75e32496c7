"""A table of effects as a figure: one bar for each row, with its interval."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from pellucid.core.explanation import Effect, Effects
from pellucid.show.words import MINUS, number, unit_word

_MOST = 40  # bars; the table holds all
_FOR, _AGAINST, _INK = "#2f9145", "#84389a", "#24292f"
_LONGEST = 44


def draw_effects(effects: Effects, title: str) -> Figure:
    """Bars with intervals, in the order of the rows; green above 0, purple below.

    Args:
        effects: at least one row.
        title: above the figure.
    """
    rows = effects.rows[:_MOST]
    figure = Figure(figsize=(7.5, 1.5 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))[::-1]
    values = [row.estimate for row in rows]
    axes.barh(places, values, color=[_FOR if v >= 0 else _AGAINST for v in values], height=0.7)
    for place, row in zip(places, rows, strict=True):
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color=_INK, lw=1.4)
            axes.plot([row.low, row.high], [place, place], "|", color=_INK, ms=6)
    axes.axvline(0, color=_INK, lw=0.8)
    axes.set_yticks(places, [_short(row.name) for row in rows])
    axes.set_xlabel(f"{effects.measure} ({unit_word(effects.unit)}); lines: {effects.interval}", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", MINUS))
    axes.set_title(title, fontsize=9, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def headings(effects: Effects) -> tuple[str, ...]:
    """The columns of the table."""
    return ("", f"{effects.measure} ({unit_word(effects.unit)})", effects.interval, "n", *_further(effects.rows))


def cells(effects: Effects) -> tuple[tuple[str, ...], ...]:
    """The table as text, a row each."""
    further = _further(effects.rows)
    return tuple(
        (
            row.name,
            number(row.estimate),
            "none" if row.low is None else f"{number(row.low)} to {number(row.high)}",
            str(row.n),
            *(number(row.more.get(name)) for name in further),
        )
        for row in effects.rows
    )


def left_out(effects: Effects) -> str:
    """What the figure does not show, in words; empty: nothing."""
    count = len(effects.rows) - _MOST
    return f"the figure shows the first {_MOST} of {len(effects.rows)} rows" if count > 0 else ""


def _further(rows: Sequence[Effect]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in rows for name in row.more))


def _short(words: str) -> str:
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "\u2026"
