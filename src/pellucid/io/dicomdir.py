"""The index of a disk (DICOMDIR): the files it names, and none outside its own folder."""

from pathlib import Path
from typing import Any

from pellucid.core.errors import UnreadableImage
from pellucid.io.dicomfile import is_directory, open_header
from pellucid.io.formats import Format, find_format
from pellucid.io.guard import reading

_MAX_BYTES = 2**26
_EXPECTED = ("a complete index of a disk (DICOMDIR)", "give the folder of the images instead")


def is_dicomdir(path: Path) -> bool:
    """Whether a file is the index of a disk."""
    if not path.is_file() or find_format(path) is not Format.DICOM or path.stat().st_size > _MAX_BYTES:
        return False
    with reading(*_EXPECTED):
        return is_directory(open_header(path))


def listed_in(path: Path) -> list[Path]:
    """The files that an index names, in its order.

    Records are taken one after the other: their links to each other, which pydicom 3.0.2's FileSet follows, may form a
    ring that it never leaves.

    Raises:
        UnreadableImage: damaged, names a file outside its folder (by dots, or through a link), or one that is missing.
    """
    root = path.parent.resolve()
    with reading(*_EXPECTED):
        records = open_header(path).get("DirectoryRecordSequence") or ()
        named = [record.ReferencedFileID for record in records if record.get("ReferencedFileID")]
        found = [_place(root, file_id) for file_id in named]
    missing = sum(file is None for file in found)
    if missing:
        raise UnreadableImage(
            f"expected the {len(named)} files that the index of the disk names, {missing} are missing",
            "copy the disk again, or give the folder of the images",
        )
    return list(dict.fromkeys(file for file in found if file is not None))


def _place(root: Path, file_id: Any) -> Path | None:
    """A file by its components (PS3.10 8.2), also in lower case as copies of disks are; None where it is missing."""
    parts = [file_id] if isinstance(file_id, str) else [str(part) for part in file_id]
    if any(part in ("", ".", "..") or set(part) & set("/\\:\0") for part in parts):
        raise _elsewhere()
    for candidate in (root.joinpath(*parts), root.joinpath(*(part.lower() for part in parts))):
        if candidate.is_file():
            if not candidate.resolve().is_relative_to(root):
                raise _elsewhere()
            return candidate
    return None


def _elsewhere() -> UnreadableImage:
    return UnreadableImage("expected files in the folder of the index of the disk, it names one outside", _EXPECTED[1])
