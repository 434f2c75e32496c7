"""The size that compressed pixels declare themselves: decoders believe it, so it is compared first."""

import struct

from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

from pellucid.core.errors import UnreadableImage

_FRAME_HEADERS = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}  # ISO 10918-1 table B.1, 14495-1
_BOXES = 4096
_BARE = frozenset((0x01, *range(0xD0, 0xDA)))  # markers without a length


def check_codestreams(dataset: Dataset, frames: int) -> None:
    """Refuse frames whose codestream is of another size than the header says, before a decoder allocates for it.

    Raises:
        UnreadableImage: a frame of another size.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in JPEG2000TransferSyntaxes:
        measure = jpeg2000_size
    elif syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
        measure = jpeg_size
    else:
        return
    expected = (int(dataset.Rows), int(dataset.Columns))
    for frame in generate_frames(dataset.PixelData, number_of_frames=frames):
        found = measure(frame)
        if found is not None and found != expected:
            raise UnreadableImage(
                f"expected compressed pixels of {expected[0]} x {expected[1]} as the header says, "
                f"got {found[0]} x {found[1]}",
                "export the image again from the archive",
            )


def jpeg_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns in the frame header of a JPEG or JPEG-LS stream; None where there is none."""
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker in _FRAME_HEADERS:
            rows, columns = struct.unpack_from(">HH", stream, at + 5)
            return (rows, columns) if rows else None  # 0: given after the scan (DNL)
        step = 1 if marker == 0xFF else 2  # a fill byte
        at += step if marker == 0xFF or marker in _BARE else 2 + struct.unpack_from(">H", stream, at + 2)[0]
    return None


def jpeg2000_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns in the SIZ segment of a JPEG 2000 codestream; None where there is none near the beginning."""
    start = stream.find(b"\xff\x4f\xff\x51", 0, _BOXES)  # behind the boxes where a JP2 file was embedded
    if start < 0 or len(stream) < start + 24:
        return None
    columns, rows, left, top = struct.unpack_from(">IIII", stream, start + 8)
    return rows - top, columns - left
