"""What a reader takes from a map, as arithmetic: shares of regions, peak, key slices, agreement of methods."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, maximum_filter, minimum_filter

from pellucid.core.explanation import Explanation
from pellucid.core.grid import Calibration, Grid
from pellucid.core.prepare import Prepared
from pellucid.io.labelmap import LabelMap
from pellucid.show.answers import Answers, KeySlices, Peak, RegionShare, RegionTable, Slab
from pellucid.show.figure import Sketch, sketch
from pellucid.show.planes import body_axis
from pellucid.show.rules import Map, patient_point, withheld_words
from pellucid.show.words import length_unit
from pellucid.workbench.dividing import Division, Part, divide

_MOST_SLABS = 5
_HALF = 0.5  # of the positive evidence: what key slices should hold together
_THICK = 1.5  # slices this much thicker than the pixels are those a reader scrolls through
_VIEWS = ("sagittal", "coronal", "axial")
_AXIAL = 2
Field = NDArray[np.bool_] | None
Layer = Callable[[int], NDArray[np.generic]]


@dataclass(frozen=True, eq=False)
class Ground:
    """What all maps of one image are read on.

    Args:
        grid: of the image.
        division: its regions.
        seen: "*space", where the network looked; None: everywhere.
    """

    grid: Grid
    division: Division
    seen: Field


def ground(grid: Grid, prepared: Prepared | None, atlas: LabelMap | None = None) -> Ground:
    """Divide an image once for all its maps.

    Args:
        grid: of the image.
        prepared: tells where the network looked; None: everywhere.
        atlas: the reader's own regions; None: thirds.

    Raises:
        BadRegion: the label map does not fit the image.
    """
    seen = None if prepared is None or _covers(prepared) else prepared.seen.numpy()
    field = None if seen is None or seen.all() else seen
    return Ground(grid, divide(grid, field, atlas), field)


def _covers(prepared: Prepared) -> bool:
    """Whether the network saw every voxel, by the image's corners: its field is convex."""
    shape = prepared.source.shape
    corners = np.stack(np.meshgrid(*((0.0, n - 1.0) for n in shape)), -1).reshape(-1, len(shape))
    at = prepared.grid.index(prepared.source.world(corners))
    return bool(((at >= -0.5) & (at <= np.asarray(prepared.grid.shape) - 0.5)).all())


def answer(explanation: Explanation, on: Ground) -> Answers:
    """Read one map: where its evidence lies, its peak and its key slices, no finer than its native cell.

    Positive evidence is the sum of the positive values over the voxels of the image's own grid. A map that shows
    nothing is not read, and what is read below the operating point is marked as withheld.

    Args:
        explanation: of one case.
        on: of its image.
    """
    one = sketch(explanation, show_anyway=True)
    said = explanation.prediction
    below = withheld_words(explanation) if said is not None and said.below_threshold else ""
    why = silent(one)
    if why:
        return Answers("withheld" if below else "nothing", below, why)
    slices = key_slices(one) if one.grid.rank == 3 else None
    return Answers("withheld" if below else "told", below, "", region_table(one, on), _peak(one), slices)


def silent(one: Sketch) -> str:
    """Why a map shows nothing; empty where it does."""
    highest = float(one.values.max())
    if highest <= 0:
        return "no positive value: nothing in this map speaks for the target"
    if one.display.null is not None and highest <= one.display.null:
        return "nothing in this map rises above what normal cases reach, so no place is named"
    return ""


def region_table(one: Sketch, on: Ground) -> RegionTable:
    """Shares of the evidence by region; see ``RegionTable``."""
    positive = np.maximum(one.values, 0)
    rows = [row for part in on.division.parts for row in _rows(one, on, part, positive)]
    if on.division.layout == "regions":
        rows.sort(key=lambda r: (r.outside, r.share is None, -(r.share or 0.0), r.name))
    notes = on.division.notes
    if any(r.share is None for r in rows):
        notes = (*notes, "a region smaller than the map's native cell has no share: the map cannot tell it apart")
    pro = float(positive.sum(dtype=np.float64))
    con = pro - float(one.values.sum(dtype=np.float64)) if one.display.signed else 0.0
    balance = pro / (pro + con) if con > 0 else None
    return RegionTable(on.division.layout, "area" if one.grid.rank == 2 else "volume", tuple(rows), notes, balance)


