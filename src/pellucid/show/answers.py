"""Answers a reader uses, as plain data and in words: where the evidence lies, key slices, agreement of methods."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import floor, log10
from typing import Any, Literal

from pellucid.show.words import RANGE, number

Layout = Literal["regions", "ninths", "axes"]
AGREEMENT = (
    "Agreement says nothing about whether any of the maps is right: methods that share a formula or a layer agree "
    "with one another, and may all point at the same wrong place."
)


@dataclass(frozen=True)
class RegionShare:
    """How much of a map's evidence lies in one region.

    Args:
        name: of the region.
        part: share of the area (volume) that the network saw.
        share: of the positive evidence; None: the region is smaller than the map's native cell.
        low: the same when half a cell at the region's border belongs to its neighbors.
        high: the same when half a cell around it belongs to it.
        against: share of the negative evidence; None: the map has none.
        above: share of what rises above the null; None: no null was measured.
        group: heading under which it stands; empty: none.
        outside: whether this is what no label covers.
    """

    name: str
    part: float
    share: float | None = None
    low: float | None = None
    high: float | None = None
    against: float | None = None
    above: float | None = None
    group: str = ""
    outside: bool = False

    @property
    def density(self) -> float | None:
        """Evidence per area (volume), relative to the mean of what the network saw."""
        return self.share / self.part if self.share is not None and self.part > 0 else None


@dataclass(frozen=True)
class RegionTable:
    """The regions of one map.

    Args:
        layout: ``regions`` of a label map, ``ninths`` of a picture in reading order, or thirds along three ``axes``.
        measure: ``area`` or ``volume``.
        rows: the regions of a label map by falling share, what no label covers last.
        notes: what a reader must know of the regions.
        balance: share of the positive in all evidence, for and against; None: the map has none against.
    """

    layout: Layout
    measure: str
    rows: tuple[RegionShare, ...]
    notes: tuple[str, ...] = ()
    balance: float | None = None

    @property
    def leading(self) -> RegionShare | None:
        """Where most of the positive evidence lies."""
        told = [r for r in self.rows if r.share]
        return max(told, key=lambda r: r.share or 0.0) if told else None


@dataclass(frozen=True)
class Slab:
    """Neighboring slices and their share of the positive evidence, counted from 1."""

    first: int
    last: int
    share: float

    @property
    def words(self) -> str:
        """Such as ``34-41``."""
        return str(self.first) if self.first == self.last else f"{self.first}{RANGE}{self.last}"


@dataclass(frozen=True)
class KeySlices:
    """The few slices of a volume that hold most of the positive evidence.

    Args:
        view: ``axial``, ``coronal``, ``sagittal`` or ``axis 0``.
        count: slices of the volume.
        slabs: strongest first, each as thick as the map's native cell (at least one slice).
    """

    view: str
    count: int
    slabs: tuple[Slab, ...]

    @property
    def together(self) -> float:
        """Their share together."""
        return sum(s.share for s in self.slabs)

    @property
    def words(self) -> str:
        """One sentence."""
        runs: list[Slab] = []
        for slab in sorted(self.slabs, key=lambda s: s.first):  # neighbors read as one
            joins = bool(runs) and runs[-1].last + 1 == slab.first
            runs = [*runs[:-1], Slab(runs[-1].first, slab.last, 0.0)] if joins else [*runs, slab]
        one = len(runs) == 1 and runs[0].first == runs[0].last
        spread = "" if self.together >= 0.5 else "; the rest is spread over many slices"
        slices = (
            f"{self.view.capitalize()} slice{'' if one else 's'} {_listed([r.words for r in runs])} of {self.count}"
        )
        verb = "holds" if one else "hold"
        return f"{slices} {verb} {percent(self.together)} of the positive evidence{spread}."


@dataclass(frozen=True)
class Peak:
    """Where a map is strongest, no finer than its native cell.

    Args:
        words: slice or row and column, millimeters where there are any, and the cell.
        first: first voxel, from 0, of the cell around it, along the image's axes.
        last: last voxel of that cell.
        lps_mm: place in the patient in LPS millimeters, rounded to the cell; None: no patient space.
        cell: edges of the native cell along the image's axes; empty: the method states none.
        unit: of ``cell``.
        axes: what a reader counts along each axis of the image: ``row``, ``axial slice``.
    """

    words: str
    first: tuple[int, ...]
    last: tuple[int, ...]
    lps_mm: tuple[float, ...] | None
    cell: tuple[float, ...]
    unit: str
    axes: tuple[str, ...]

    @property
    def around(self) -> str:
        """The cell around it as a reader counts, from 1; empty where it is one voxel."""
        if self.first == self.last:
            return ""
        spans = sorted(zip(self.axes, self.first, self.last, strict=True), reverse=len(self.axes) == 2)
        return _listed([f"{n} {a + 1}" if a == b else f"{n}s {a + 1}{RANGE}{b + 1}" for n, a, b in spans])


@dataclass(frozen=True)
class Answers:
    """What a reader takes from one map.

    Args:
        state: ``told``; ``withheld`` below the operating point (a page may tell it on request, and says so);
            ``nothing`` where the map shows nothing.
        why: of ``withheld``, in words.
        silence: why the map shows nothing, in words; empty where it does.
        regions: None where it shows nothing.
        peak: None where it shows nothing.
        slices: of a volume.
    """

    state: Literal["told", "withheld", "nothing"]
    why: str = ""
    silence: str = ""
    regions: RegionTable | None = None
    peak: Peak | None = None
    slices: KeySlices | None = None

    @property
    def sentences(self) -> tuple[str, ...]:
        """The table and the slices in words."""
        return (*region_words(self.regions), *((self.slices.words,) if self.slices is not None else ()))

    def plain(self) -> dict[str, Any]:
        """As JSON types; what is withheld is not in it."""
        if self.state != "told":
            return {"state": self.state, "why": self.why or self.silence}
        found: dict[str, Any] = {"state": self.state, "sentences": list(self.sentences)}
        if self.regions is not None:
            rows = [asdict(r) | {"density": r.density} for r in self.regions.rows]
            found["regions"] = asdict(self.regions) | {"rows": rows}
        found["peak"] = asdict(self.peak) if self.peak is not None else None
        if self.slices is not None:
            found["key_slices"] = asdict(self.slices) | {"together": self.slices.together}
        return found


@dataclass(frozen=True)
class Agreement:
    """How alike the maps of several methods are on one case.

    Args:
        target: they explain.
        names: of the methods.
        rank: Spearman correlation of each pair; None: undefined.
        overlap: share of the strongest tenth of the area that both have; None: undefined.
        left_out: (method, reason) of maps that show nothing.
        notes: how it was computed.
        withheld: why a page tells it on request only; empty: it may be told.
    """

    target: str
    names: tuple[str, ...]
    rank: tuple[tuple[float | None, ...], ...]
    overlap: tuple[tuple[float | None, ...], ...]
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    withheld: str = ""

    def plain(self) -> dict[str, Any]:
        """As JSON types; what is withheld is not in it."""
        if self.withheld:
            return {"target": self.target, "withheld": self.withheld}
        return asdict(self) | {"caution": AGREEMENT}


def rounded(value: float | None, scale: float) -> str:
    """A value as a reader writes it beside a scale: nothing finer than a thousandth of it.

    Example:
        >>> rounded(0.0781234, 6.57), rounded(0.000004, 6.57), rounded(None, 1.0).isascii()
        ('0.078', '0', False)
    """
    if value is None:
        return number(None)
    step = 10.0 ** floor(log10(scale / 1000))
    return number(round(value / step) * step)


def times(density: float | None) -> str:
    """How much denser than the mean: two digits, since shares have no more."""
    if density is None:
        return number(None)
    return "under 0.1" if 0 < density < 0.1 else number(float(f"{density:.2g}"))


def percent(share: float | None) -> str:
    """A share as a reader writes it: whole percent, never 0% of something nor 100% of not all.

    Example:
        >>> percent(0.618), percent(0.001), percent(0.9991), percent(None).isascii()
        ('62%', 'under 1%', 'over 99%', False)
    """
    if share is None:
        return number(None)
    if 0 < share < 0.01:
        return "under 1%"
    if 0.99 < share < 1 - 1e-9:
        return "over 99%"
    return f"{100 * share:.0f}%"


def between(row: RegionShare) -> str:
    """The bounds of a share at the native resolution; empty where they are no wider than its rounding."""
    if row.low is None or row.high is None or row.high - row.low < 0.01:
        return ""
    return f"{100 * row.low:.0f}{RANGE}{100 * row.high:.0f}%"


def region_words(table: RegionTable | None) -> tuple[str, ...]:
    """Where most of the evidence lies: for, above the null, against."""
    lead = table.leading if table is not None else None
    if table is None or lead is None:
        return ()
    both = table.balance
    words = [] if both is None else [f"Of all evidence, {percent(both)} speaks for and {percent(1 - both)} against."]
    if table.layout == "axes":
        return (*words, *_axes_words(table.rows))
    words.append(_lead_words(lead, table))
    inner = max((r for r in table.rows if r.share and not r.outside), key=lambda r: r.share or 0.0, default=None)
    if lead.outside and inner is not None:
        words.append(f"Of the regions the {inner.name} holds most: {_share_words(inner, table)}.")
    above = max((r for r in table.rows if r.above), key=lambda r: r.above or 0.0, default=None)
    if above is not None:
        words.append(f"Of what rises above the null, {percent(above.above)} lies {_in(above)}.")
    against = max((r for r in table.rows if r.against), key=lambda r: r.against or 0.0, default=None)
    if against is not None:
        words.append(f"Of the evidence against, {percent(against.against)} lies {_in(against)}.")
    return tuple(words)


def _lead_words(row: RegionShare, table: RegionTable) -> str:
    bounds = between(row)
    apart = f" ({bounds} with half a native cell at the border left out or added)" if bounds else ""
    return (
        f"{percent(row.share)} of the positive evidence lies {_in(row)}{apart}, {times(row.density)} times what its "
        f"{table.measure} alone would hold."
    )


def _share_words(row: RegionShare, table: RegionTable) -> str:
    bounds = f" ({b})" if (b := between(row)) else ""
    return f"{percent(row.share)}{bounds}, {times(row.density)} times what its {table.measure} alone would hold"


def _axes_words(rows: tuple[RegionShare, ...]) -> tuple[str, ...]:
    """The leading third along each axis, in one sentence."""
    groups: Mapping[str, list[RegionShare]] = {g: [] for g in dict.fromkeys(r.group for r in rows)}
    for row in rows:
        groups[row.group].append(row)
    told = [[r for r in rows if r.share is not None] for rows in groups.values()]
    leads = [max(rows, key=lambda r: r.share or 0.0) for rows in told if rows]
    if not leads:
        return ()
    bounds = [f" ({b})" if (b := between(r)) else "" for r in leads]
    named = _listed([f"{percent(r.share)}{b} in the {r.name}" for r, b in zip(leads, bounds, strict=True)])
    apart = "; in brackets within half a native cell of the border" if any(bounds) else ""
    return (f"Of the positive evidence of the volume lie {named}{apart}.",)


def _in(row: RegionShare) -> str:
    if row.outside:
        return row.name
    return f"in {row.name}" if row.name.startswith("label ") else f"in the {row.name}"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
