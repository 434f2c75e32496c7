"""What is handed to an archive, and what came of it; identifiers are never part of what is shown."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final

from pydicom.dataset import Dataset
from pydicom.uid import UID

from pellucid.core.errors import InputError
from pellucid.pacs.uids import is_uid

State = Literal["stored", "there", "lost", "differs", "refused", "failed"]
GOOD: frozenset[State] = frozenset({"stored", "there"})
# What an archive may rightly write anew: the patient and the study as it knows them, and where the object lies.
_COERCED = frozenset({
    0x00080005, 0x00080020, 0x00080030, 0x00080050, 0x00080054, 0x00080056, 0x00080090, 0x00080201, 0x00081030,
    0x00081190, 0x00200010, 0x04000561,
})  # fmt: skip
_PATIENT, _LENGTH = 0x0010, 0x0000


@final
@dataclass(frozen=True)
class Parcel:
    """One object of ours as a file.

    Args:
        name: under which it is spoken of: ours, without anything of the patient.
        path: of the file.
        sop_class: of the object; ``sop``, ``series`` and ``study`` are its instance UIDs.
        syntax: transfer syntax; an object is sent as it is, never converted.
        digest: SHA-256 of the file.
        size: in bytes.
    """

    name: str
    path: Path = field(repr=False)
    sop_class: str = field(repr=False)
    sop: str = field(repr=False)
    series: str = field(repr=False)
    study: str = field(repr=False)
    syntax: str = field(repr=False)
    digest: str = field(repr=False)
    size: int = 0

    @property
    def kind(self) -> str:
        """The standard's name of its class."""
        return UID(self.sop_class).name


@final
@dataclass(frozen=True)
class Receipt:
    """What came of one parcel.

    Args:
        state: ``stored`` (found in the archive after it was sent), ``there`` (already before), ``lost`` (accepted and
            then not found), ``differs`` (another object stands under this UID), ``refused``, ``failed``.
        words: why, for the user.
    """

    state: State
    words: str = ""

    @property
    def good(self) -> bool:
        """Whether the archive holds the object."""
        return self.state in GOOD


def parcel(path: Path, name: str, header: Dataset) -> Parcel:
    """A parcel from a file and its header; to be called where a damaged header is dealt with.

    Raises:
        InputError: no valid UIDs, or no transfer syntax.
    """
    meta = header.get("file_meta") or getattr(header, "file_meta", Dataset())
    words = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    uids = [str(header.get(word, "")) for word in words]
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if not all(is_uid(uid) for uid in (*uids, syntax)):
        raise InputError(
            f"expected an object with valid UIDs and a transfer syntax, {name} has none",
            "give objects as `pellucid explain --dicom` wrote them",
        )
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    sop_class, sop, series, study = uids
    return Parcel(name, path, sop_class, sop, series, study, syntax, digest, path.stat().st_size)


def same_content(first: Dataset, second: Dataset) -> bool:
    """Whether two objects say the same: pixels and every attribute, except what an archive may write anew.

    Patient and study attributes, private groups and group lengths are left out: archives coerce the former
    (PS3.4 B.4.1.3) and may drop the others.
    """
    return _content(first) == _content(second)


def _content(dataset: Dataset) -> str:
    total = hashlib.sha256()
    for piece in _pieces(dataset, top=True):
        total.update(len(piece).to_bytes(8, "big") + piece)
    return total.hexdigest()


def _pieces(dataset: Dataset, top: bool = False) -> Iterator[bytes]:
    for element in dataset:
        tag = element.tag
        if tag.is_private or tag.element == _LENGTH or (top and (tag in _COERCED or tag.group == _PATIENT)):
            continue
        yield int(tag).to_bytes(4, "big")
        if element.VR == "SQ":
            for number, item in enumerate(element.value):
                yield number.to_bytes(4, "big")
                yield from _pieces(item)
        else:
            yield _plain(element.value)


def _plain(value: Any) -> bytes:
    """A value as bytes; padding and the way that nothing is written make no difference."""
    if value is None or value in ("", b""):
        return b""
    if isinstance(value, bytes):
        return value + b"\0" * (len(value) % 2)
    if isinstance(value, str | int | float):
        return str(value).rstrip(" \0").encode("utf-8", "surrogatepass")
    try:
        return b"\\".join(_plain(each) for each in value)
    except TypeError:  # a person's name and the like are no sequences
        return str(value).encode("utf-8", "surrogatepass")
