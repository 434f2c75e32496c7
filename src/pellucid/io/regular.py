"""Slices that form no regular volume, brought onto one: only when asked for, and never without saying so."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pellucid.core.grid import Grid, as_affine
from pellucid.core.image import Image, Modality
from pellucid.io.guard import check_values
from pellucid.io.planes import Planes
from pellucid.io.volume import read_slices

MAX_MISSING = 2  # slices in a row that are filled; more would be invented anatomy
MAX_TILT = 35.0  # degrees; gantries reach 30
_WHOLE = 0.1  # of a step that a distance may differ from a whole number of steps
_OFF_PIXELS = 0.25  # from the straight line of a tilted stack
_FLAT = 1e-3  # mm


@dataclass(frozen=True, eq=False)
class Plan:
    """Where each slice of a stack goes on a regular grid.

    Args:
        order: of the slices along their normal.
        places: of each ordered slice, in steps from the first; numbers left out are slices to fill.
        shifts: "slice 2", of each ordered slice down the rows and along the columns, in pixels from the first.
        step: of the grid in mm.
        words: what is done, for everybody who sees the result.
    """

    order: NDArray[np.int64]
    places: NDArray[np.int64]
    shifts: NDArray[np.float64]
    step: float
    words: str


def plan_for(planes: Planes) -> Plan | None:
    """How to bring slices onto a regular grid; None where they are on one already, or where it would be a guess.

    A tilted gantry is one shear; a gap is at most ``MAX_MISSING`` slices in a row between whole steps. Copies, mixed
    sizes or orientations, uneven distances and slices moved aside stay refused.
    """
    problem = planes.problem()
    if problem is None or planes.mixed() is not None:
        return None
    row, column = planes.orientations[0, :3], planes.orientations[0, 3:]
    normal = np.cross(row, column)
    order = np.argsort(planes.positions @ normal)
    offset = planes.positions[order] - planes.positions[order[0]]
    depth = offset @ normal
    step = float(np.median(np.diff(depth)))
    aside = offset - np.outer(depth, normal)
    slope = (aside * depth[:, None]).sum(0) / (depth**2).sum()
    degrees = float(np.degrees(np.arctan(np.linalg.norm(slope))))
    bent = np.linalg.norm(aside - np.outer(depth, slope), axis=1).max()
    if step <= _FLAT or degrees > MAX_TILT or bent > _OFF_PIXELS * planes.spacings.min():
        return None
    places = np.round(depth / step).astype(np.int64)
    gaps = np.diff(places)
    if (abs(np.diff(depth) / step - gaps) > _WHOLE).any() or gaps.min() < 1 or gaps.max() > MAX_MISSING + 1:
        return None
    step = float(depth[-1] / places[-1])
    if abs(depth - places * step).max() > _OFF_PIXELS * step:
        return None
    tilted = np.linalg.norm(aside, axis=1).max() > _OFF_PIXELS * planes.spacings.min()
    shifts = np.stack([aside @ column, aside @ row], 1) / planes.spacings[0] * tilted
    return Plan(order, places, shifts, step, _words(degrees if tilted else 0.0, int((gaps - 1).sum()), len(places)))


def _words(degrees: float, filled: int, count: int) -> str:
    said = [f"gantry tilt of {degrees:.1f} degrees removed by shifting slices (linear)"] if degrees else []
    said += [f"{filled} of {count + filled} slices filled from their neighbors (linear), never measured"] * bool(filled)
    return "; ".join(said)


def read_resampled(datasets: Sequence[Dataset], plan: Plan, modality: Modality | None) -> Image:
    """Slices on the grid of a plan, each read as it is alone; beyond a shifted slice lies the image's minimum.

    Args:
        datasets: in the order that the plan was made for.
        plan: see ``plan_for``.
        modality: overrides what the headers say.

    Raises:
        UnreadableImage: the grid would be larger than an image may be.
    """
    slices = [read_slices([datasets[k]], modality) for k in plan.order]
    first, middle = slices[0], slices[len(slices) // 2]
    low, high = np.floor(plan.shifts.min(0)).astype(int), np.ceil(plan.shifts.max(0)).astype(int)
    size = tuple(int(n) for n in np.asarray(first.grid.shape) + high - low)
    shape = (int(plan.places[-1]) + 1, *size)
    check_values((len(first.data), *shape), "a resampled series")
    outside = min(float(one.data.min()) for one in slices)
    data = torch.full((len(first.data), *shape), outside)
    for one, place, shift in zip(slices, plan.places, plan.shifts, strict=True):
        data[:, place] = _shifted(one.data, shift - low, size, outside)
    for before, after in zip(plan.places[:-1], plan.places[1:], strict=True):
        for place in range(before + 1, after):
            weight = float((place - before) / (after - before))
            data[:, place] = data[:, before] * (1 - weight) + data[:, after] * weight
    grid = _grid(first.grid, low, shape, plan.step)
    traits = {**middle.traits, "slice_mm": round(plan.step, 6), "resampled": plan.words}
    return replace(middle, data=data.flip(1), grid=grid, traits=traits)


def _shifted(data: torch.Tensor, shift: NDArray[np.float64], size: tuple[int, ...], outside: float) -> torch.Tensor:
    """A slice moved down and to the right by pixels and parts of them, linear between four neighbors."""
    found = torch.zeros(len(data), *size)
    covered = torch.zeros(size)
    whole = np.floor(shift).astype(int)
    for down in (0, 1):
        for across in (0, 1):
            part = np.where((down, across), shift - whole, 1 - (shift - whole)).prod()
            if part > 0:
                top, left = int(whole[0]) + down, int(whole[1]) + across
                box = (slice(top, top + data.shape[1]), slice(left, left + data.shape[2]))
                found[(slice(None), *box)] += float(part) * data
                covered[box] += float(part)
    return found + (1 - covered) * outside


def _grid(first: Grid, low: NDArray[np.int64], shape: tuple[int, ...], step: float) -> Grid:
    """From the first slice (row, column, normal, origin) to (slice, row, column), right-handed as highdicom has it."""
    flat = first.matrix
    matrix = np.eye(4)
    down, across = (flat[:3, axis] / np.linalg.norm(flat[:3, axis]) for axis in (0, 1))
    matrix[:3, 0] = np.cross(down, across) * step  # against the normal that slices were ordered along
    matrix[:3, 1:3] = flat[:3, :2]
    matrix[:3, 3] = flat[:3, 3] + flat[:3, :2] @ low - matrix[:3, 0] * (shape[0] - 1)
    return Grid(shape, as_affine(matrix), first.calibration, first.frame_of_reference)
