"""A table of effects as a figure: one bar for each row, with its interval."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pellucid.core.explanation import Effect, Effects
from pellucid.show.words import MINUS, number, unit_word

_MOST = 40  # bars; the table holds all
_FOR, _AGAINST, _INK = "#2f9145", "#84389a", "#24292f"
_LONGEST = 44
_PALE = 0.35
_ROUNDING = 1e-9
_PANELS, _ACROSS = 12, 3  # of curves
_MEAN, _ENDS, _OWN = "mean", ("low", "high"), "case "

Table = Mapping[str, tuple[float | str | None, ...]]


def draw_effects(effects: Effects, title: str) -> Figure:
    """Bars with intervals, in the order of the rows; green above 0, purple below, pale where it could be either.

    Args:
        effects: at least one row.
        title: above the figure.
    """
    rows = effects.rows[:_MOST]
    figure = Figure(figsize=(7.5, 1.5 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))[::-1]
    values = [row.estimate for row in rows]
    bars = axes.barh(places, values, color=[_FOR if v >= 0 else _AGAINST for v in values], height=0.7)
    for bar, row in zip(bars, rows, strict=True):
        bar.set_alpha(_PALE if _unsure(row) else 1.0)
    for place, row in zip(places, rows, strict=True):
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color=_INK, lw=1.4)
            axes.plot([row.low, row.high], [place, place], "|", color=_INK, ms=6)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.axvline(0, color=_INK, lw=0.8)
    pale = "; pale: the interval holds 0" if any(_unsure(row) for row in rows) else ""
    axes.set_yticks(places, [_short(row.name) for row in rows])
    axes.set_xlabel(f"{effects.measure} ({unit_word(effects.unit)})\nlines: {effects.interval}{pale}", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", MINUS))
    axes.set_title(title, fontsize=9, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def curves_of(effects: Effects) -> dict[str, Table]:
    """The tables that are curves, in the order of the rows."""
    found = {name: t for name, t in effects.tables.items() if {_MEAN, *_ENDS} <= set(t)}
    places = {row.name: n for n, row in enumerate(effects.rows)}
    return dict(sorted(found.items(), key=lambda item: places.get(item[0].removeprefix("curve of "), -1)))


def draw_curves(effects: Effects) -> Figure | None:
    """Every curve with its interval, and behind it those of single cases; None: there are no curves.

    The first 12, on one scale, so that a flat one looks flat.

    Args:
        effects: with tables of curves, whose first column is what is set.
    """
    curves = dict(list(curves_of(effects).items())[:_PANELS])
    if not curves:
        return None
    across = min(_ACROSS, len(curves))
    down = -(-len(curves) // across)
    size = (7.5, 0.6 + 2.1 * down if across > 1 else 3.2)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for axes, (name, table) in zip(panels, curves.items(), strict=False):
        _draw_curve(axes, table)
        axes.set_title(_short(name.removeprefix("curve of ")), fontsize=8, loc="left")
        axes.set_xlabel(next(iter(table)), fontsize=7)
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    alone = any(column.startswith(_OWN) for table in curves.values() for column in table)
    behind = "; gray: single cases" if alone else ""
    figure.suptitle(
        f"score ({unit_word(effects.unit)}): mean, {effects.interval}{behind}", fontsize=8, x=0.01, ha="left"
    )
    return figure


def _draw_curve(axes: Axes, table: Table) -> None:
    columns = {name: np.array(values, float) for name, values in table.items() if name != "last"}
    places = next(iter(columns.values()))
    for name, values in columns.items():
        if name.startswith(_OWN):
            axes.plot(places, values, color="#b9bec5", lw=0.5, zorder=1)
    axes.fill_between(places, columns["low"], columns["high"], color=_FOR, alpha=0.25, lw=0, zorder=2)
    axes.plot(places, columns[_MEAN], color=_FOR, lw=1.6, marker="o", ms=2.5, zorder=3)
    axes.tick_params(labelsize=7)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", MINUS))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def further_tables(effects: Effects) -> tuple[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]], ...]:
    """What is neither a curve nor of single cases, such as the fidelity of a surrogate: title, headings, rows."""
    curves = curves_of(effects)
    return tuple(
        (name, tuple(table), tuple(tuple(map(_cell, row)) for row in zip(*table.values(), strict=True)))
        for name, table in effects.tables.items()
        if name not in curves and name != "by case"
    )


def _cell(value: float | str | None) -> str:
    return value if isinstance(value, str) else number(value)


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


def _unsure(row: Effect) -> bool:
    """Whether the interval holds 0, so that not even the sign is known."""
    if row.low is None or row.high is None:
        return False
    slack = _ROUNDING * max(abs(row.low), abs(row.high))
    return row.low <= slack and row.high >= -slack


def _further(rows: Sequence[Effect]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in rows for name in row.more))


def _short(words: str) -> str:
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "\u2026"
