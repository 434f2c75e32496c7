"""Decoding in a child process, for decoders that a damaged file can abort or stall."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pellucid.core.errors import UnreadableImage
from pellucid.io.child import START_SECONDS, VALUES_PER_SECOND, ask

# Damaged streams: gdcm 3.2.6 ends the process, CharLS 2.4 may take half a minute for 100 x 100 pixels.
APART = frozenset({"gdcm", "pyjpegls"})
_FILE_SECONDS = 0.5


def decode_apart(files: Sequence[tuple[Path, Dataset, str]]) -> None:
    """Replace the compressed pixels of data sets by those a child process decodes, all by one child.

    Args:
        files: path, data set and decoder of each.

    Raises:
        UnreadableImage: the child ended or was stopped before it had decoded them all.
    """
    values = sum(int(d.Rows) * int(d.Columns) * int(d.get("NumberOfFrames") or 1) for _, d, _ in files)
    seconds = START_SECONDS + _FILE_SECONDS * len(files) + values / VALUES_PER_SECOND
    request = [[str(path.resolve()), decoder] for path, _, decoder in files]
    blocks = ask("decodechild.py", request, seconds)
    for number, (_, dataset, _) in enumerate(files, 1):
        if len(blocks) < number:
            name = dataset.file_meta.TransferSyntaxUID.name
            which = "" if len(files) == 1 else f" in file {number} of {len(files)}"
            raise UnreadableImage(
                f"expected pixels that decode as {name}, got damaged or incomplete data{which}",
                "export the image again, or uncompressed",
            )
        _replace(dataset, *blocks[number - 1])


def _replace(dataset: Dataset, header: dict[str, Any], pixels: bytes) -> None:
    dataset.PixelData = pixels
    dataset["PixelData"].is_undefined_length = False
    dataset.PhotometricInterpretation = header["photometric"]
    if header["planar"] is not None:
        dataset.PlanarConfiguration = header["planar"]
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
