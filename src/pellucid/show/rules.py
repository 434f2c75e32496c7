"""What may be shown, as pure functions: the honest display contract."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pellucid.core.errors import NonFinite
from pellucid.core.explanation import Explanation, Reference
from pellucid.core.grid import Calibration, Grid
from pellucid.show.planes import body_axis, side_letters
from pellucid.show.words import length_unit, number, unit_word

Mask = NDArray[np.bool_]
Map = NDArray[np.float32]

THIS_IMAGE = "scale of this image only: not comparable"
NO_NULL = "no region is drawn: how high this map rises in normal cases was not measured"
_OWN = 0.995  # of a map's own values, drawn at full strength where no cohort gives the scale
_FAINT, _FULL = 0.30, 0.72  # opacity at the null and at the end of the scale
_BARS = (1, 2, 5, 10, 20, 50, 100, 200)
_VIEW_NAMES = ("sagittal", "coronal", "axial")
_THIRDS = (("upper third", "middle third", "lower third"), ("image left", "image center", "image right"))


@dataclass(frozen=True)
class Display:
    """How one map is drawn, decided before anything is drawn.

    Args:
        state: ``shown``, or ``withheld`` below the model's operating point.
        limit: map value at full strength.
        fixed: whether ``limit`` comes from a cohort (comparable) or from this image (not).
        null: value that must be exceeded to be painted or called a region; None: not measured.
        signed: whether negative values are evidence against.
        unit: of the values, in words.
        scale_words: where the scale comes from.
        notes: sentences that stand beside the picture.
    """

    state: Literal["shown", "withheld"]
    limit: float
    fixed: bool
    null: float | None
    signed: bool
    unit: str
    scale_words: str
    notes: tuple[str, ...] = ()

    @property
    def shown(self) -> bool:
        """Whether any map is drawn."""
        return self.state == "shown"

    @property
    def limits(self) -> tuple[float, float]:
        """The two ends of the color scale."""
        return (-self.limit if self.signed else 0.0), self.limit

    def region(self, values: Map) -> Mask | None:
        """Where the evidence for the target exceeds its null; None where there is no null, so no region."""
        return values > self.null if self.shown and self.null is not None else None

    def against(self, values: Map) -> Mask | None:
        """Where the evidence against the target is as strong as the null of the evidence for it."""
        return values < -self.null if self.shown and self.null is not None and self.signed else None

    def alpha(self, values: Map) -> Map:
        """Opacity of the wash: 0 below the null and, without a null, growing from 0 as the root of the value."""
        if not self.shown:
            return np.zeros_like(values)
        strength = np.abs(values) if self.signed else np.maximum(values, 0)
        share = np.clip(strength / self.limit, 0, 1)
        if self.null is None:
            return (_FULL * np.sqrt(share)).astype(np.float32)
        return np.where(strength > self.null, _FAINT + (_FULL - _FAINT) * share, 0).astype(np.float32)


def decide(explanation: Explanation, values: Map, show_anyway: bool = False) -> Display:
    """What may be shown of a map: nothing below the operating point, a region only above its null.

    Args:
        explanation: with its prediction and, where measured, its reference.
        values: the map of one item as it will be drawn.
        show_anyway: draw a map although the model says no; the picture then says so.

    Raises:
        NonFinite: NaN or infinity in the map.
    """
    if not np.isfinite(values).all():
        raise NonFinite("expected a finite map, got NaN or infinity", "explain again in float32, or another method")
    attribution = explanation.attribution
    unit = unit_word(attribution.unit)
    prediction = explanation.prediction
    below = prediction is not None and prediction.below_threshold
    reference = explanation.reference
    known = reference if reference is not None and isfinite(reference.scale) and reference.scale > 0 else None
    strength = np.abs(values) if attribution.signed else np.maximum(values, 0)
    largest = float(strength.max())
    limit = known.scale if known else _own_scale(strength)
    null = max(known.null, 0.0) if known and known.null is not None else None
    withheld = below and not show_anyway
    notes = (
        (withheld_words(explanation),)
        if withheld
        else (
            *_level_notes(values, attribution.signed, null),
            *_scale_notes(largest, limit, known, unit, attribution.signed),
        )
    )
    if below and show_anyway:
        notes = ("shown on request: the model score is below the operating point", *notes)
    return Display(
        "withheld" if withheld else "shown", limit, known is not None, null, attribution.signed, unit,
        _scale_words(known, limit, unit), notes,
    )  # fmt: skip


def withheld_words(explanation: Explanation) -> str:
    """Why no map is shown."""
    p = explanation.prediction
    if p is None or p.threshold is None:
        return "score below threshold"
    unit = unit_word(p.unit)
    return f"score below threshold ({number(p.value)} < {number(p.threshold)} {unit}): no map is shown"


def peak(values: Map, signed: bool) -> tuple[int, ...]:
    """The voxel of the strongest evidence for the target; of any sign where there is none for it."""
    strength = values if not signed or values.max() > 0 else np.abs(values)
    return tuple(int(i) for i in np.unravel_index(int(strength.argmax()), values.shape))


def scale_bar(grid: Grid, span: float) -> tuple[float, str] | None:
    """A round length of about a fifth of ``span``, with its unit in words; None where millimeters do not exist.

    Example:
        >>> scale_bar(Grid.regular((100, 100), (1.0, 1.0), Calibration.DETECTOR), 100.0)
        (20, '20 mm at the detector')
    """
    if grid.calibration is Calibration.NONE or span <= 0:
        return None
    wanted = span / 4
    scale = 10 ** floor(log10(wanted)) if wanted < 1 else 1
    fitting = [b * scale for b in _BARS if b * scale <= wanted * 1.02]
    length = fitting[-1]
    return length, f"{number(length)} {length_unit(grid)}"


def place_words(index: Sequence[float], grid: Grid, cell: Sequence[float] = ()) -> str:
    """A voxel's place in words, no finer than the map's native resolution.

    An image without orientation has an image left, never a patient's left.

    Args:
        index: of the voxel, along the grid's axes.
        grid: of the image.
        cell: native resolution along the grid's axes, in its unit.

    Example:
        >>> place_words((10, 80), Grid.regular((100, 100)))
        'upper third, image right; row 11 of 100, column 81 of 100'
    """
    parts = [_picture_place(index, grid, cell)] if grid.rank == 2 else [_slice_place(index, grid, cell)]
    if grid.calibration is Calibration.PATIENT:
        parts.append(_patient_place(index, grid, cell))
    elif grid.calibration is not Calibration.NONE and grid.rank == 2:
        down, across = ((index[a] + 0.5) * grid.spacing[a] for a in (0, 1))
        coarse = _coarse(cell)
        first = f"{number(_round(down, coarse))} mm below the upper edge"
        parts.append(f"{first}, {number(_round(across, coarse))} {length_unit(grid)} from the left edge of the image")
    if cell:
        parts.append(f"no finer than {number(max(cell))} {length_unit(grid)}")
    return "; ".join(p for p in parts if p)


def patient_point(index: Sequence[float], grid: Grid, cell: Sequence[float] = ()) -> tuple[float, ...]:
    """LPS millimeters of a voxel of a patient grid, rounded as coarsely as the map's native resolution asks."""
    step = _coarse(cell)
    return tuple(_round(float(v), step) for v in grid.world(np.asarray([list(index)], float))[0])