def totals(part: Part, layers: Sequence[Layer]) -> NDArray[np.float64]:
    """Sums of each layer in each region: "layer region", region 0 being what no label covers.

    Args:
        part: the division.
        layers: each gives its values at one index of the first axis, so that a large volume is not copied whole.
    """
    count, shape = len(part.names) + 1, part.labels.shape
    out = np.zeros((len(layers), count))
    lines = np.zeros((len(layers), shape[part.axis or 0]))
    for row in range(shape[0]):
        planes = [layer(row) for layer in layers]
        if part.axis is None:
            labels = part.labels[row].ravel()
            out += [np.bincount(labels, plane.ravel(), minlength=count) for plane in planes]
        elif part.axis == 0:
            lines[:, row] = [plane.sum(dtype=np.float64) for plane in planes]
        else:
            lines += [plane.sum(2 - part.axis, dtype=np.float64) for plane in planes]
    if part.axis is not None:
        out += [np.bincount(_line(part), line, minlength=count) for line in lines]
    return out


def key_slices(one: Sketch) -> KeySlices:
    """The fewest slabs of a volume, each as thick as a native cell, that hold half of the evidence; at most five.

    Args:
        one: a map with a positive value; without a stated cell a slab is one slice.
    """
    grid, cell = one.grid, one.cell
    axis = slice_axis(grid)
    others = tuple(a for a in range(3) if a != axis)
    profile = np.maximum(one.values, 0).sum(others, dtype=np.float64)
    profile = profile / profile.sum()
    thick = min(len(profile), max(1, round(cell[axis] / grid.spacing[axis]))) if cell else 1
    left, slabs = profile.copy(), []
    free = np.ones(len(profile), bool)
    while len(slabs) < _MOST_SLABS and sum(s.share for s in slabs) < _HALF:
        starts = [n for n in range(len(profile) - thick + 1) if free[n : n + thick].all()]
        if not starts:
            break
        first = max(starts, key=lambda n: left[n : n + thick].sum())
        share = float(left[first : first + thick].sum())
        if share <= 0:
            break
        slabs.append(Slab(first + 1, first + thick, share))
        free[first : first + thick] = False
    return KeySlices(_view(grid, axis), len(profile), tuple(slabs))


def slice_axis(grid: Grid) -> int:
    """The axis a reader scrolls along: that of thick slices, else the patient's head-feet axis, else the first."""
    order = sorted(range(3), key=lambda a: -grid.spacing[a])
    if grid.spacing[order[0]] > _THICK * grid.spacing[order[1]]:
        return order[0]
    if grid.letters is None:
        return 0
    return next(a for a in range(3) if body_axis(grid, a) == _AXIAL)


def reach_of(one: Sketch) -> tuple[int, ...]:
    """Half a native cell in whole voxels along the image's axes; 0 where the cell is a voxel or not stated."""
    cell = one.cell or (0.0,) * one.grid.rank
    return tuple(int(0.5 * c / s + 1e-6) for c, s in zip(cell, one.grid.spacing, strict=True))


def smaller(part: Part, one: Sketch, counts: NDArray[np.float64]) -> NDArray[np.bool_]:
    """By region: whether it is smaller than the native cell, in all or along one axis.

    Args:
        part: the division.
        one: a map with its cell.
        counts: voxels of each region, region 0 first.
    """
    out = np.zeros(len(counts), bool)
    if not one.cell:
        return out
    cell = [max(1.0, c / s) for c, s in zip(one.cell, one.grid.spacing, strict=True)]
    axes = range(one.grid.rank) if part.axis is None else (part.axis,)
    labels = part.labels if part.axis is None else _line(part)
    for region, box in enumerate(find_objects(labels.astype(np.int32)), 1):
        thin = box is not None and any(b.stop - b.start < cell[a] - 0.5 for a, b in zip(axes, box, strict=True))
        out[region] = thin or counts[region] < 0.99 * np.prod(cell)
    return out


def seen_layer(on: Ground) -> Layer:
    """Ones where the network looked, for ``totals``."""
    if on.seen is not None:
        return on.seen.__getitem__
    ones = np.ones(on.grid.shape[1:], np.uint8)
    return lambda _: ones


