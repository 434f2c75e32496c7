"""The study's picture: the gap of GradCAM++ over GradCAM by every definition, threshold, network and layer."""

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from overlapping import CLAIM, COMBINATIONS, HIT, THRESHOLDS
from PIL import Image as Picture

from pellucid.core.atomic import write_bytes

SOURCE = (
    "Nodules are planted into chest films of NIH ChestX-ray14 (Wang X et al., CVPR 2017), the images are not shown. "
    "Research use; networks of a study."
)


def draw(record: Mapping, path: Path) -> None:
    """Write the picture."""
    mpl.rcParams["font.size"] = 8
    settings = record["settings"]
    table = np.array([[100 * _number(row["gap"]["value"]) for row in one["rows"]] for one in settings])
    sheet = Figure(figsize=(11, 0.8 + 0.36 * len(settings) + 1.2), layout="constrained")
    axis = sheet.subplots()
    limit = 100 * CLAIM
    shown = axis.imshow(table, cmap="PRGn", vmin=-limit, vmax=limit, aspect="auto")
    for row, one in enumerate(settings):
        for column, found in enumerate(one["rows"]):
            _cell(axis, row, column, found["gap"])
    axis.set_yticks(range(len(settings)), [_named(one, record["networks"]) for one in settings])
    axis.set_xticks(range(len(COMBINATIONS)), ["" if o == HIT else t for o, t in COMBINATIONS], rotation=45, ha="right")
    for at in range(0, len(COMBINATIONS), len(THRESHOLDS)):
        axis.axvline(at - 0.5, color="black", lw=0.8)
        axis.text(at - 0.4, -0.7, COMBINATIONS[at][0], ha="left", va="bottom", weight="bold")
    bar = sheet.colorbar(
        shown, ax=axis, pad=0.01, label="GradCAM++ less GradCAM, points\n(scale ends at 32: the claim)"
    )
    bar.ax.axhline(limit, color="#D55E00", lw=6)
    sheet.supxlabel(
        "Bold: the 95% interval leaves out 0. Orange frame: 32 points or more, as claimed. Gray: undefined.\n" + SOURCE,
        fontsize=7,
    )
    buffer = io.BytesIO()
    sheet.savefig(buffer, format="png", dpi=100)
    packed = io.BytesIO()
    Picture.open(buffer).convert("RGB").save(packed, format="PNG", optimize=True)
    write_bytes(path, packed.getvalue())


def _cell(axis: Axes, row: int, column: int, gap: Mapping[str, float | None]) -> None:
    value = gap["value"]
    if value is None:
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color="#BBBBBB"))
        return
    sure = gap["low"] is not None and (gap["low"] > 0 or gap["high"] < 0)
    weight, color = "bold" if sure else "normal", "white" if abs(value) > 0.7 * CLAIM else "black"
    axis.text(column, row, f"{100 * value:+.0f}", ha="center", va="center", weight=weight, color=color)
    if value >= CLAIM:
        edge = {"fill": False, "edgecolor": "#D55E00", "lw": 2}
        axis.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, **edge))


def _named(setting: Mapping, networks: Mapping) -> str:
    left_out = "" if networks[setting["network"]]["learned"] else " (not learned)"
    return f"{setting['network']}, {setting['layer']} layer{left_out}"


def _number(value: float | None) -> float:
    return np.nan if value is None else value
