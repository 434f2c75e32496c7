"""Whether slices are a volume, and if not, why: tilt, gap, duplicates, mixed orientations."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_OFF_PIXELS = 0.25  # a slice may lie this far from its place before the stack is refused
_REGULAR = 0.01  # of the usual distance, as highdicom
_SQUARE = 1e-3


@dataclass(frozen=True, eq=False)
class Planes:
    """Positions of slices in the patient.

    Args:
        positions: "slice 3", ImagePositionPatient in mm.
        orientations: "slice 6", ImageOrientationPatient.
        spacings: "slice 2", PixelSpacing in mm.
        sizes: "slice 2", rows and columns.
    """

    positions: NDArray[np.float64]
    orientations: NDArray[np.float64]
    spacings: NDArray[np.float64]
    sizes: NDArray[np.int64]

    def problem(self) -> str | None:
        """Why these slices are not one regular volume, in words; None where they are."""
        return self.mixed() or self._stacked()

    def step(self) -> float:
        """The usual distance of slices along their normal, in mm; not a number where they have no normal."""
        normal = np.cross(self.orientations[0, :3], self.orientations[0, 3:])
        return float(np.median(np.diff(np.sort(self.positions @ normal)))) if len(self.positions) > 1 else float("nan")

    def _invalid(self) -> str | None:
        numbers = np.concatenate([self.positions, self.orientations, self.spacings], 1)
        if not np.isfinite(numbers).all() or (self.spacings <= 0).any():
            return "a spacing, position or orientation that is missing, zero, negative or not a number"
        rows, columns = self.orientations[:, :3], self.orientations[:, 3:]
        lengths = np.stack([np.linalg.norm(rows, axis=1), np.linalg.norm(columns, axis=1)])
        if (abs(lengths - 1) > _SQUARE).any() or (abs((rows * columns).sum(1)) > _SQUARE).any():
            return "an orientation whose directions are not perpendicular unit vectors"
        return None

    def mixed(self) -> str | None:
        """Why these slices are of no one stack: damaged geometry, several sizes, spacings or orientations."""
        return self._invalid() or self._unlike()

    def _unlike(self) -> str | None:
        if len(np.unique(self.sizes, axis=0)) > 1:
            sizes = sorted({f"{r} x {c}" for r, c in self.sizes.tolist()})
            return f"slices of different sizes ({', '.join(sizes)})"
        if (self.spacings != self.spacings[0]).any():  # highdicom takes no tolerance here
            return "slices of different pixel spacing"
        turned = abs(self.orientations - np.median(self.orientations, axis=0))
        reach = self.sizes[0].max() * self.spacings[0].max()
        off = turned.max(1) * reach > _OFF_PIXELS * self.spacings.min()
        if off.any():
            return f"{int(off.sum())} of {len(off)} slices in another orientation (a localizer, or several stacks)"
        return None

    def _stacked(self) -> str | None:
        count = len(self.positions)
        if count < 2:
            return None
        row, column = self.orientations[0, :3], self.orientations[0, 3:]
        normal = np.cross(row, column)
        depth = self.positions @ normal
        order = np.argsort(depth)
        steps = np.diff(depth[order])
        usual = float(np.median(steps))
        twice = int((steps < max(1e-3, _REGULAR * usual)).sum())
        if twice:
            return f"{twice} of {count} positions occupied twice (time points, echoes or copies of files)"
        across = self.positions[order] - self.positions[order][0] - np.outer(depth[order] - depth[order][0], normal)
        sideways = np.linalg.norm(across, axis=1)
        if sideways.max() > _OFF_PIXELS * self.spacings.min():
            return _tilt(across, depth[order])
        return _gap(steps, usual, depth[order], self.spacings.min())


def _tilt(across: NDArray[np.float64], depth: NDArray[np.float64]) -> str:
    """Sideways steps in proportion to depth are a tilted gantry; others are patient or table motion."""
    height = depth - depth[0]
    slope = (across * height[:, None]).sum(0) / (height**2).sum()
    rest = np.linalg.norm(across - np.outer(height, slope), axis=1).max()
    if rest > 0.1 * np.linalg.norm(across, axis=1).max():
        return f"slices shifted sideways by up to {np.linalg.norm(across, axis=1).max():.2f} mm"
    degrees = float(np.degrees(np.arctan(np.linalg.norm(slope))))
    return f"slices stacked {degrees:.1f} degrees off their normal (a tilted gantry)"


def _gap(steps: NDArray[np.float64], usual: float, depth: NDArray[np.float64], pixel: float) -> str | None:
    wide = int(np.argmax(steps))
    missing = round(float(steps[wide]) / usual) - 1
    if missing >= 1 and abs(steps[wide] / usual - missing - 1) < 0.1:
        return (
            f"{missing} slice(s) missing after slice {wide + 1} of {len(depth)}: "
            f"{steps[wide]:.2f} mm where {usual:.2f} mm is usual"
        )
    mean = (depth[-1] - depth[0]) / len(steps)
    drift = abs(depth - depth[0] - mean * np.arange(len(depth))).max()
    if (abs(steps - mean) > _REGULAR * mean).any() or drift > max(_OFF_PIXELS * mean, _OFF_PIXELS * pixel):
        return f"distances between slices from {steps.min():.2f} to {steps.max():.2f} mm"
    return None
