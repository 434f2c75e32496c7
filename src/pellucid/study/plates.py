"""The figures of a study, for its page and as files of their own."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from pellucid.core.atomic import make_folder, write_bytes
from pellucid.show.sheet import png
from pellucid.study.figures import draw_curves, draw_differences, draw_metrics, draw_ranks
from pellucid.study.folder import FIGURES
from pellucid.study.items import Item
from pellucid.study.summary import Summary, by_metric

_PRINT = 3.0


@dataclass(frozen=True, eq=False)
class Plates:
    """The figures of one model and target; None: there is nothing to draw.

    Args:
        model: short name.
        target: as the study names it.
        metrics: every metric with its intervals.
        ranks: how firm they are.
        differences: mean ranks, and how far they must lie apart.
        curves: deletion and insertion.
    """

    model: str
    target: str
    metrics: Figure | None
    ranks: Figure | None
    differences: Figure | None
    curves: Figure | None


def draw_plates(items: Sequence[Item], summary: Summary) -> tuple[Plates, ...]:
    """The figures of each model and target.

    Args:
        items: of a study.
        summary: what its table comes to.
    """
    return tuple(_plates(m, t, items, summary) for m, t in dict.fromkeys((x.model, x.target) for x in summary.lines))


def write_plates(plates: Sequence[Plates], folder: Path) -> dict[str, Path]:
    """Each figure as PNG (300 dpi) and as SVG; their paths by what they are.

    Args:
        plates: of a study.
        folder: of the study.

    Raises:
        UnwritableOutput: the folder cannot be written.
    """
    place, written = make_folder(folder / FIGURES), {}
    for number, plate in enumerate(plates, 1):
        about = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{number}-{plate.model}-{plate.target}").strip("-")
        for kind in ("metrics", "ranks", "differences", "curves"):
            figure = getattr(plate, kind)
            if figure is not None:
                name = f"{about}-{kind}"
                written[f"{name}.png"] = write_bytes(place / f"{name}.png", png(figure, _PRINT))
                written[f"{name}.svg"] = write_bytes(place / f"{name}.svg", _svg(figure))
    return written


def _plates(model: str, target: str, items: Sequence[Item], summary: Summary) -> Plates:
    groups = {k: lines for k, lines in by_metric(summary).items() if k[:2] == (model, target)}
    matches = [m for m in summary.matches if (m.model, m.target) == (model, target)]
    curves = draw_curves(items, model, target)
    return Plates(model, target, draw_metrics(groups), draw_ranks(matches), draw_differences(matches), curves)


def _svg(figure: Figure) -> bytes:
    """Without the time, and with the same names inside each time."""
    out = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "pellucid"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
