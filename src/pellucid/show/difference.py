"""Two maps of one case side by side on one scale, and their difference: two targets, models or time points."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from pellucid.core.errors import BadOption
from pellucid.show.answers import AGREEMENT, Layout
from pellucid.show.figure import Sketch, Stage, draw_rows
from pellucid.show.scenery import Framing
from pellucid.show.words import MINUS, edges, length_unit


@dataclass(frozen=True)
class Change:
    """One region in both maps.

    Args:
        name: of the region.
        part: share of the area (volume) that both networks saw.
        first: share of the first map's positive evidence; None: smaller than the coarser native cell, or not told.
        second: the same of the second map.
        mean: mean of first minus second over the region, in the maps' unit; None: not told, or not subtracted.
        group: heading under which it stands; empty: none.
    """

    name: str
    part: float
    first: float | None
    second: float | None
    mean: float | None
    group: str = ""

    @property
    def points(self) -> float | None:
        """First share minus second, in percentage points."""
        return None if self.first is None or self.second is None else 100 * (self.first - self.second)


@dataclass(frozen=True, eq=False)
class Difference:
    """Two maps compared.

    Args:
        title: what is compared.
        names: of the two maps.
        maps: on the first one's grid; on one common scale unless only ranks are compared.
        difference: first minus second on a scale symmetric about 0; None: only ranks are compared.
        layout: of the regions.
        measure: ``area`` or ``volume``.
        rows: by region.
        rank: Spearman correlation of the positive parts; None: undefined.
        overlap: share of the strongest tenth that both have; None: undefined.
        state: ``told``; ``withheld`` where a score lies below its operating point; ``nothing``: neither map shows any.
        why: of the last two, in words.
        notes: what a reader must know.
    """

    title: str
    names: tuple[str, str]
    maps: tuple[Sketch, Sketch]
    difference: Sketch | None
    layout: Layout
    measure: str
    rows: tuple[Change, ...]
    rank: float | None
    overlap: float | None
    state: Literal["told", "withheld", "nothing"]
    why: str = ""
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """Of the values."""
        return self.maps[0].display.unit

    def plot(self, show_anyway: bool = False) -> Figure:
        """The bare image, both maps and their difference.

        Args:
            show_anyway: draw maps although a score lies below its operating point.

        Raises:
            BadOption: it does, and nobody asked for them.
        """
        if self.state == "withheld" and not show_anyway:
            raise BadOption(f"no map is shown: {self.why}", "pass show_anyway=True to see them all the same")
        return draw_difference(self, Framing())

    def plain(self) -> dict[str, Any]:
        """As JSON types; what is withheld is not in it."""
        head = {"title": self.title, "first": self.names[0], "second": self.names[1], "state": self.state}
        if self.state != "told":
            return head | {"why": self.why}
        return head | {
            "unit": self.unit if self.difference is not None else None,
            "scale": self.maps[0].display.limit if self.difference is not None else None,
            "regions": [asdict(r) | {"points": r.points} for r in self.rows],
            "agreement": {"rank": self.rank, "overlap": self.overlap, "caution": AGREEMENT},
            "notes": list(self.notes),
        }


def draw_difference(one: Difference, framing: Framing) -> Figure:
    """The bare image, both maps and, where they may be subtracted, their difference.

    Args:
        one: what is compared.
        framing: of the case; without a region of its own a volume is cut where the two differ most.
    """
    sketches, names = list(one.maps), list(one.names)
    if one.difference is not None:
        sketches.append(one.difference)
        names.append(f"{one.names[0]} {MINUS} {one.names[1]}")
        if framing.at is None and framing.region is None and one.difference.values.any():
            found = np.unravel_index(int(np.abs(one.difference.values).argmax()), one.difference.values.shape)
            framing = replace(framing, at=tuple(int(i) for i in found))
    stages: list[Stage] = ["wash"] * len(sketches)
    p = one.maps[0].explanation.provenance
    return draw_rows(sketches, names, stages, f"{p.case} \u00b7 {one.title}", _foot(one), framing)


def _foot(one: Difference) -> Sequence[str]:
    last = one.difference
    if last is None:
        return ("each map has a scale of its own: their colors are not comparable",)
    resolution = f"coarser native resolution {edges(last.cell, length_unit(last.grid))}" if last.cell else ""
    colors = f"difference: green where {one.names[0]} has more, purple where {one.names[1]} has more"
    return tuple(w for w in (one.maps[0].display.scale_words, colors, *last.display.notes, resolution) if w)
