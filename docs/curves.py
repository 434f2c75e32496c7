"""The figures of the page on samplers, drawn from the committed results of the benchmarks when the pages are built."""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Results = dict[str, Any]
_INK = {"ours": "#0b6e99", "peer": "#b3541e", "other": "#6b7280"}
_SHAPLEY = {
    "KernelSHAP": ("KernelSHAP", _INK["ours"], "o"),
    "captum KernelShap": ("captum KernelShap", _INK["peer"], "s"),
    "MorrisSensitivity": ("MorrisSensitivity (mu)", _INK["other"], "^"),
}
_OWN_LIMIT = {
    "LIME": ("LIME", _INK["ours"], "o"),
    "PartitionSHAP": ("PartitionSHAP", "#5b8c2a", "D"),
    "Occlusion": ("Occlusion, smaller strides", _INK["other"], "^"),
}
_RISE = {
    "ours": ("RISE", _INK["ours"], "o"),
    "normalized": ("each voxel by what it was shown, independent masks", _INK["other"], "^"),
    "paper": ("as published", _INK["peer"], "s"),
}


def write(folder: Path, results: Path) -> None:
    """Draw ``samplers.png`` and ``rise.png`` into a folder.

    Args:
        folder: made where it is missing.
        results: of the benchmarks.
    """
    folder.mkdir(exist_ok=True)
    samplers = _read(results / "samplers_pneumonia.json")
    _save(_samplers(samplers), folder / "samplers.png")
    _save(_rise([_read(results / f"rise_{name}.json") for name in ("pneumonia", "nodule")]), folder / "rise.png")


def _read(path: Path) -> Results:
    return json.loads(path.read_text(encoding="utf-8"))


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, bbox_inches="tight")


def _samplers(result: Results) -> Figure:
    figure = Figure(figsize=(11.5, 3.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    found = result["summary"]
    for axes, lines, title in (
        (left, _SHAPLEY, "Correlation with exact Shapley values"),
        (middle, _OWN_LIMIT, "Correlation with the method's own limit"),
    ):
        for name, (label, color, mark) in lines.items():
            points = found[name]
            _line(axes, [p["forwards"] for p in points], [p["correlation"] for p in points], label, color, mark)
        _framed(axes, title)
    for name, color in (("KernelSHAP", _INK["ours"]), ("LIME", "#5b8c2a")):
        points = found[name]
        count = [p["forwards"] for p in points]
        right.plot(count, [p["error"] for p in points], color=color, marker="o", ms=4, label=f"{name}: true")
        stated = [p["stated"] for p in points]
        right.plot(count, stated, color=color, marker="o", ms=4, mfc="white", ls="--", label=f"{name}: as stated")
    _framed(right, "Error, in spreads of the true map", low=None)
    right.set_yscale("log")
    right.legend(fontsize=8, frameon=False)
    return figure


def _rise(results: list[Results]) -> Figure:
    figure = Figure(figsize=(11.5, 3.9), layout="constrained")
    panels = [(r, scale) for r in results for scale in ("score", "head")]
    for axes, (result, scale) in zip(figure.subplots(1, 4, sharey=True), panels, strict=True):
        found = result["summary"][scale]["median_correlation"]
        for name, (label, color, mark) in _RISE.items():
            points = sorted((int(key.split()[1]), value) for key, value in found.items() if key.split()[0] == name)
            _line(axes, [n for n, _ in points], [v for _, v in points], label, color, mark)
        network = result["benchmark"].removeprefix("rise_")
        unit = "model score" if scale == "score" else "logit"
        _framed(axes, f"{network}, {unit} ({result['subject']['films']} films)")
        axes.get_legend().remove()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    figure.axes[0].set_ylabel("correlation with the limit")
    return figure


def _line(axes: Axes, forwards: list[float], values: list[float], label: str, color: str, mark: str) -> None:
    axes.plot(forwards, values, color=color, marker=mark, ms=4, label=label)


def _framed(axes: Axes, title: str, low: float | None = 0.0) -> None:
    """Forwards on a logarithmic axis with plain numbers."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:.0f}")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("forwards")
    axes.grid(alpha=0.25)
    if low is not None:
        axes.set_ylim(low, 1.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
