"""What is asked for in DICOM, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pellucid.io.objects.maps import Encoding
from pellucid.io.objects.proof import RoundTrip

FOLDER = "dicom"


@dataclass(frozen=True)
class Export:
    """Which DICOM objects are asked for beside the usual ones (map, report, capture, presentation states).

    Args:
        segmentation: also the region above the null.
        encoding: of the map's values.
        replaces: an earlier report, or a folder of them, that the new ones name as their predecessors; None: none.
    """

    segmentation: bool = False
    encoding: Encoding = Encoding.FLOAT32
    replaces: Path | None = None


@dataclass(frozen=True)
class Published:
    """One object in the case's folder.

    Args:
        kind: ``pm``, ``seg``, ``sc``, ``gsps``, ``pcps`` or ``sr``.
        of: the explanation, by its method and target.
        path: of the file.
        digest: SHA-256 of the file.
        uid: SOPInstanceUID, for the audit record only.
        trip: what came back when it was read; None for kinds without voxels in the patient.
    """

    kind: str
    of: str
    path: Path
    digest: str
    uid: str = field(repr=False)
    trip: RoundTrip | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON types, without the identifiers of the study."""
        trip = self.trip.plain() if self.trip is not None else None
        return {"kind": self.kind, "of": self.of, "file": str(self.path), "sha256": self.digest, "round_trip": trip}


@dataclass(frozen=True)
class Publication:
    """The objects of one case, and those that could not be made.

    Args:
        objects: in the folder.
        skipped: kind, explanation and reason of the others.
    """

    objects: tuple[Published, ...] = ()
    skipped: tuple[tuple[str, str, str], ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON types."""
        names = ("kind", "of", "reason")
        return {
            "objects": [one.plain() for one in self.objects],
            "skipped": [dict(zip(names, each, strict=True)) for each in self.skipped],
        }

    @property
    def files(self) -> Mapping[str, Path]:
        """Paths by kind and explanation."""
        return {f"{FOLDER} {one.kind} {one.of}": one.path for one in self.objects}
