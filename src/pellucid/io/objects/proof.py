"""The round trip of an object: written, read back by its geometry and never by its order, and compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray

from pellucid.io.guard import reading
from pellucid.io.objects.source import Flat

_WANTED = ("the object that was just written", "write it again, on another disk")
_SLACK = 1.01  # of half a step: the steps are counted in float32
_TOLERANCE = 1e-4  # mm: positions are decimal strings of 16 characters


@dataclass(frozen=True)
class RoundTrip:
    """What came back of what was written.

    Args:
        error: largest absolute difference of a value.
        allowed: by the encoding: 0 for floats and masks, half a step for 16 bits.
        same_place: whether every voxel lies where it lay.

    Example:
        >>> RoundTrip(0.0, 0.0, True).passed, RoundTrip(0.5, 0.0, True).passed
        (True, False)
    """

    error: float
    allowed: float
    same_place: bool

    @property
    def passed(self) -> bool:
        """Whether values and places are those that were written."""
        return self.same_place and self.error <= self.allowed

    @property
    def words(self) -> str:
        """In one sentence, for reports."""
        place = "every voxel in its place" if self.same_place else "voxels in ANOTHER place"
        stated = f" (at most {self.allowed:.3g} by its 16 bits)" if self.allowed else ""
        return f"written and read back: largest difference {self.error:.3g}{stated}, {place}"

    def plain(self) -> dict[str, Any]:
        """As JSON types."""
        return {"passed": self.passed, "error": self.error, "allowed": self.allowed, "same_place": self.same_place}


def round_trip(path: Path, placed: hd.Volume | Flat, step: float = 0.0) -> RoundTrip:
    """Read an object from its file, and compare it with what was to be written.

    Args:
        path: of a Parametric Map or Segmentation.
        placed: what was written: numbers of a map, booleans of a region, or a region on a projection.
        step: between two stored values of a 16-bit map; 0: values are stored as they are.

    Raises:
        UnreadableImage: the file cannot be read back.
    """
    allowed = step / 2 * _SLACK
    with reading(*_WANTED):
        if isinstance(placed, Flat):
            found = hd.seg.segread(path).get_frames(apply_real_world_transform=False)
            return RoundTrip(_apart(found[0], placed.array), allowed, found.shape[1:] == placed.array.shape)
        if placed.array.dtype == bool:
            found = hd.seg.segread(path).get_volume(segment_numbers=[1], combine_segments=True)
        else:
            found = hd.imread(path).get_volume(dtype=np.float64 if step else np.float32)
        back = _matched(found, placed)
        if back is None:
            return RoundTrip(float("inf"), allowed, False)
        return RoundTrip(_apart(back.array, placed.array), allowed, True)


def _matched(found: hd.Volume, placed: hd.Volume) -> hd.Volume | None:
    """What was read, on the lattice of what was written, whatever the order of its axes; None: on another."""
    if found.frame_of_reference_uid != placed.frame_of_reference_uid:
        return None
    try:
        back = found.match_geometry(placed, tol=_TOLERANCE)
    except RuntimeError:  # how highdicom says that the lattices do not meet
        return None
    return back if back.geometry_equal(placed, tol=_TOLERANCE) else None


def _apart(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The largest difference; slice by slice, so that a large volume is not copied."""
    if found.shape != wanted.shape:
        return float("inf")
    pairs = zip(found, wanted, strict=True)
    return max(float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max()) for one, other in pairs)
