"""Deletion and insertion as pictures: the score of the model while more and more of the image is hidden or shown."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pellucid.show.pane import INK, PAPER
from pellucid.show.sections import ScoreRow
from pellucid.show.words import MINUS, unit_word

_COLORS = ("#56b4e9", "#e69f00", "#cc79a7", "#009e73", "#f0e442", "#d55e00", "#0072b2")  # Okabe and Ito, on dark
_DASHES = ("-", "--", ":")
_SOFT = "#8b949e"
_ACROSS, _SIZE = 2, (9.0, 3.6)  # panels in a row; inches of a row


def draw_score_curves(scores: Sequence[ScoreRow]) -> Figure | None:
    """One panel for each metric that is an area, one line for each map, dotted gray what random order does.

    Args:
        scores: of one case.

    Returns:
        The figure; None where no score has a curve.
    """
    drawn = [s for s in scores if s.curve is not None]
    names = tuple(dict.fromkeys(s.about.name for s in drawn))
    if not names:
        return None
    down = -(-len(names) // _ACROSS)
    figure = Figure(figsize=(_SIZE[0], _SIZE[1] * down), layout="constrained", facecolor=PAPER)
    panels = figure.subplots(down, _ACROSS, squeeze=False).ravel()
    colors = {of: n for n, of in enumerate(dict.fromkeys(s.of for s in drawn))}
    for axes, name in zip(panels, names, strict=False):
        rows = [s for s in drawn if s.about.name == name]
        _draw(axes, rows, colors)
        axes.set_title(f"{name}: {rows[0].about.direction} is better", fontsize=9, loc="left", color=INK)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    lines, words = panels[0].get_legend_handles_labels()
    figure.legend(lines, words, loc="outside lower left", ncols=4, frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _draw(axes: Axes, rows: Sequence[ScoreRow], colors: dict[str, int]) -> None:
    for row in rows:
        if row.curve is None:
            continue
        number = colors[row.of]
        style = {"color": _COLORS[number % len(_COLORS)], "ls": _DASHES[number // len(_COLORS) % len(_DASHES)]}
        axes.plot(row.curve.share, row.curve.score, label=row.of, lw=1.7, **style)
    curve = rows[0].curve
    if curve is not None and curve.random:
        axes.plot(curve.share, curve.random, color=_SOFT, lw=1.7, ls=(0, (1, 1.5)), label="random order")
    unit = unit_word(curve.unit) if curve is not None else ""
    axes.set_xlabel("share of the image, most relevant first", fontsize=8, color=INK)
    axes.set_ylabel(f"score ({unit})", fontsize=8, color=INK)
    axes.set_facecolor(PAPER)
    axes.tick_params(labelsize=8, colors=_SOFT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", MINUS))
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_SOFT)