def _picture_place(index: Sequence[float], grid: Grid, cell: Sequence[float]) -> str:
    words = []
    for axis in (0, 1):
        size = grid.shape[axis]
        wide = cell[axis] / grid.spacing[axis] if cell else 0.0
        third = min(2, int(3 * (index[axis] + 0.5) / size))
        if wide > size / 3:  # the cell is as large as what the word would name
            continue
        towards = side_letters(grid, axis, forward=third == 2) if third != 1 else ""
        words.append(_THIRDS[axis][third] + (f" (toward {towards})" if towards else ""))
    counts = [
        f"{name} {_count(index[axis], grid, axis, cell)} of {grid.shape[axis]}"
        for axis, name in enumerate(("row", "column"))
    ]
    return f"{', '.join(words) or 'somewhere in the image'}; {', '.join(counts)}"


def _slice_place(index: Sequence[float], grid: Grid, cell: Sequence[float]) -> str:
    order = range(3) if grid.letters is None else sorted(range(3), key=lambda a: -body_axis(grid, a))
    names = [f"axis {a}" if grid.letters is None else _VIEW_NAMES[body_axis(grid, a)] for a in order]
    return ", ".join(
        f"{name} slice {_count(index[a], grid, a, cell)} of {grid.shape[a]}"
        for name, a in zip(names, order, strict=True)
    )


