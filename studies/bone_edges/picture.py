"""The study's picture: a CT slice with the edges that were counted, some of its maps, and all ratios."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from edges import Places
from lungs import Chest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image as Picture

from pellucid.core.atomic import write_bytes

SHOWN = ("InputXGradient", "LRP gamma", "LRP alpha2-beta1", "LRP z+", "DeepTaylor (zB)")
RATIO = "over_control_same_depth_and_steepness"
COLORS = ("#0072B2", "#D55E00", "#000000")
SOURCE = (
    "CT: Lung-PET-CT-Dx, patient A0001 (Li P et al., The Cancer Imaging Archive 2020, CC BY 4.0), resampled to "
    "3 x 3 x 5 mm. Research use; a technical model."
)


def radiological(plane: NDArray) -> NDArray:
    """Rows from front to back, the patient's right on the left."""
    return plane[::-1, ::-1].T


def draw(chest: Chest, where: Places, shown: Mapping[str, list[NDArray]], record: dict, path: Path) -> None:
    """Write the picture."""
    mpl.rcParams["font.size"] = 8
    sheet = Figure(figsize=(12, 7.4), layout="constrained")
    maps, right = sheet.subfigures(1, 2, width_ratios=(3, 2))
    level = int(where.bone_edge.sum((0, 1)).argmax())
    box = np.flatnonzero(where.body[:, :, level].any(1)), np.flatnonzero(where.body[:, :, level].any(0))
    window = (slice(box[0][0], box[0][-1] + 1), slice(box[1][0], box[1][-1] + 1))
    axes = maps.subplots(3, 2).ravel()
    _slice(axes[0], chest, where, window, level)
    for axis, name in zip(axes[1:], SHOWN, strict=True):
        _map(axis, name, sum(shown[name])[window][:, :, level], chest.intensity.numpy()[window][:, :, level])
    _forest(right.subplots(), record["figures"]["as shipped"], list(record["series"]))
    sheet.supxlabel(SOURCE, fontsize=7)
    buffer = io.BytesIO()
    sheet.savefig(buffer, format="png", dpi=100)
    small = Picture.open(buffer).convert("RGB").quantize(200)
    packed = io.BytesIO()
    small.save(packed, format="PNG", optimize=True)
    write_bytes(path, packed.getvalue())


def _slice(axis: Axes, chest: Chest, where: Places, window: tuple[slice, slice], level: int) -> None:
    plane = chest.intensity.numpy()[window][:, :, level]
    axis.imshow(radiological(plane), cmap="gray", vmin=-200, vmax=400, aspect="equal")
    for mask, color in ((where.bone_edge, "#FFD500"), (where.control, "#00E5FF")):
        here = radiological(mask[window][:, :, level])
        axis.imshow(np.ma.masked_where(~here, here), cmap=mpl.colors.ListedColormap([color]), alpha=0.45)
    axis.set_title("bone edges yellow, control edges cyan\npatient's right on the left", fontsize=7)
    axis.axis("off")


def _map(axis: Axes, name: str, values: NDArray, plane: NDArray) -> None:
    top = float(np.percentile(np.abs(values), 99.5))
    axis.imshow(radiological(values), cmap="PRGn", vmin=-top, vmax=top, aspect="equal")
    axis.contour(radiological(plane), [200.0], colors="#000000", linewidths=0.4)
    axis.set_title(f"{name}, bone outlined\nfull color at {top:.1g} logit per voxel", fontsize=7)
    axis.axis("off")


def _forest(axis: Axes, figures: dict, series: Sequence[str]) -> None:
    names = list(figures)
    for shift, color, whom in zip((-0.2, 0.0, 0.2), COLORS, (*series, "both"), strict=True):
        found = [figures[name][RATIO][whom] for name in names]
        middle = np.array([f["value"] for f in found])
        spread = np.abs(np.array([[f["low"] for f in found], [f["high"] for f in found]]) - middle)
        rows = np.arange(len(names)) + shift
        axis.errorbar(middle, rows, xerr=spread, fmt="o", ms=3, lw=1, color=color, label=whom)
    axis.axvline(1.0, color="#888888", lw=0.8)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel("bone edges over control edges, mean magnitude,\nas far from the lung and as steep; 95% interval")
    axis.set_xlim(0.45, 1.7)  # room for the legend
    axis.legend(fontsize=7, loc="upper left")
