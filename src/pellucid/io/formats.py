"""Which kind of image a file holds, told by its first bytes and never by its name."""

import gzip
import zlib
from enum import StrEnum
from pathlib import Path

from pellucid.core.errors import UnreadableImage
from pellucid.io.guard import check_file

_HEAD = 352  # a NIfTI-1 header with its magic, and a DICOM preamble with its own


class Format(StrEnum):
    """The kinds of image files that are read."""

    DICOM = "DICOM"
    NIFTI = "NIfTI"
    PNG = "PNG"
    JPEG = "JPEG"
    TIFF = "TIFF"
    BMP = "BMP"
    GIF = "GIF"
    NRRD = "NRRD"
    METAIMAGE = "MetaImage"
    VIDEO = "video"


_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", Format.PNG),
    (b"\xff\xd8\xff", Format.JPEG),
    (b"II*\0", Format.TIFF),
    (b"MM\0*", Format.TIFF),
    (b"II+\0", Format.TIFF),
    (b"MM\0+", Format.TIFF),
    (b"GIF87a", Format.GIF),
    (b"GIF89a", Format.GIF),
    (b"NRRD000", Format.NRRD),
    (b"ObjectType", Format.METAIMAGE),
    (b"NDims", Format.METAIMAGE),
    (b"\x1a\x45\xdf\xa3", Format.VIDEO),  # Matroska and WebM
    (b"\0\0\x01\xba", Format.VIDEO),  # MPEG program stream
)
_BMP_HEADERS = tuple(bytes([size]) for size in (12, 40, 52, 56, 64, 108, 124))  # two letters alone say little
_KNOWN_OTHERS = (
    (b"RIFF", "a WebP or a sound"),
    (b"#EXTM3U", "a playlist"),
    (b"ffconcat", "a playlist"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"%PDF", "a PDF"),
    (b"\x93NUMPY", "a NumPy array"),
)
_EXPECTED = "expected a DICOM, NIfTI, NRRD, MetaImage, PNG, JPEG, BMP, GIF or TIFF image"


def find_format(path: Path) -> Format | None:
    """The kind of image in a file, or None where it holds none that is read here."""
    return _recognize(_first_bytes(path))


def image_format(path: Path) -> Format:
    """The kind of image in a file.

    Raises:
        UnreadableImage: there is no image in it; the message says what there is.
    """
    check_file(path)
    head = _first_bytes(path)
    found = _recognize(head)
    if found is None:
        raise UnreadableImage(
            f"{_EXPECTED}, got {_describe(head)}", "give the image itself, or convert it to one of these"
        )
    return found


def _first_bytes(path: Path) -> bytes:
    """The beginning of the content, inflated where it is gzip."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path, "rb") as stream:
                return b"\x1f\x8b" + stream.read(_HEAD)
    except (OSError, EOFError, zlib.error):  # gzip.BadGzipFile is an OSError: a damaged archive holds no image
        return b""
    return head


def _recognize(head: bytes) -> Format | None:
    if head[:2] == b"\x1f\x8b":
        return Format.NIFTI if _is_nifti(head[2:]) else None
    if head[128:132] == b"DICM":  # first: the preamble of a DICOM file may pose as a TIFF
        return Format.DICOM
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if _is_video(head):
        return Format.VIDEO
    if _is_nifti(head):
        return Format.NIFTI
    if head[:2] == b"BM" and head[6:10] == bytes(4) and head[14:15] in _BMP_HEADERS:
        return Format.BMP
    return Format.DICOM if _starts_a_dataset(head) else None


def _is_nifti(head: bytes) -> bool:
    single, pair = (b"n+1\0", b"n+2\0"), (b"ni1\0", b"ni2\0")
    return head[344:348] in single + pair or head[4:8] in single + pair


def _is_video(head: bytes) -> bool:
    """AVI, the MP4 and QuickTime family without its still pictures, and MPEG transport streams."""
    still = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis", b"hevc")
    boxes = (b"moov", b"mdat", b"wide", b"free")
    transport = len(head) > 188 and head[0] == head[188] == 0x47
    mp4 = (head[4:8] == b"ftyp" and head[8:12] not in still) or head[4:8] in boxes
    return transport or mp4 or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")


def _starts_a_dataset(head: bytes) -> bool:
    """A DICOM data set without preamble begins with group 0002 or 0008, in either byte order."""
    return len(head) > 16 and (
        (head[:2] in (b"\x02\0", b"\x08\0") and head[3] == 0) or (head[:2] in (b"\0\x02", b"\0\x08") and head[2] == 0)
    )


def _describe(head: bytes) -> str:
    if not head:
        return "a damaged archive"
    if head[:2] == b"\x1f\x8b":
        return "a gzip archive of something else"
    for signature, name in _KNOWN_OTHERS:
        if head.startswith(signature):
            return name
    text = bytes(range(32, 127)) + b"\t\r\n"
    plain = sum(byte in text for byte in head) > 0.95 * len(head)
    return "a text file" if plain else "a file of an unknown kind"
