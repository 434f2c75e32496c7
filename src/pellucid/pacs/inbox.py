"""What an archive delivers, checked before a byte of it reaches the disk."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Final, final

from pydicom import dcmread
from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pellucid.core.atomic import make_folder, write_bytes
from pellucid.core.errors import UnwritableOutput
from pellucid.pacs.settings import Limits
from pellucid.pacs.uids import is_uid

MIB = 2**20
SUCCESS: Final = 0x0000
DUPLICATE, FULL, MISMATCH, UNCLEAR = 0x0111, 0xA700, 0xA900, 0xC000
_WHAT = {
    DUPLICATE: "another object under a UID that was already received",
    FULL: "beyond the limits on size and number",
    MISMATCH: "invalid or unexpected UIDs",
    UNCLEAR: "damaged, or of a coding that is not taken",
}
_META = 0x0002
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


@final
class Inbox:
    """Takes objects of the series that were asked for, and of no other, into one folder for each.

    A file is named after the hash of its content: nothing of the patient, and the same object twice is one file. The
    preamble is zeroed, since an executable can hide there. A UID that is not valid never becomes part of a path.

    Args:
        folders: where each series goes, by its UID.
        limits: of what is taken.
    """

    def __init__(self, folders: Mapping[str, Path], limits: Limits) -> None:
        self._folders = dict(folders)
        self._limits = limits
        self._lock = Lock()
        self._known: dict[str, str] | None = None
        self._bytes = 0
        self.refused: dict[str, int] = {}
        self.taken: set[str] = set()

    def take(self, content: bytes) -> int:
        """Keep one object, as a file of PS3.10.

        Returns:
            The DIMSE status to answer with: 0 where it was kept, or was there already.
        """
        with self._lock:
            status = self._take(content)
            if status != SUCCESS:
                self.refused[_WHAT[status]] = self.refused.get(_WHAT[status], 0) + 1
        return status

    def refuse(self, status: int) -> int:
        """Count an object that was not even read."""
        with self._lock:
            self.refused[_WHAT[status]] = self.refused.get(_WHAT[status], 0) + 1
        return status

    @property
    def refusals(self) -> int:
        """How many objects were refused."""
        return sum(self.refused.values())

    def _take(self, content: bytes) -> int:
        limits = self._limits
        if len(content) > limits.object_mib * MIB:
            return FULL
        header = read_header(content)
        if header is None:
            return UNCLEAR
        _, sop, _, series = header.uids
        if not all(is_uid(uid) for uid in header.uids) or header.meta_sop != sop or series not in self._folders:
            return MISMATCH
        if self._already().setdefault(sop, header.name) != header.name:
            return DUPLICATE
        if sop not in self.taken:
            if self._bytes + len(content) > limits.fetch_mib * MIB or len(self.taken) >= limits.objects:
                return FULL
            self._bytes += len(content)
            self.taken.add(sop)
        return self._write(self._folders[series] / header.name, content)

    def _write(self, path: Path, content: bytes) -> int:
        if path.exists():
            return SUCCESS
        try:
            make_folder(path.parent)
            write_bytes(path, bytes(128) + content[128:])
        except UnwritableOutput:
            return FULL
        return SUCCESS

    def _already(self) -> dict[str, str]:
        """What an earlier fetch left in these folders, by SOP instance UID."""
        if self._known is None:
            files = [path for folder in set(self._folders.values()) for path in folder.glob("*.dcm")]
            found = {path.name: read_header(path.read_bytes()) for path in files}
            self._known = {header.uids[1]: name for name, header in found.items() if header is not None}
        return self._known


@final
@dataclass(frozen=True)
class Header:
    """The identifiers of an object, and its name here.

    Args:
        uids: of class, instance, study and series.
        meta_sop: the instance UID that the file's own header says.
        name: of its file, from the hash of the data set.
    """

    uids: tuple[str, str, str, str]
    meta_sop: str
    name: str


def read_header(content: bytes) -> Header | None:
    """What an object says of itself; None where it is damaged or deflated (it may inflate to anything)."""
    if content[128:132] != b"DICM":
        return None
    stream = BytesIO(content)
    try:
        stream.seek(132)  # PS3.10 7.1: the header is in explicit VR little endian, whatever follows
        meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != _META)
        if meta.get("TransferSyntaxUID") in (None, DeflatedExplicitVRLittleEndian):
            return None
        name = f"{hashlib.sha256(content[stream.tell() :]).hexdigest()[:32]}.dcm"
        found = dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=list(_NEEDED))
        sop_class, sop, study, series = (str(found.get(word, "")) for word in _NEEDED)
        return Header((sop_class, sop, study, series), str(meta.get("MediaStorageSOPInstanceUID", "")), name)
    except Exception:  # whatever a hostile object makes pydicom raise: the caller refuses it, and quotes nothing
        return None