def _patient_place(index: Sequence[float], grid: Grid, cell: Sequence[float]) -> str:
    point = patient_point(index, grid, cell)
    found = [f"{pair[0 if v >= 0 else 1]} {number(abs(v))}" for v, pair in zip(point, ("LR", "PA", "HF"), strict=True)]
    return f"{', '.join(found)} mm in scanner coordinates"


def _count(value: float, grid: Grid, axis: int, cell: Sequence[float]) -> str:
    """A 1-based count, rounded (and called so) where the cell spans many voxels."""
    wide = cell[axis] / grid.spacing[axis] if cell else 1.0
    step = max(1, int(_round_step(wide)))
    if step == 1:
        return f"{int(value) + 1}"
    return f"about {min(grid.shape[axis], max(1, int(_round(value + 1, step))))}"


def _coarse(cell: Sequence[float]) -> float:
    return max(1.0, _round_step(max(cell))) if cell else 1.0


def _round_step(cell: float) -> float:
    """The power of ten that a place with this cell may be rounded to: 52 mm gives 10, 7 mm gives 1."""
    return 10.0 ** floor(log10(cell)) if cell > 1 else 1.0


def _round(value: float, step: float) -> float:
    return round(value / step) * step


def _own_scale(strength: Map) -> float:
    """Full strength where no cohort was measured: a map of single voxels scaled to its maximum looks blank."""
    some = strength[strength > 0]
    return float(np.quantile(some, _OWN, method="higher")) if some.size else 1.0


def _scale_words(reference: Reference | None, limit: float, unit: str) -> str:
    if reference is None:
        return THIS_IMAGE
    return (
        f"fixed scale: full strength at {number(limit)} {unit}, 99th percentile of the maxima of "
        f"{reference.n_scale} cases ({reference.cohort})"
    )


def _level_notes(values: Map, signed: bool, null: float | None) -> tuple[str, ...]:
    high, low = float(values.max()), float(values.min())
    if high == 0 and low == 0:
        return ("blank: every value of this map is 0",)
    if high <= 0:
        words = "all values are negative: " if high < 0 else "no positive value: "
        return (words + ("evidence against the target only" if signed else "nothing here speaks for the target"),)
    if null is not None and high <= null:
        return (f"no region: the map's maximum, {number(high)}, stays below its null {number(null)}",)
    return ()


def _scale_notes(largest: float, limit: float, reference: Reference | None, unit: str, signed: bool) -> tuple[str, ...]:
    notes = [THIS_IMAGE] if reference is None else []
    if reference is None or reference.null is None:
        notes.append(NO_NULL)
    else:
        cases = f"{reference.n_null} normal cases"
        notes.append(
            f"null {number(reference.null)} {unit}: at most {number(100 * reference.alpha)}% of {cases} exceed it "
            "anywhere; a region is what lies above it"
        )
        if signed:
            notes.append(
                f"evidence against is drawn below {number(-reference.null)} {unit}; how often normal cases fall below "
                "that was not measured"
            )
    if largest > limit:
        notes.append(f"values beyond the scale (up to {number(largest)} {unit}) are drawn at full strength")
    return tuple(notes)
