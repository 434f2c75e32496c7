"""The study's picture: what each map has in common with the map of fresh weights, over what chance gives."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image as Picture
from trials import VIEWS
from verdicts import CONTROL

from pellucid.core.atomic import write_bytes

COLORS = {
    "pneumonia": "#0072B2",
    "nodule": "#D55E00",
    "hippocampus": "#009E73",
    "vessels": "#CC79A7",
    "pneumonia_transformer": "#000000",
}
TITLES = {"ranks": "the map with its sign", "magnitudes": "its magnitude, which is seen first"}


def draw(record: dict[str, Any], path: Path) -> None:
    """Write the picture."""
    mpl.rcParams["font.size"] = 8
    names = order(record)
    sheet = Figure(figsize=(11, 1.6 + 0.23 * len(names)), layout="constrained")
    axes = sheet.subplots(1, len(VIEWS), sharey=True)
    for axis, view in zip(axes, VIEWS, strict=True):
        _panel(axis, record, names, view)
    axes[1].legend(fontsize=7, loc="lower right", title="network", title_fontsize=7)
    sheet.supxlabel(
        "Rank correlation of the map with the map of fresh weights, less the end of what shifted maps give; mean over "
        "cases, 95% interval over patients.\nRight of the line: more than chance shares, so the method fails. Research "
        "use; demonstration networks.",
        fontsize=8,
    )
    buffer = io.BytesIO()
    sheet.savefig(buffer, format="png", dpi=90)
    packed = io.BytesIO()
    Picture.open(buffer).convert("RGB").quantize(128).save(packed, format="PNG", optimize=True)
    write_bytes(path, packed.getvalue())


def order(record: dict[str, Any]) -> list[str]:
    """The control, then methods by what their magnitudes keep on average."""
    every = {m for found in record["figures"].values() for m in found if m != CONTROL}

    def kept(method: str) -> float:
        cells = [
            found[method]["magnitudes"]["over_chance"]["value"]
            for found in record["figures"].values()
            if method in found
        ]
        return -float(np.mean([v for v in cells if v is not None] or [-9.0]))

    return [CONTROL, *sorted(sorted(every), key=kept)]


def _panel(axis: Axes, record: dict[str, Any], names: list[str], view: str) -> None:
    for shift, (network, color) in zip(np.linspace(-0.3, 0.3, len(COLORS)), COLORS.items(), strict=True):
        cells, label = record["figures"].get(network, {}), network.replace("_", " ")
        for row, name in enumerate(names):
            found = cells.get(name, {}).get(view, {}).get("over_chance")
            if found is None or found["value"] is None:
                continue
            low, high = (found["value"] if found[end] is None else found[end] for end in ("low", "high"))
            axis.plot([low, high], [row + shift] * 2, lw=1, color=color)
            axis.plot([found["value"]], [row + shift], "o", ms=3, color=color, label=label)
            label = None
    axis.axvline(0.0, color="#000000", lw=0.8, ls="--")
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_yticks(range(len(names)), names)
    axis.grid(axis="y", lw=0.3)
    axis.set_title(TITLES[view], fontsize=8)
