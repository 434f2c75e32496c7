"""A DICOM object whose pixels are one MPEG stream: its frames go through the door of videos."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.filereader import read_file_meta_info
from pydicom.misc import is_dicom
from pydicom.uid import MPEGTransferSyntaxes

from pellucid.core.errors import BadOption, UnreadableImage
from pellucid.core.image import Image, Modality
from pellucid.io.dicomfacts import modality_of, plane_grid, traits_of
from pellucid.io.dicomfile import DAMAGED, check_image, frame_count, open_header
from pellucid.io.guard import reading
from pellucid.io.video import read_frames


def is_dicom_video(path: Path) -> bool:
    """Whether the pixels of a DICOM file are an MPEG stream (PS3.5 8.2.5 to 8.2.8)."""
    with reading(*DAMAGED):
        return is_dicom(path) and read_file_meta_info(path).get("TransferSyntaxUID") in MPEGTransferSyntaxes


def read_dicom_video(path: Path, modality: Modality | None = None, index: int | None = None) -> Image:
    """One frame of a DICOM video, as RGB in [0, 1], with what its header says of place and lengths.

    Args:
        path: of the file.
        modality: overrides what the header says.
        index: of the frame, from 0.

    Raises:
        UnreadableImage: damaged, or no video in it.
        BadOption: several frames and no index, or a frame that the video does not have.
        MissingExtra: OpenCV is not installed.
    """
    with reading("a complete DICOM video", "export it again from the archive"):
        header = open_header(path)
        check_image(header)
        count = frame_count(header)
        if index is None and count > 1:
            raise BadOption(f"expected one frame, got a video of {count} frames", f"choose one: index 0 to {count - 1}")
        stream = dcmread(path, force=True).get("PixelData")
        if not stream:
            raise UnreadableImage("expected a DICOM video, got one whose pixels are missing", "export it again")
        with TemporaryDirectory() as private:
            kept = Path(private) / "stream"
            kept.write_bytes(next(generate_frames(stream, number_of_frames=1)))
            frame = read_frames(kept, [index or 0])[0]
        shape = (int(frame.grid.shape[0]), int(frame.grid.shape[1]))
        if shape != (int(header.Rows), int(header.Columns)):
            raise UnreadableImage(
                f"expected frames of {int(header.Rows)} x {int(header.Columns)}, got {shape[0]} x {shape[1]}",
                "export it again from the archive",
            )
        told = {key: value for key, value in frame.traits.items() if key != "format"}
        traits = {**traits_of(header), **told, "lossy": "yes"}
        return replace(frame, grid=plane_grid(header, shape), modality=modality or modality_of(header), traits=traits)
