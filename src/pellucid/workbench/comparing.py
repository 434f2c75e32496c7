"""Two maps of one case against each other: on one grid, on one scale, region by region."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.core.errors import BadOption, ShapeMismatch
from pellucid.core.explanation import Explanation
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image
from pellucid.core.space import resample
from pellucid.io.labelmap import LabelMap
from pellucid.io.masks import check_same_world
from pellucid.metrics.likeness import block_means, common_blocks, rank_correlation, top_overlap
from pellucid.show.answers import RegionShare
from pellucid.show.difference import Change, Difference
from pellucid.show.figure import Sketch, sketch
from pellucid.show.rules import Map, withheld_words
from pellucid.show.words import number
from pellucid.workbench.answering import Ground, region_table, seen_layer, silent, smaller, totals
from pellucid.workbench.dividing import divide

_NO_NULL = "how large a difference arises by chance was not measured: no region is drawn in it"
_TOLERANCE = 0.05  # by which the voxels of two networks may differ and still count as equal
_BOTH = 0.5  # of a block that both networks must have seen


def compare(
    first: Explanation,
    second: Explanation,
    names: tuple[str, str] | None = None,
    atlas: LabelMap | None = None,
    ranks: bool = False,
    prior: bool = False,
) -> Difference:
    """Put two maps of one case on one grid and one scale, and subtract the second from the first.

    Args:
        first: gives the grid and the image.
        second: of another target, model or method, or of an earlier examination.
        names: of the two; None: what differs between them.
        atlas: the reader's own regions; None: thirds of the image.
        ranks: compare ranks only, so that methods and units may differ.
        prior: the second is an earlier examination of the same patient.

    Raises:
        BadOption: two cases, or two methods or units without ``ranks``.
        ShapeMismatch: grids that cannot be brought together.
        BadRegion: two frames of reference, or a label map that does not fit.

    Example:
        >>> import pellucid, torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 3))
        >>> image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> maps = [pellucid.explain(net, image, target=t, method="InputXGradient") for t in (0, 2)]
        >>> pellucid.compare(*maps).title
        'InputXGradient: class 0 against class 2'
    """
    _check(first, second, ranks, prior)
    one, other = (sketch(e, show_anyway=True) for e in (first, second))
    values, seen, notes = _onto(one, other)
    cell = _coarser(one, other)
    one = replace(one, cell=cell)
    other = Sketch(replace(second, image=_image_onto(first, second)), values, one.grid, other.display, cell)
    minus = None
    if not ranks:
        one, other = _one_scale(one, other)
        minus = _minus(one, other, seen)
    field = None if seen.all() else seen
    on = Ground(one.grid, divide(one.grid, field, atlas), field)
    rank, overlap = _alike(one, other, seen)
    state, why = _state(one, other)
    names = names or names_of(first, second, prior)
    method = "ranks only" if ranks else first.provenance.method
    return Difference(
        f"{method}: {names[0]} against {names[1]}",
        names,
        (one, other),
        minus,
        on.division.layout,
        "area" if one.grid.rank == 2 else "volume",
        _changes(one, other, on, subtract=minus is not None),
        rank,
        overlap,
        state,
        why,
        (*notes, *on.division.notes, *_doubts(first, second, prior)),
    )


def differences(explanations: Sequence[Explanation], atlas: LabelMap | None = None) -> tuple[Difference, ...]:
    """The two targets of one case against each other, by every method that explained both in one unit."""
    targets = list(dict.fromkeys(e.provenance.target for e in explanations))
    if len(targets) != 2:
        return ()
    found = []
    seconds = [e for e in explanations if e.provenance.target == targets[1]]
    for first in (e for e in explanations if e.provenance.target == targets[0]):
        made = first.provenance
        for second in seconds:
            same = second.provenance.method == made.method and second.provenance.settings == made.settings
            if same and second.attribution.unit == first.attribution.unit:
                found.append(compare(first, second, (targets[0], targets[1]), atlas))
    return tuple(found)


def names_of(first: Explanation, second: Explanation, prior: bool = False) -> tuple[str, str]:
    """What tells two explanations apart, in words."""
    if prior:
        return "current", "prior"
    one, other = first.provenance, second.provenance
    pairs = ((one.target, other.target), (one.model, other.model), (one.method, other.method))
    apart = [p for p in pairs if p[0] != p[1]]
    if not apart:
        return "first", "second"
    return ", ".join(a for a, _ in apart), ", ".join(b for _, b in apart)


def _check(first: Explanation, second: Explanation, ranks: bool, prior: bool) -> None:
    one, other = first.provenance, second.provenance
    if one.case != other.case and not prior:
        raise BadOption(
            f"expected two maps of one case, got {one.case} and {other.case}: maps of two patients are never compared",
            "if the second is an earlier examination of the same patient, say so with --prior",
        )
    units = tuple(e.attribution.unit for e in (first, second))
    if not ranks and (one.method != other.method or units[0] != units[1]):
        raise BadOption(
            f"expected two maps of one method and unit to subtract, got {one.method} in {units[0]} and "
            f"{other.method} in {units[1]}",
            "compare their ranks only, with --ranks",
        )


def _onto(one: Sketch, other: Sketch) -> tuple[Map, NDArray[np.bool_], tuple[str, ...]]:
    """The second map on the first one's grid, where both networks looked, and what was done to bring it there."""
    mine, theirs = (_seen(s) for s in (one, other))
    if other.grid.same_geometry(one.grid):
        return other.values, mine & theirs, ()
    patient = (one.grid.calibration, other.grid.calibration) == (Calibration.PATIENT,) * 2
    if patient:
        check_same_world(other.grid, one.grid, "second map")
        values = _moved(other.values, other.grid, one.grid, "linear")
        there = _moved(theirs.astype(np.float32), other.grid, one.grid, "nearest") > 0.5
        if not (mine & there).any():
            raise ShapeMismatch("expected two maps of one place, got fields that do not meet", "register the images")
        said = "the second map was resampled through the patient's coordinates, which the files state to be the same"
        return values, mine & there, (said,)
    if other.values.shape != one.values.shape:
        raise ShapeMismatch(
            f"expected two maps of one shape, got {one.values.shape} and {other.values.shape} without a common place "
            "in the patient",
            "explain images of one size, or files with orientation (NIfTI, DICOM)",
        )
    return other.values, mine & theirs, ("the two grids say nothing of a common place: laid pixel on pixel",)


