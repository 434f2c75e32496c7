"""Where voxels are: a lattice of points in the world, in millimeters where millimeters exist."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from pellucid.core.errors import BadOption, ShapeMismatch

Affine = tuple[tuple[float, float, float, float], ...]
_FRAME = "frame-"
_POSITIVE, _NEGATIVE = "LPH", "RAF"  # DICOM PS3.3 C.7.6.1.1.1: x to the left, y to the back, z to the head


class Calibration(StrEnum):
    """What a length on the grid means."""

    PATIENT = "patient"  # positions and millimeters in the patient (CT, MR, PET)
    DETECTOR = "detector"  # millimeters on the detector plane (DX, MG ImagerPixelSpacing): magnified
    CALIBRATED = "calibrated"  # millimeters by a fiducial or a scale in the image
    NOMINAL = "nominal"  # millimeters that somebody wrote down, not measured
    NONE = "none"  # pixels only


@dataclass(frozen=True)
class Grid:
    """A regular lattice of voxel centers: the shape of an image and where it lies.

    Args:
        shape: voxels along each tensor axis (2 or 3 of them).
        affine: 4 x 4 matrix from voxel index (in tensor axis order) to millimeters in patient LPS;
            a 2-D grid has its normal as third column. With ``Calibration.NONE`` the unit is a pixel.
        calibration: what a length means.
        frame_of_reference: DICOM frame of reference UID, where there is one; never shown (see ``frame``).
        letters: the direction in the patient toward which each axis grows (``("L", "F")``), for a projection
            image that states it without a position; worked out from the affine in patient space.

    Raises:
        ShapeMismatch: not 2 or 3 axes, or an empty one.
        BadOption: an affine that is singular or not finite.

    Example:
        >>> scan = Grid.regular((40, 512, 512), spacing=(5.0, 0.5, 0.5))
        >>> scan.unit, scan.voxels(10.0)
        ('mm', (2.0, 20.0, 20.0))
        >>> Grid.regular((512, 512)).unit
        'px'
    """

    shape: tuple[int, ...]
    affine: Affine
    calibration: Calibration = Calibration.NONE
    frame_of_reference: str | None = None
    letters: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3) or min(self.shape) < 1:
            raise ShapeMismatch(
                f"expected a grid of 2 or 3 axes with at least one voxel each, got shape {self.shape}",
                "pass the spatial shape only, without batch and channel axes",
            )
        matrix = np.asarray(self.affine, dtype=float)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or _flat(matrix[:3, :3]):
            raise BadOption(
                "expected an invertible 4 x 4 affine with finite entries, got something else",
                "check the spacing and orientation in the file's header",
            )
        if self.letters is None and self.calibration is Calibration.PATIENT:
            object.__setattr__(self, "letters", _letters(matrix, len(self.shape)))

    @classmethod
    def regular(
        cls,
        shape: Sequence[int],
        spacing: Sequence[float] | None = None,
        calibration: Calibration | None = None,
        letters: tuple[str, ...] | None = None,
    ) -> "Grid":
        """A grid along the world axes with its first voxel at the origin; without spacing, in pixels.

        Args:
            shape: voxels along each axis.
            spacing: mm between voxel centers along each axis.
            calibration: what a length means; None: nominal with a spacing (a length alone says nothing about left
                and right), none without.
            letters: toward which each axis grows, for a projection image.
        """
        steps = [float(s) for s in spacing] if spacing is not None else [1.0] * len(shape)
        if len(steps) != len(shape) or min(steps) <= 0 or not np.isfinite(steps).all():
            raise BadOption(
                f"expected {len(shape)} positive spacings, got {steps}", "give one length above zero for each axis"
            )
        known = Calibration.NONE if spacing is None else Calibration.NOMINAL
        matrix = np.diag([*steps, *([1.0] * (3 - len(steps))), 1.0])
        return cls(tuple(int(n) for n in shape), as_affine(matrix), calibration or known, letters=letters)

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The affine as an array."""
        return np.asarray(self.affine, dtype=np.float64)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between neighboring voxel centers along each axis, in ``unit``."""
        return tuple(float(v) for v in np.linalg.norm(self.matrix[:3, : self.rank], axis=0))

    @property
    def unit(self) -> str:
        """``mm`` where millimeters exist, else ``px``."""
        return "px" if self.calibration is Calibration.NONE else "mm"

    @property
    def frame(self) -> str | None:
        """A pseudonym of the frame of reference, the same for the same frame: a UID can be looked up in an archive.

        Example:
            >>> from dataclasses import replace
            >>> one, two = (replace(Grid.regular((4, 4)), frame_of_reference=f) for f in ("1.2.3", "1.2.4"))
            >>> again = replace(one, frame_of_reference=one.frame)
            >>> one.frame == again.frame, one.frame == two.frame
            (True, False)
        """
        uid = self.frame_of_reference
        if uid is None or uid.startswith(_FRAME):
            return uid
        return _FRAME + hashlib.sha256(uid.encode()).hexdigest()[:32]

    def voxels(self, length: float) -> tuple[float, ...]:
        """A length in ``unit`` as a (fractional) number of voxels along each axis."""
        return tuple(length / s for s in self.spacing)

    def world(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voxel indices ``(n, rank)`` to LPS millimeters ``(n, 3)``."""
        index = np.atleast_2d(np.asarray(index, dtype=float))
        return index @ self.matrix[:3, : self.rank].T + self.matrix[:3, 3]

    def index(self, world: NDArray[np.float64]) -> NDArray[np.float64]:
        """LPS millimeters ``(n, 3)`` to fractional voxel indices ``(n, rank)``."""
        offset = np.atleast_2d(np.asarray(world, dtype=float)) - self.matrix[:3, 3]
        return (offset @ np.linalg.inv(self.matrix[:3, :3]).T)[:, : self.rank]

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> "Grid":
        """The part that begins at voxel ``start``; it may reach beyond the grid."""
        return self._moved(np.asarray(start, float), np.ones(self.rank), shape)

    def resized(self, shape: Sequence[int]) -> "Grid":
        """The same field of view cut into ``shape`` voxels (half-pixel centers, as ``align_corners=False``)."""
        step = np.asarray(self.shape, float) / np.asarray(shape, float)
        return self._moved((step - 1) / 2, step, shape)

    def centered(self, step: Sequence[float], shape: Sequence[int]) -> "Grid":
        """A grid about the same center with voxels of ``step`` times this grid's size.

        Where the step is 1 the voxels stay the same ones, and the center may move by half a voxel: the spare voxel of
        an odd difference is added behind, or cut where it makes ``n // 2`` the middle of both (as MONAI does).
        """
        steps, old, new = np.asarray(step, float), np.asarray(self.shape), np.asarray(shape)
        start = (old - 1) / 2 - steps * (new - 1) / 2
        whole = np.where(new > old, -((new - old) // 2), old // 2 - new // 2)
        return self._moved(np.where(steps == 1, whole, start), steps, shape)

    def reoriented(self, letters: str) -> "Grid":
        """The same voxels with axes put in the order and direction of ``letters``, such as ``RAS`` or ``LPH``.

        Raises:
            BadOption: the letters do not name each body axis once, or this grid is not in patient space.
        """
        wanted = [{"S": "H", "I": "F"}.get(c, c) for c in letters.upper()]
        if self.letters is None or self.rank != 3 or self.calibration is not Calibration.PATIENT:
            raise BadOption(
                f"the image is not in patient space, so it cannot be turned to {letters}",
                "read it from a file with orientation (NIfTI, DICOM), or leave orientation out of the model card",
            )
        if not set(wanted) <= set(_POSITIVE + _NEGATIVE) or sorted(_axis_of(c) for c in wanted) != [0, 1, 2]:
            raise BadOption(f"expected one letter of each of L/R, A/P and H/F, got {letters}", "write for example RAS")
        columns, origin = [], self.matrix[:3, 3].copy()
        order = [_axis_of(c) for c in self.letters]
        for c in wanted:
            axis = order.index(_axis_of(c))
            column = self.matrix[:3, axis]
            if self.letters[axis] != c:
                origin = origin + column * (self.shape[axis] - 1)
                column = -column
            columns.append(column)
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = np.stack(columns, 1), origin
        shape = tuple(self.shape[order.index(_axis_of(c))] for c in wanted)
        return replace(self, shape=shape, affine=as_affine(matrix), letters=tuple(wanted))

    def same_geometry(self, other: "Grid", tolerance: float = 1e-3) -> bool:
        """Whether every voxel of both lies at the same place, within ``tolerance`` voxels."""
        if self.shape != other.shape or self.calibration != other.calibration:
            return False
        corner = np.asarray([[0] * self.rank, [n - 1 for n in self.shape]], float)
        step = min(self.spacing)
        return bool(np.abs(self.world(corner) - other.world(corner)).max() <= tolerance * step) and bool(
            np.abs(self.matrix[:3, :3] - other.matrix[:3, :3]).max() <= tolerance * step
        )

    def _moved(self, start: NDArray[np.float64], step: NDArray[np.float64], shape: Sequence[int]) -> "Grid":
        matrix = self.matrix
        matrix[:3, 3] = self.world(start)[0]
        matrix[:3, : self.rank] = matrix[:3, : self.rank] * step
        return replace(self, shape=tuple(int(n) for n in shape), affine=as_affine(matrix))


def as_affine(matrix: NDArray[np.float64]) -> Affine:
    """A 4 x 4 array as nested tuples, so that a Grid stays immutable."""
    rows = np.asarray(matrix, dtype=float)
    return tuple((float(r[0]), float(r[1]), float(r[2]), float(r[3])) for r in rows)


def _flat(matrix: NDArray[np.float64]) -> bool:
    """Whether the axes span no volume, whatever their lengths: voxels of a microscope are small."""
    lengths = np.linalg.norm(matrix, axis=0)
    return bool(lengths.min() == 0 or abs(np.linalg.det(matrix / lengths)) < 1e-6)


def _axis_of(letter: str) -> int:
    return (_POSITIVE if letter in _POSITIVE else _NEGATIVE).index(letter)


def _letters(matrix: NDArray[np.float64], rank: int) -> tuple[str, ...]:
    """The body direction of each axis: every axis gets its own, the best total fit of the three."""
    directions = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    fit = np.abs(directions)
    best = max(permutations(range(3)), key=lambda bodies: sum(fit[body, axis] for axis, body in enumerate(bodies)))
    letters = [(_POSITIVE if directions[body, axis] > 0 else _NEGATIVE)[body] for axis, body in enumerate(best)]
    return tuple(letters[:rank])
