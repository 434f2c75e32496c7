"""The study's picture: a grid of measures and sizes of noise, methods as dots with intervals, and the line of 40%."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measuring import EDGES, ITSELF, MEASURES, SIGMAS
from PIL import Image as Picture
from summary import CLAIMED, LIMIT

from pellucid.core.atomic import write_bytes

COLORS = {"pneumonia": "#0072B2", "nodule": "#D55E00", "hippocampus": "#009E73", "vessels": "#CC79A7"}
PLAIN = (
    "Saliency",
    "InputXGradient",
    "IntegratedGradients",
    "SmoothGrad",
    "Occlusion",
    "GradCAM",
    "HiResCAM",
)
ENDS = {MEASURES[0]: 2.5}


def draw(record: dict[str, Any], path: Path) -> None:
    """Write the picture."""
    mpl.rcParams["font.size"] = 8
    sheet = Figure(figsize=(11, 13), layout="constrained")
    axes = sheet.subplots(len(MEASURES), len(SIGMAS), sharey=True)
    names = order(record)
    for line, measure in zip(axes, MEASURES, strict=True):
        for axis, sigma in zip(line, SIGMAS, strict=True):
            _panel(axis, record, names, measure, f"{sigma:g}")
    axes[0][0].legend(fontsize=7, loc="lower right", title="network", title_fontsize=7)
    sheet.supxlabel(
        "Mean change over cases whose noisy copy is predicted the same, 95% interval over patients; arrows lie beyond "
        "the axis.\nBold: the two that the review names. Line: 40%. Research use; demonstration networks.",
        fontsize=8,
    )
    buffer = io.BytesIO()
    sheet.savefig(buffer, format="png", dpi=90)
    packed = io.BytesIO()
    Picture.open(buffer).convert("RGB").quantize(128).save(packed, format="PNG", optimize=True)
    write_bytes(path, packed.getvalue())


def order(record: dict[str, Any]) -> list[str]:
    """Those that the review names, then other rules, then the plain methods, then what knows no network."""
    every = dict.fromkeys(m for cells in record["figures"].values() for cell in cells.values() for m in cell)
    rules = [m for m in every if m.startswith("LRP") and m not in CLAIMED]
    return [m for m in (*CLAIMED, *rules, *PLAIN, EDGES, ITSELF) if m in every]


def _panel(axis: Axes, record: dict[str, Any], names: list[str], measure: str, sigma: str) -> None:
    end = ENDS.get(measure, 1.1)
    for shift, (network, color) in zip(np.linspace(-0.27, 0.27, len(COLORS)), COLORS.items(), strict=True):
        cell = record["figures"].get(network, {}).get(sigma, {})
        label = network
        for row, name in enumerate(names):
            found = cell.get(name, {}).get(measure)
            if found is None or found["value"] is None:
                continue
            value, beyond = min(found["value"], end * 0.98), found["value"] > end
            low, high = (value if found[k] is None else min(found[k], end) for k in ("low", "high"))
            axis.plot([low, high], [row + shift] * 2, lw=1, color=color)
            axis.plot([value], [row + shift], ">" if beyond else "o", ms=3, color=color, label=label)
            label = None
    axis.axvline(LIMIT, color="#000000", lw=0.8, ls="--")
    axis.set_xlim(0, end)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_yticks(range(len(names)), names)
    for text in axis.get_yticklabels():
        text.set_fontweight("bold" if text.get_text() in CLAIMED else "normal")
    axis.grid(axis="y", lw=0.3)
    axis.set_title(f"{measure}, noise {float(sigma):.0%} of the range", fontsize=8)