def _image_onto(first: Explanation, second: Explanation) -> Image | None:
    """The image that the second map is drawn on: its own, brought onto the first one's grid."""
    mine, theirs = first.image, second.image
    if mine is None or theirs is None or first.provenance.input_digest == second.provenance.input_digest:
        return mine
    if theirs.grid.same_geometry(mine.grid) or theirs.grid.calibration is not Calibration.PATIENT:
        return replace(theirs, grid=mine.grid)
    low = float(theirs.data.min())
    return replace(theirs, data=resample(theirs.data[None], theirs.grid, mine.grid, outside=low)[0], grid=mine.grid)


def _moved(values: Map, source: Grid, target: Grid, mode: str) -> Map:
    return resample(torch.from_numpy(np.ascontiguousarray(values))[None, None], source, target, mode)[0, 0].numpy()


def _seen(one: Sketch) -> NDArray[np.bool_]:
    prepared = one.explanation.prepared
    return np.ones(one.grid.shape, bool) if prepared is None else prepared.seen.numpy()


def _coarser(one: Sketch, other: Sketch) -> tuple[float, ...]:
    """The coarser native cell of the two along each axis; empty where one states none."""
    if not one.cell or not other.cell:
        return ()
    theirs = other.cell if other.grid.same_geometry(one.grid) else (max(other.cell),) * len(one.cell)
    return tuple(max(a, b) for a, b in zip(one.cell, theirs, strict=True))


def _one_scale(one: Sketch, other: Sketch) -> tuple[Sketch, Sketch]:
    """Both on the larger of their two scales."""
    fixed = one.display.fixed and other.display.fixed
    limit = max(one.display.limit, other.display.limit)
    words = f"one scale for both maps and their difference: full strength at {number(limit)} {one.display.unit}"
    words += ", the larger of their two fixed scales" if fixed else ", of these two maps only: not comparable"
    made = (replace(s, display=replace(s.display, limit=limit, fixed=fixed, scale_words=words)) for s in (one, other))
    first, second = made
    return first, second


