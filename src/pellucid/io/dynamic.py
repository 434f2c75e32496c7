"""A DICOM series that holds one volume several times: over time, echoes, b-values or phases of a cycle."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

from pellucid.core.errors import BadOption
from pellucid.core.image import Image, Modality
from pellucid.io.dicom import Survey, read_series
from pellucid.io.dicomfacts import find, numbers
from pellucid.io.dicomfile import DAMAGED
from pellucid.io.guard import reading

# In this order: the first that parts the slices into equal volumes is the axis (PS3.3 C.7.6.16.2, C.8.3.1, C.8.13.5.9).
_AXES = (
    ("TemporalPositionIdentifier", "temporal position", ""),
    ("TriggerTime", "trigger time", "ms"),
    ("EchoTime", "echo time", "ms"),
    ("DiffusionBValue", "b-value", "s/mm2"),
    ("FrameReferenceTime", "frame time", "ms"),
)
_CLOCK = ("AcquisitionTime", "acquisition time", "s")
_HALF_DAY = 12 * 3600.0
_PLACE_MM = 0.01
_LISTED = 8


@dataclass(frozen=True)
class Phases:
    """The volumes of a dynamic series, in the order of their axis.

    Args:
        axis: what changes from one to the next, in words.
        unit: of the values; a clock counts seconds from the first.
        values: one of each volume, rising.
        groups: which slices each volume is made of.
    """

    axis: str
    unit: str
    values: tuple[float, ...]
    groups: tuple[tuple[int, ...], ...]

    def chosen(self, index: int | None) -> int:
        """The number of the volume that was asked for.

        Raises:
            BadOption: none was asked for, or one that does not exist.
        """
        count = len(self.groups)
        shown = ", ".join(f"{v:g}" for v in self.values[:_LISTED]) + (", ..." if count > _LISTED else "")
        if index is None:
            said = f"{shown} {self.unit}".strip()
            raise BadOption(
                f"expected one volume, got {count} along the axis {self.axis} ({said})",
                f"choose one: --index 0 to {count - 1}, or several: START:STOP:STEP",
            )
        if not 0 <= index < count:
            raise BadOption(f"expected an index from 0 to {count - 1}, got {index}", "choose a volume that exists")
        return index


def phases_of(headers: Sequence[Dataset]) -> Phases | None:
    """How a series parts into volumes, where every place holds as many slices as there are volumes; else None.

    Only what the headers say: slices are never dealt out by their order or their file names.
    """
    places = [numbers(h.get("ImagePositionPatient"), 3) for h in headers]
    if any(place is None for place in places):
        return None
    keys = [tuple(np.round(np.asarray(place) / _PLACE_MM).astype(int)) for place in places]
    slices = len(set(keys))
    volumes, rest = divmod(len(headers), slices)
    if rest or volumes < 2 or slices < 2:
        return None
    for keyword, axis, unit in _AXES:
        values = [numbers(find(h, keyword), 1) for h in headers]
        parted = None if None in values else _parted([v[0] for v in values if v is not None], keys, volumes)
        if parted is not None:
            return Phases(axis, unit, *parted)
    clock = [_seconds(h) for h in headers]
    known = [second for second in clock if second is not None]
    if known and max(known) - min(known) > _HALF_DAY:  # past midnight without a date, or of two examinations
        return None
    parted = _in_turn(known, keys, volumes) if len(known) == len(clock) else None
    return None if parted is None else Phases(_CLOCK[1], _CLOCK[2], *parted)


def read_phase(
    found: Survey, modality: Modality | None = None, index: int | None = None, resample: bool = False
) -> tuple[Image, tuple[Path, ...]]:
    """``read_series``, and of a dynamic series the one volume that the index says.

    Args:
        found: the files of one series.
        modality: overrides what the headers say.
        index: number of the volume along its axis, from 0; or see ``read_series``.
        resample: see ``read_series``.

    Returns:
        The image, with the axis and its value among the traits, and the files it was made of.

    Raises:
        BadOption: a dynamic series and no index, or one that does not exist.
        PellucidError: as ``read_series``.
    """
    one = len(found.series) == 1 and all(m.placed and m.frames == 1 for m in found.members)
    with reading(*DAMAGED):
        phases = phases_of([m.header for m in found.members]) if one and len(found.members) > 2 else None
    if phases is None:
        return read_series(found, modality, index, resample), tuple(m.path for m in found.members)
    number = phases.chosen(index)
    part = replace(found, members=tuple(found.members[i] for i in phases.groups[number]))
    image = read_series(part, modality, None, resample)
    said: dict[str, str | float] = {"axis": phases.axis, "axis_value": phases.values[number], "axis_unit": phases.unit}
    return replace(image, traits={**image.traits, **said, "volumes": float(len(phases.groups))}), tuple(
        m.path for m in part.members
    )


def _parted(
    values: Sequence[float], keys: Sequence[tuple[int, ...]], volumes: int
) -> tuple[tuple[float, ...], tuple[tuple[int, ...], ...]] | None:
    """Slices of one value together, where each such volume has every place once."""
    distinct = sorted(set(values))
    groups = tuple(tuple(i for i, v in enumerate(values) if v == one) for one in distinct)
    places = set(keys)
    whole = all(len(g) == len(places) and {keys[i] for i in g} == places for g in groups)
    return (tuple(distinct), groups) if len(distinct) == volumes and whole else None


def _in_turn(
    seconds: Sequence[float], keys: Sequence[tuple[int, ...]], volumes: int
) -> tuple[tuple[float, ...], tuple[tuple[int, ...], ...]] | None:
    """The first of every place, the second of every place ..., where no volume begins before the last has ended."""
    order = sorted(range(len(seconds)), key=lambda i: seconds[i])
    size = len(seconds) // volumes
    groups = tuple(tuple(order[k * size : (k + 1) * size]) for k in range(volumes))
    starts = [min(seconds[i] for i in g) for g in groups]
    ends = [max(seconds[i] for i in g) for g in groups]
    apart = all(end < start for end, start in zip(ends, starts[1:], strict=False))
    if not apart or any(len({keys[i] for i in g}) != len(set(keys)) for g in groups):
        return None
    return tuple(round(s - starts[0], 3) for s in starts), groups


def _seconds(header: Dataset) -> float | None:
    """When a slice was taken, in seconds: of its day too where it is said, since a scan may run past midnight."""
    day, clock = DA(str(header.get("AcquisitionDate", ""))), TM(str(header.get(_CLOCK[0], "")))
    if clock is None:
        return None
    return (day.toordinal() * 86400.0 if day else 0.0) + timedelta(
        hours=clock.hour, minutes=clock.minute, seconds=clock.second, microseconds=clock.microsecond
    ).total_seconds()
