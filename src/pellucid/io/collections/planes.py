"""Which slice of a volume a DICOM file is: by its place in the patient, and never by its name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pellucid.core.errors import BadRegion
from pellucid.core.grid import Grid
from pellucid.io.dicomfile import DAMAGED, open_header
from pellucid.io.formats import Format, find_format
from pellucid.io.guard import reading

_TOLERANCE = 0.05  # of a voxel


@dataclass(frozen=True)
class Planes:
    """The slices of a series.

    Args:
        order: slice of the volume, in the order of the files that were given.
        by_uid: slice by SOPInstanceUID; never shown.
        by_height: slice by the third coordinate of its position, in mm.
    """

    order: tuple[int, ...]
    by_uid: Mapping[str, int]
    by_height: Mapping[float, int]

    @classmethod
    def of(cls, files: Sequence[Path], grid: Grid) -> "Planes":
        """Where the files lie in a volume.

        Args:
            files: DICOM files; others among them are passed over.
            grid: of the volume that was read from them.

        Raises:
            BadRegion: the volume's planes are not those of the files (it was resampled, or it is another series).
        """
        order, by_uid, by_height = [], {}, {}
        for file in files:
            if find_format(file) is not Format.DICOM:
                continue
            with reading(*DAMAGED):
                header = open_header(file)
                place = np.asarray([float(v) for v in header.ImagePositionPatient])
                uid, size = str(header.SOPInstanceUID), (int(header.Rows), int(header.Columns))
            index = grid.index(place)[0]
            whole = np.round(index).astype(int)
            inside = 0 <= whole[0] < grid.shape[0] and not whole[1:].any() and size == grid.shape[1:]
            if not inside or np.abs(index - whole).max() > _TOLERANCE:
                raise BadRegion(
                    "expected contours of the planes that were scanned, got a volume of other planes",
                    "read the series as it was scanned, without resampling",
                )
            order.append(int(whole[0]))
            by_uid[uid] = by_height[float(place[2])] = int(whole[0])
        return cls(tuple(order), by_uid, by_height)

    def find(self, uid: str, height: float | None, step: float) -> int | None:
        """The slice that a contour was drawn on; None: the series has none there.

        Args:
            uid: SOPInstanceUID that the contour names.
            height: its third coordinate in mm, where the instance is not known.
            step: mm between slices.
        """
        if uid in self.by_uid or height is None or not self.by_height:
            return self.by_uid.get(uid)
        nearest = min(self.by_height, key=lambda known: abs(known - height))
        return self.by_height[nearest] if abs(nearest - height) < step / 2 else None
