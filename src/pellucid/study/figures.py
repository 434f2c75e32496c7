"""Figures of a study: curves with their bands, every metric with its interval, and how firm the ranks are."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pellucid.show.words import MINUS, unit_word
from pellucid.statistics.bootstrap import Floats, Resampling, interval
from pellucid.statistics.comparing import CriticalDifference
from pellucid.statistics.interval import Interval
from pellucid.study.items import Item
from pellucid.study.summary import Line, Match

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#24292f", "#e69f00")
_INK, _PALE = "#24292f", "#8b949e"
_DELETION, _INSERTION = "deletion", "insertion"
_KINDS = {
    "DeletionAUC": _DELETION,
    "NormalizedDeletionAUC": _DELETION,
    "InsertionAUC": _INSERTION,
    "NormalizedInsertionAUC": _INSERTION,
}
_POINTS = np.linspace(0, 1, 21)
_BANDS = Resampling(times=500, kind="percentile")
_WIDTH, _ACROSS, _MOST = 11.0, 2, 12
_LONGEST = 44
_RANK_SHADES = ("#0b4f6c", "#3f88a5", "#8fbccb", "#c9dfe6", "#e7f0f3")

Curves = dict[str, dict[str, tuple[list[Floats], list[str]]]]  # by kind and method: curves, and the patient of each


def draw_curves(items: Sequence[Item], model: str, target: str) -> Figure | None:
    """The mean deletion and insertion curves of each method, with 95% bands over patients; None: there are none.

    Each curve is told as the change of the score from that of the whole image, in the target's unit: the fill may lower
    the score or raise it, and cases of both kinds have their place.

    Args:
        items: of a study.
        model: short name.
        target: as the study names it.
    """
    curves = _curves(items, model, target)
    if not curves:
        return None
    methods = list(dict.fromkeys(m for found in curves.values() for m in found))
    figure = Figure(figsize=(_WIDTH, 3.9), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axes, (kind, found) in zip(panels, curves.items(), strict=True):
        for method, (rows, patients) in found.items():
            _band(axes, np.stack(rows), patients, method, COLORS[methods.index(method) % len(COLORS)])
        axes.axhline(0, color=_PALE, lw=0.7)
        axes.set_title(f"{kind}, {max(len(set(p)) for _, p in found.values())} patients", fontsize=9, loc="left")
        axes.set_xlabel(f"share of the image {'hidden' if kind == _DELETION else 'shown'}", fontsize=8)
        _plain(axes)
    panels[0].set_ylabel("score less that of the image", fontsize=8)
    panels[-1].legend(fontsize=7, frameon=False)
    return figure


def draw_metrics(groups: Mapping[tuple[str, str, str], Sequence[Line]]) -> Figure | None:
    """Every metric: the mean of each method with its interval, and below it that of right and of wrong predictions.

    Args:
        groups: lines by model, target and metric; the first twelve that are defined are drawn.
    """
    shown = [(key, lines) for key, lines in groups.items() if any(line.mean.count for line in lines)][:_MOST]
    if not shown:
        return None
    down = -(-len(shown) // _ACROSS)
    most = max(len(lines) for _, lines in shown)
    figure = Figure(figsize=(_WIDTH, (0.75 + 0.34 * most) * down), layout="constrained")
    panels = figure.subplots(down, _ACROSS, squeeze=False).ravel()
    for axes, ((_, _, metric), lines) in zip(panels, shown, strict=False):
        _forest(axes, lines)
        unit = "" if lines[0].unit == "1" else f" ({unit_word(lines[0].unit)})"
        better = {"higher": ", higher is better", "lower": ", lower is better"}.get(lines[0].direction, "")
        axes.set_title(f"{_short(metric)}{unit}{better}", fontsize=8, loc="left")
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    return figure


def draw_ranks(matches: Sequence[Match]) -> Figure | None:
    """For each metric, the share of resamples in which each method comes out at each rank; None: nothing is ranked.

    Args:
        matches: of a study; the first twelve that have ranks are drawn.
    """
    ranked = [(m, m.ranking) for m in matches if m.ranking is not None and not math.isnan(m.ranking.shares[0][0])]
    shown = ranked[:_MOST]
    if not shown:
        return None
    down, most = -(-len(shown) // _ACROSS), max(len(r.names) for _, r in shown)
    figure = Figure(figsize=(_WIDTH, (0.7 + 0.3 * most) * down + 0.3), layout="constrained")
    panels = figure.subplots(down, _ACROSS, squeeze=False).ravel()
    for axes, (match, ranking) in zip(panels, shown, strict=False):
        _stack(axes, ranking.names, ranking.shares)
        axes.set_title(_short(match.metric), fontsize=8, loc="left")
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=7, frameon=False, ncols=len(names), loc="outside upper right")
    return figure


def draw_differences(matches: Sequence[Match]) -> Figure | None:
    """Mean ranks over patients by metric, and bars over methods that are not told apart; None: nothing to draw.

    Args:
        matches: of a study; the first twelve with three methods and two patients are drawn.

    Source:
        demsar2006statistical.
    """
    shown = [(m, m.critical) for m in matches if m.critical is not None and m.critical.clusters > 1][:_MOST]
    if not shown:
        return None
    down, most = -(-len(shown) // _ACROSS), max(len(c.names) for _, c in shown)
    figure = Figure(figsize=(_WIDTH, (1.1 + 0.17 * most) * down), layout="constrained")
    panels = figure.subplots(down, _ACROSS, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, (match, critical) in zip(panels, shown, strict=False):
        _ladder(axes, critical)
        p = "" if math.isnan(critical.p) else f", Friedman p {critical.p:.2g}"
        axes.set_title(f"{_short(match.metric)}: {critical.clusters} patients{p}", fontsize=8, loc="left")
    return figure


def _ladder(axes: Axes, critical: CriticalDifference) -> None:
    """The axis of mean ranks, a stem to each name, the critical difference above and the bars below."""
    count = len(critical.names)
    half, edge = -(-count // 2), 0.06 * (count - 1)
    first = 1 + 0.42 * len(critical.groups)
    axes.plot([1, count], [0, 0], color=_INK, lw=1)
    for rank in range(1, count + 1):
        axes.plot([rank, rank], [0, 0.22], color=_INK, lw=1)
        axes.text(rank, 0.35, str(rank), ha="center", va="bottom", fontsize=7)
    for n, (name, rank) in enumerate(zip(critical.names, critical.ranks, strict=True)):
        left = n < half
        end, down = (1 - edge, -first - 0.75 * n) if left else (count + edge, -first - 0.75 * (count - 1 - n))
        axes.plot([rank, rank, end], [0, down, down], color=_PALE, lw=0.9)
        axes.plot([rank], [0], "o", color=_INK, ms=3.5)
        words = f"{_short(name)} {rank:.2f}" if left else f"{rank:.2f} {_short(name)}"
        axes.text(end, down, f" {words} ", ha="right" if left else "left", va="center", fontsize=7)
    for n, group in enumerate(critical.groups):
        ranks = [critical.ranks[critical.names.index(name)] for name in group]
        axes.plot([min(ranks), max(ranks)], [-0.5 - 0.42 * n] * 2, color=COLORS[0], lw=3.2, solid_capstyle="round")
    wide = min(critical.difference, count - 1)
    more = " (wider than this axis)" if critical.difference > count - 1 else ""
    axes.plot([1, 1 + wide], [1.55, 1.55], "|-", color=COLORS[1], lw=1.2, ms=5)
    axes.text(1, 1.75, f"critical difference {critical.difference:.2f}{more}", va="bottom", fontsize=7)
    axes.set_xlim(1 - 0.75 * (count - 1), count + 0.75 * (count - 1))
    axes.set_ylim(-first - 0.75 * half, 2.9)


def _curves(items: Sequence[Item], model: str, target: str) -> Curves:
    found: Curves = {}
    first: dict[str, str] = {}  # two metrics may hold the same curve
    for item in items:
        for one in item.curves if item.model == model else ():
            kind = _KINDS.get(str(one["metric"]).partition(":")[0])
            if kind is None or one["target"] != target or first.setdefault(kind, one["metric"]) != one["metric"]:
                continue
            rows, patients = found.setdefault(kind, {}).setdefault(one["method"], ([], []))
            rows.append(_changed(one, kind))
            patients.append(item.patient)
    return dict(sorted(found.items()))


def _changed(one: Mapping[str, Any], kind: str) -> Floats:
    """The score less that of the whole image, on common points."""
    curve = np.asarray(one["curve"], dtype=np.float64)
    image = curve[0] if kind == _DELETION else curve[-1]
    return np.interp(_POINTS, np.asarray(one["share"], dtype=np.float64), curve - image)


def _band(axes: Axes, curves: Floats, patients: list[str], method: str, color: str) -> None:
    found = [interval(point, patients, by=_BANDS) for point in curves.T]
    mean = np.array([f.value for f in found])
    # where all curves meet there is no width to draw
    low, high = (np.array([getattr(f, e) if f.bounded else f.value for f in found]) for e in ("low", "high"))
    axes.fill_between(_POINTS, low, high, color=color, alpha=0.18, lw=0)
    axes.plot(_POINTS, mean, color=color, lw=1.6, label=_short(method))


def _forest(axes: Axes, lines: Sequence[Line]) -> None:
    for n, line in enumerate(reversed(lines)):
        _interval(axes, line.mean, n, _INK, "o", 4.5)
        strata = line.strata.get("correct", {})
        for name, marker, lower in (("right", "^", 0.22), ("wrong", "x", 0.4)):
            if name in strata:
                _interval(axes, strata[name], n - lower, _PALE, marker, 3.2)
    axes.set_yticks(range(len(lines)), [_short(line.method) for line in reversed(lines)])
    axes.set_ylim(-0.7, len(lines) - 0.5)
    _plain(axes)


def _interval(axes: Axes, found: Interval, place: float, color: str, marker: str, size: float) -> None:
    if found.bounded:
        axes.plot([found.low, found.high], [place, place], color=color, lw=1.3)
    if not math.isnan(found.value):
        axes.plot([found.value], [place], marker, color=color, ms=size, mew=1.2)


def _stack(axes: Axes, names: Sequence[str], shares: Sequence[Sequence[float]]) -> None:
    places, so_far = np.arange(len(names))[::-1], np.zeros(len(names))
    for rank in range(len(names)):
        widths = np.array([row[rank] for row in shares])
        shade = _RANK_SHADES[min(rank, len(_RANK_SHADES) - 1)]
        axes.barh(places, widths, left=so_far, color=shade, height=0.72, label=f"rank {rank + 1}")
        for place, start, width in zip(places, so_far, widths, strict=True):
            if width >= 0.12:
                ink = "white" if rank < 2 else _INK
                axes.text(
                    start + width / 2, place, f"{100 * width:.0f}%", ha="center", va="center", fontsize=6.5, color=ink
                )
        so_far += widths
    axes.set_yticks(places, [_short(n) for n in names])
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.tick_params(labelsize=7)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", MINUS))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _short(words: str) -> str:
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "\u2026"
