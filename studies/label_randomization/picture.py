"""The study's picture: maps of two held-out films by networks of true and of shuffled labels, and all similarities."""

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from comparing import PAIRS, Maps
from fitting import Films
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image as Picture

from pellucid.core.atomic import write_bytes

SHOWN = ("Saliency", "IntegratedGradients", "GuidedBackprop", "DeepTaylor", "GradCAM")
NETWORKS = {
    "true 0": ("true", 0),
    "true 1": ("true", 1),
    "shuffled 0": ("shuffled", 0),
    "brightness 0": ("brightness", 0),
}
MEASURE = "ranks of magnitudes"
COLORS = {PAIRS[0]: "#0072B2", PAIRS[1]: "#D55E00", PAIRS[2]: "#000000"}
SOURCE = (
    "Films: PneumoniaMNIST (Yang J et al., Sci Data 2023;10:41; Kermany DS et al., Cell 2018;172:1122), CC BY 4.0, "
    "28 x 28 pixels. Research use; networks of a study."
)


def draw(films: Films, maps: Mapping[str, Maps], record: dict, path: Path) -> None:
    """Write the picture."""
    mpl.rcParams["font.size"] = 8
    sheet = Figure(figsize=(11, 7.4), layout="constrained")
    left, right = sheet.subfigures(1, 2, width_ratios=(3, 2))
    rows = [int(np.flatnonzero(films.labels == label)[0]) for label in (1, 0)]
    axes = left.subplots(len(rows) * len(NETWORKS), 1 + len(SHOWN))
    for block, row in enumerate(rows):
        for line, (title, key) in enumerate(NETWORKS.items()):
            here = axes[block * len(NETWORKS) + line]
            name = ("normal", "pneumonia")[films.labels[row]]
            _film(here[0], films.images[row, 0].numpy(), f"{name}, held out\nnetwork: {title}")
            for axis, method in zip(here[1:], SHOWN, strict=True):
                _map(axis, maps[method][key][row].numpy(), method if not block and not line else "")
    _forest(right.subplots(), record["figures"])
    sheet.supxlabel(SOURCE, fontsize=7)
    buffer = io.BytesIO()
    sheet.savefig(buffer, format="png", dpi=100)
    packed = io.BytesIO()
    # by coverage: the usual median cut spends all colors on the maps and loses those of the few marks
    small = Picture.open(buffer).convert("RGB").quantize(256, Picture.Quantize.MAXCOVERAGE, dither=Picture.Dither.NONE)
    small.save(packed, format="PNG", optimize=True)
    write_bytes(path, packed.getvalue())


def _film(axis: Axes, plane: NDArray, words: str) -> None:
    axis.imshow(plane, cmap="gray")
    axis.set_ylabel(words, fontsize=6, rotation=0, ha="right", va="center")
    axis.set_xticks([])
    axis.set_yticks([])


def _map(axis: Axes, values: NDArray, title: str) -> None:
    """Each map on its own scale: only where it is strong is compared."""
    top = float(np.percentile(np.abs(values), 99.5)) or 1.0
    axis.imshow(values, cmap="PRGn", vmin=-top, vmax=top)
    axis.set_title(title, fontsize=7)
    axis.axis("off")


def _forest(axis: Axes, figures: dict) -> None:
    names = list(figures)
    for shift, (kind, color) in zip((-0.2, 0.0, 0.2), COLORS.items(), strict=True):
        found = [figures[name][MEASURE][kind] for name in names]
        middle = np.array([f["value"] for f in found])
        spread = np.abs(np.array([[f["low"] for f in found], [f["high"] for f in found]]) - middle)
        axis.errorbar(middle, np.arange(len(names)) + shift, xerr=spread, fmt="o", ms=3, lw=1, color=color, label=kind)
    axis.axvline(0.0, color="#888888", lw=0.8)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel("rank correlation of magnitudes,\n95% interval over films")
    axis.legend(fontsize=7, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3)
