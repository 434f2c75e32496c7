"""Decoding in a child process, for decoders that a damaged file can abort or stall."""

import json
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pellucid.core.errors import UnreadableImage

# Damaged streams: gdcm 3.2.6 ends the process, CharLS 2.4 may take half a minute for 100 x 100 pixels.
APART = frozenset({"gdcm", "pyjpegls"})
_CHILD = Path(__file__).with_name("decodechild.py")
_START_SECONDS, _FILE_SECONDS, _VALUES_PER_SECOND = 20.0, 0.5, 1e6


def decode_apart(files: Sequence[tuple[Path, Dataset, str]]) -> None:
    """Replace the compressed pixels of data sets by those a child process decodes, all by one child.

    Args:
        files: path, data set and decoder of each.

    Raises:
        UnreadableImage: the child ended or was stopped before it had decoded them all.
    """
    values = sum(int(d.Rows) * int(d.Columns) * int(d.get("NumberOfFrames") or 1) for _, d, _ in files)
    seconds = _START_SECONDS + _FILE_SECONDS * len(files) + values / _VALUES_PER_SECOND
    request = json.dumps([[str(path.resolve()), decoder] for path, _, decoder in files])
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_CHILD)],
            input=request.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders quote header values
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnreadableImage(
            f"expected pixels that decode within {seconds:.0f} s, got some that do not",
            "export the image again, or uncompressed",
        ) from None
    at, content = 0, done.stdout
    for number, (_, dataset, _) in enumerate(files, 1):
        header, pixels = _next(content, at)
        if pixels is None:
            name = dataset.file_meta.TransferSyntaxUID.name
            which = "" if len(files) == 1 else f" in file {number} of {len(files)}"
            raise UnreadableImage(
                f"expected pixels that decode as {name}, got damaged or incomplete data{which}",
                "export the image again, or uncompressed",
            )
        at = pixels.stop
        _replace(dataset, header, content[pixels])


def _next(content: bytes, at: int) -> tuple[dict[str, Any], slice | None]:
    """The header at a place in the child's answer, and where its pixels are; None where the answer ends before."""
    if len(content) < at + 4:
        return {}, None
    start = at + 4 + struct.unpack_from("<I", content, at)[0]
    if len(content) < start:
        return {}, None
    header: dict[str, Any] = json.loads(content[at + 4 : start])
    stop = start + int(header["bytes"])
    return header, slice(start, stop) if len(content) >= stop else None


def _replace(dataset: Dataset, header: dict[str, Any], pixels: bytes) -> None:
    dataset.PixelData = pixels
    dataset["PixelData"].is_undefined_length = False
    dataset.PhotometricInterpretation = header["photometric"]
    if header["planar"] is not None:
        dataset.PlanarConfiguration = header["planar"]
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