def _rows(one: Sketch, on: Ground, part: Part, positive: Map) -> list[RegionShare]:
    values, null = one.values, one.display.null
    zeros = np.zeros(values.shape[1:], np.float32)
    layers: tuple[Layer, ...] = (
        seen_layer(on),
        lambda n: positive[n],
        lambda n: np.maximum(-values[n], 0) if one.display.signed else zeros,
        lambda n: np.where(values[n] > null, values[n], 0) if null is not None else zeros,
    )
    sums = totals(part, layers)
    wholes = sums.sum(1, keepdims=True)
    shares = np.divide(sums, wholes, out=np.full_like(sums, np.nan), where=wholes > 0)
    reach = reach_of(one)
    low, high = np.clip(_bounds(positive, part, reach) / wholes[1], 0, 1)
    bounds = np.stack([np.minimum(low, shares[1]), np.maximum(high, shares[1])])
    rows = []
    small = smaller(part, one, sums[0])
    for region, name in enumerate(part.names, 1):
        if not sums[0, region]:
            continue
        part_of, share, negative, over = (_number(v) for v in shares[:, region])
        if small[region]:
            rows.append(RegionShare(name, part_of or 0.0, group=part.group))
            continue
        spread = (float(v) for v in bounds[:, region]) if any(reach) else (None, None)
        rows.append(RegionShare(name, part_of or 0.0, share, *spread, negative, over, part.group))
    return [*rows, *_outside(shares, small)] if on.division.layout == "regions" else rows


def _outside(shares: NDArray[np.float64], small: NDArray[np.bool_]) -> list[RegionShare]:
    """What no label covers; with it the regions too small to tell, whose share could else be worked out."""
    rest = small.copy()
    rest[0] = True
    part_of, share, negative, over = (_number(v) for v in shares[:, rest].sum(1))
    if not part_of or rest.all():
        return []
    name = "outside every region, or in one too small to tell" if small.any() else "outside every region"
    return [RegionShare(name, part_of, share, None, None, negative, over, outside=True)]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _line(part: Part) -> NDArray[np.uint16]:
    """The labels along the one axis on which they change."""
    return part.labels[tuple(slice(None) if a == part.axis else 0 for a in range(part.labels.ndim))]


def _bounds(positive: Map, part: Part, reach: Sequence[int]) -> NDArray[np.float64]:
    """Evidence in each region shrunk, and grown, by half a native cell: "low/high region".

    On blocks of a quarter of a cell, which is as fine as such a bound means anything.
    """
    labels, axes = part.labels, range(part.labels.ndim)
    if part.axis is not None:
        positive = positive.sum(tuple(a for a in axes if a != part.axis), dtype=np.float64)
        labels, reach = _line(part), (reach[part.axis],)
    steps = [max(1, r // 2) for r in reach]
    for axis, step in enumerate(steps):
        starts = np.arange(0, labels.shape[axis], step)
        positive = np.add.reduceat(positive, starts, axis)
        labels = labels.take(np.minimum(starts + step // 2, labels.shape[axis] - 1), axis)
    blocks = [round(r / s) for r, s in zip(reach, steps, strict=True)]
    out = np.zeros((2, len(part.names) + 1))
    for region, box in enumerate(find_objects(labels.astype(np.int32)), 1):
        if box is None:
            continue
        grown = tuple(slice(max(0, b.start - r), b.stop + r) for b, r in zip(box, blocks, strict=True))
        inside, evidence = labels[grown] == region, positive[grown]
        size = [2 * r + 1 for r in blocks]
        for row, change in enumerate((minimum_filter, maximum_filter)):
            out[row, region] = evidence[change(inside, size=size, mode="nearest")].sum(dtype=np.float64)
    return out


def _peak(one: Sketch) -> Peak:
    at, reach = one.peak, reach_of(one)
    first = tuple(max(0, i - r) for i, r in zip(at, reach, strict=True))
    last = tuple(min(n - 1, i + r) for i, r, n in zip(at, reach, one.grid.shape, strict=True))
    point = patient_point(at, one.grid, one.cell) if one.grid.calibration is Calibration.PATIENT else None
    axes = ("row", "column") if one.grid.rank == 2 else tuple(f"{_view(one.grid, a)} slice" for a in range(3))
    return Peak(one.place, first, last, point, one.cell, length_unit(one.grid), axes)


def _view(grid: Grid, axis: int) -> str:
    """The picture that a slice across this axis is."""
    return f"axis {axis}" if grid.letters is None else _VIEWS[body_axis(grid, axis)]
