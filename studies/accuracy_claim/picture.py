"""The study's picture: AUC of each network against every measure of its explanations."""

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image as Picture
from relating import QUALITIES

from pellucid.core.atomic import write_bytes

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#000000", "#56B4E9", "#999999")
BETTER = {1: "up is better", -1: "down is better"}


def draw(record: Mapping, path: Path) -> None:
    """Write the picture."""
    mpl.rcParams["font.size"] = 8
    methods = list(record["correlation with AUC"])
    sheet = Figure(figsize=(13, 2.2 + 2.4 * len(methods)), layout="constrained")
    axes = sheet.subplots(len(methods), len(QUALITIES), squeeze=False)
    plain = list(dict.fromkeys(_plain(row) for row in record["networks"]))
    for line, method in zip(axes, methods, strict=True):
        for axis, (measure, sign) in zip(line, QUALITIES.items(), strict=True):
            _panel(axis, record, (method, measure), plain)
            axis.set_title(f"{measure}\n{BETTER[sign]}", fontsize=8)
        line[0].set_ylabel(f"{method}\nmedian over films, middle half")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    sheet.legend(handles, labels, loc="outside upper center", ncols=8)
    sheet.supxlabel(
        "Across: AUC (by the logarithm of what is missing to 1) on held-out films of PneumoniaMNIST (Yang J et al., "
        "Sci Data 2023;10:41; CC BY 4.0).\nFilled: held back by dropout and weight decay. "
        "Research use; networks of a study.",
        fontsize=7,
    )
    buffer = io.BytesIO()
    sheet.savefig(buffer, format="png", dpi=100)
    packed = io.BytesIO()
    Picture.open(buffer).convert("RGB").save(packed, format="PNG", optimize=True)
    write_bytes(path, packed.getvalue())


def _panel(axis: Axes, record: Mapping, which: tuple[str, str], plain: list[str]) -> None:
    method, measure = which
    for row in record["networks"]:
        found, name = row["measures"][method][measure], _plain(row)
        color = COLORS[plain.index(name) % len(COLORS)]
        first = not row["held_back"] and row["seed"] == 0
        axis.errorbar(
            1 - row["auc"]["value"],
            found["median"],
            yerr=np.abs([[found["lower"] - found["median"]], [found["upper"] - found["median"]]]),
            fmt="o",
            ms=4,
            lw=0.6,
            color=color,
            mfc=color if row["held_back"] else "white",
            label=name if first else None,
        )
    axis.set_xscale("log")
    axis.invert_xaxis()
    ticks = (0.4, 0.2, 0.1, 0.07)
    axis.set_xticks(ticks, [f"{1 - tick:.2f}" for tick in ticks])
    axis.minorticks_off()
    told = record["correlation with AUC"][method][measure]
    if told["low"] is not None:
        words = f"rank corr. of quality {told['value']:+.2f}\n[{told['low']:+.2f}, {told['high']:+.2f}]"
        axis.text(0.03, 0.97, words, transform=axis.transAxes, va="top", fontsize=7)
    axis.margins(y=0.25)


def _plain(row: Mapping) -> str:
    return row["design"].split(", ")[0]
