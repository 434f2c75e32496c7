"""An image divided into named regions: by a label map, or into thirds along its own axes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pellucid.core.errors import BadRegion
from pellucid.core.grid import Calibration, Grid
from pellucid.io.labelmap import LabelMap
from pellucid.show.answers import Layout
from pellucid.show.planes import side_letters

_SMALL_FIELD = 0.5  # of the image: below it thirds are those of what the network saw, as the picture is cut to it
_ENDS = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "H": "superior", "F": "inferior"}
_FIRST = "RAH"  # the end that is listed first, whichever way the axis runs
_GROUPS = {"R": "right to left", "A": "anterior to posterior", "H": "superior to inferior"}
_DISPLAYED = (("upper third", "middle third", "lower third"), ("image left", "image center", "image right"))
_COUNTED = ("first third", "middle third", "last third")


@dataclass(frozen=True, eq=False)
class Part:
    """One division of all voxels.

    Args:
        labels: "*space", 0 outside, 1 to the number of names; a view where it is the same along an axis.
        names: of labels 1, 2, ...
        axis: along which alone the labels change; None: they change along all.
        group: heading of its rows.
    """

    labels: NDArray[np.uint16]
    names: tuple[str, ...]
    axis: int | None = None
    group: str = ""


@dataclass(frozen=True, eq=False)
class Division:
    """How an image is divided.

    Args:
        layout: see ``RegionTable``.
        parts: one, or three for the thirds of a volume.
        notes: what a reader must know of it.
    """

    layout: Layout
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()


def divide(grid: Grid, seen: NDArray[np.bool_] | None = None, atlas: LabelMap | None = None) -> Division:
    """Divide an image: by the label map, or a picture into ninths and a volume into thirds along three axes.

    Args:
        grid: of the image.
        seen: "*space", where the network looked; None: everywhere.
        atlas: the reader's own regions.

    Raises:
        BadRegion: no region of the label map lies where the network looked, or it is one region everywhere.
    """
    if atlas is not None:
        return _by_labels(grid, seen, atlas)
    box, notes = _box(grid, seen)
    lines = [_thirds(n, *span) for n, span in zip(grid.shape, box, strict=True)]
    if grid.rank == 2:
        labels = np.where((lines[0] > 0)[:, None] & (lines[1] > 0), 3 * (lines[0][:, None] - 1) + lines[1], 0)
        return Division("ninths", (Part(labels.astype(np.uint16), _ninths(grid)),), notes)
    parts = tuple(_slabs(grid, axis, line) for axis, line in enumerate(lines))
    first = {group: n for n, group in enumerate(_GROUPS.values())}
    ordered = tuple(sorted(parts, key=lambda p: first.get(p.group, 0)))
    return Division("axes", ordered, (*notes, *_oblique(grid)))


def _by_labels(grid: Grid, seen: NDArray[np.bool_] | None, atlas: LabelMap) -> Division:
    labels, notes = atlas.on(grid)
    looked = labels if seen is None else labels[seen]
    counts = np.bincount(looked.ravel(), minlength=max(atlas.names) + 1)
    there = [label for label in sorted(atlas.names) if counts[label]]
    missing = [name for label, name in atlas.names.items() if not counts[label]]
    if not there:
        raise BadRegion(
            "expected a region of the label map where the network looked, got none there",
            "check that the label map and the image show the same field, or leave --atlas out",
        )
    if len(there) == 1 and not counts[0]:
        raise BadRegion(
            f"expected a label map that divides the image, got {atlas.names[there[0]]} in every voxel of it",
            "give one with several regions, or leave --atlas out",
        )
    if missing:
        named = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        notes = (*notes, f"the network saw nothing of: {named}")
    table = np.zeros(max(atlas.names) + 1, np.uint16)
    table[there] = np.arange(1, len(there) + 1)
    return Division("regions", (Part(table[labels], tuple(atlas.names[n] for n in there)),), notes)


def _box(grid: Grid, seen: NDArray[np.bool_] | None) -> tuple[list[tuple[int, int]], tuple[str, ...]]:
    """First and last voxel, exclusive, of what is cut into thirds."""
    whole = [(0, n) for n in grid.shape]
    if seen is None or not seen.any():
        return whole, ()
    spans = []
    for axis in range(grid.rank):
        hit = np.flatnonzero(seen.any(tuple(a for a in range(grid.rank) if a != axis)))
        spans.append((int(hit[0]), int(hit[-1]) + 1))
    if np.prod([(b - a) / n for (a, b), n in zip(spans, grid.shape, strict=True)]) >= _SMALL_FIELD:
        return whole, ()
    return spans, ("the thirds are those of the part that the network saw, not of the whole image",)


def _thirds(count: int, start: int, stop: int) -> NDArray[np.int64]:
    """1, 2 and 3 between start and stop, 0 elsewhere; the same from both ends."""
    index = np.arange(count)
    third = 1 + (3 * (2 * (index - start) + 1)) // (2 * (stop - start))
    return np.where((index >= start) & (index < stop), third, 0)


def _ninths(grid: Grid) -> tuple[str, ...]:
    """As displayed, and beside it the side of the patient where the file states one."""
    words = [[_beside(grid, axis, n, name) for n, name in enumerate(_DISPLAYED[axis])] for axis in (0, 1)]
    return tuple(f"{down}, {across}" for down in words[0] for across in words[1])


def _beside(grid: Grid, axis: int, third: int, name: str) -> str:
    if third == 1 or grid.letters is None:
        return name
    ends = [_ENDS[c] for c in side_letters(grid, axis, forward=third == 2)]
    return f"{name} (patient {'-'.join(ends)})"


def _slabs(grid: Grid, axis: int, line: NDArray[np.int64]) -> Part:
    shape = [-1 if a == axis else 1 for a in range(grid.rank)]
    if grid.letters is None:
        names, group = tuple(f"{name} of axis {axis}" for name in _COUNTED), f"axis {axis}"
    else:
        far, near = (side_letters(grid, axis, forward)[0] for forward in (True, False))
        first = near if near in _FIRST else far
        if first == far:  # listed from the same end of the patient, whichever way the axis runs
            line = np.where(line > 0, 4 - line, 0)
        group = _GROUPS[first]
        names = (f"{_ENDS[first]} third", f"middle third ({group})", f"{_ENDS[near if first == far else far]} third")
    return Part(np.broadcast_to(line.astype(np.uint16).reshape(shape), grid.shape), names, axis, group)


def _oblique(grid: Grid) -> tuple[str, ...]:
    """A sentence where the axes run obliquely in the patient, so that thirds do, too."""
    if grid.letters is None:
        return ("the file states no sides of the patient: thirds are counted along the axes of the file",)
    if grid.calibration is not Calibration.PATIENT:
        return ()
    turned = [
        " to ".join(side_letters(grid, a, forward) for forward in (False, True))
        for a in range(3)
        if len(side_letters(grid, a, forward=True)) > 1
    ]
    return (f"the slices are oblique: thirds run along their own axes ({', '.join(turned)})",) if turned else ()
