"""``--dicom`` and what belongs to it, in each command that explains cases."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli import face
from pellucid.core.errors import BadOption
from pellucid.io.objects.maps import Encoding
from pellucid.workbench.exporting import Export, Publication
from pellucid.workbench.reissuing import check_replaceable

Dicom = Annotated[
    bool, typer.Option("--dicom", help="Also write DICOM objects into the study of the source (map, report, overlays).")
]
SegmentRegion = Annotated[
    bool, typer.Option("--segmentation", help="With --dicom: the region above the null as a Segmentation, too.")
]
Stored = Annotated[Encoding, typer.Option("--dicom-encoding", help="With --dicom: how the values of a map are stored.")]
Replaces = Annotated[
    Path | None,
    typer.Option("--replaces", help="With --dicom: an earlier report, or a folder of them, that the new ones replace."),
]


def export_of(dicom: bool, segmentation: bool, encoding: Encoding, replaces: Path | None) -> Export | None:
    """What was asked for; None: no DICOM objects.

    Args:
        dicom: ``--dicom``.
        segmentation: ``--segmentation``.
        encoding: ``--dicom-encoding``.
        replaces: ``--replaces``.

    Raises:
        BadOption: an option of ``--dicom`` without it, or no report to be replaced.
    """
    if not dicom and (segmentation or encoding is not Encoding.FLOAT32 or replaces is not None):
        raise BadOption(
            "--segmentation, --dicom-encoding and --replaces are about DICOM objects, and none are asked for",
            "add --dicom",
        )
    if replaces is not None:
        check_replaceable(replaces)
    return Export(segmentation, encoding, replaces) if dicom else None


def show_published(publication: Publication) -> None:
    """What was written and what was not, for a person."""
    kinds = list(dict.fromkeys(one.kind for one in publication.objects))
    face.out.print(f"{len(publication.objects)} DICOM objects ({', '.join(kinds)})", highlight=False)
    for one in publication.objects:
        if one.trip is not None:
            face.out.print(f"{one.kind} of {one.of}: {one.trip.words}", highlight=False, soft_wrap=True)
    for kind, of, reason in publication.skipped:
        face.out.print(f"no {kind} of {of}: {reason}", highlight=False, soft_wrap=True)