def _minus(one: Sketch, other: Sketch, seen: NDArray[np.bool_]) -> Sketch:
    """First minus second where both networks looked and at least one map exceeds its null."""
    strong = [_strong(s) for s in (one, other)]
    values = np.where(seen & (strong[0] | strong[1]), one.values - other.values, 0).astype(np.float32)
    nulls = [s.display.null for s in (one, other)]
    notes = (_NO_NULL,)
    if None not in nulls:
        notes = ("painted only where at least one of the two maps exceeds its null", *notes)
    if float(np.abs(values).max()) > one.display.limit:
        notes = (
            *notes,
            f"differences beyond the scale (up to {number(float(np.abs(values).max()))}) are full strength",
        )
    made = replace(one.display, null=None, signed=True, notes=notes)
    return Sketch(one.explanation, values, one.grid, made, one.cell)


def _strong(one: Sketch) -> NDArray[np.bool_]:
    null = one.display.null
    return np.ones(one.values.shape, bool) if null is None else (np.abs(one.values) > null)


def _changes(one: Sketch, other: Sketch, on: Ground, subtract: bool) -> tuple[Change, ...]:
    tables = [region_table(s, on) if not silent(s) else None for s in (one, other)]
    found: list[dict[tuple[str, str], RegionShare]] = [
        {(r.group, r.name): r for r in t.rows} if t is not None else {} for t in tables
    ]
    changes = []
    for part in on.division.parts:
        sums = totals(part, (seen_layer(on), lambda n: _apart(one, other, on, n)))
        small = smaller(part, one, sums[0])
        for region, name in enumerate(part.names, 1):
            if not sums[0, region]:
                continue
            first, second = (f.get((part.group, name)) for f in found)
            mean = float(sums[1, region] / sums[0, region]) if subtract and not small[region] else None
            part_of = float(sums[0, region] / sums[0].sum())
            changes.append(Change(name, part_of, *(r.share if r else None for r in (first, second)), mean, part.group))
    if on.division.layout == "regions":
        changes.sort(key=lambda c: -max(c.first or 0.0, c.second or 0.0))
    return tuple(changes)


def _apart(one: Sketch, other: Sketch, on: Ground, row: int) -> Map:
    apart = one.values[row] - other.values[row]
    return apart if on.seen is None else np.where(on.seen[row], apart, 0)


def _alike(one: Sketch, other: Sketch, seen: NDArray[np.bool_]) -> tuple[float | None, float | None]:
    if silent(one) or silent(other):
        return None, None
    cell = [c / s for c, s in zip(one.cell, one.grid.spacing, strict=True)] if one.cell else []
    shape = common_blocks(one.values.shape, (cell,))
    kept = block_means(seen.astype(float), shape).ravel() > _BOTH
    pair = [block_means(np.maximum(s.values, 0).astype(float), shape).ravel()[kept] for s in (one, other)]
    return rank_correlation(*pair), top_overlap(*pair)


def _state(one: Sketch, other: Sketch) -> tuple[str, str]:
    said = [s.explanation.prediction for s in (one, other)]
    below = [s for s, p in zip((one, other), said, strict=True) if p is not None and p.below_threshold]
    if below:
        words = [f"{s.explanation.provenance.target}: {withheld_words(s.explanation)}" for s in below]
        return "withheld", "; ".join(dict.fromkeys(words))
    if silent(one) and silent(other):
        return "nothing", "neither map shows anything, so there is no difference to show"
    return "told", ""


def _doubts(first: Explanation, second: Explanation, prior: bool) -> tuple[str, ...]:
    """What makes a difference hard to read."""
    one, other = first.provenance, second.provenance
    doubts = []
    if one.model_digest != other.model_digest:
        doubts.append("two models: a logit of one need not weigh the same as a logit of the other")
    if one.input_digest != other.input_digest:
        doubts.append("two images: a difference may come from position, noise or acquisition alone")
    if prior:
        doubts.append("whether the two examinations are registered was not checked")
    if one.method == other.method and one.settings != other.settings:
        doubts.append(f"the settings of {one.method} differ: see the provenance")
    if first.prepared is not None and second.prepared is not None:
        pairs = zip(first.prepared.grid.spacing, second.prepared.grid.spacing, strict=True)
        if any(abs(a / b - 1) > _TOLERANCE for a, b in pairs):
            doubts.append("the networks' voxels differ in size: values per voxel are not on one footing")
    return tuple(doubts)
