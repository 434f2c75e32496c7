"""Files that are one image by themselves: which reader opens which kind."""

from pathlib import Path

from pellucid.core.image import Image, Modality
from pellucid.io.formats import Format
from pellucid.io.itk import read_itk
from pellucid.io.nifti import read_nifti
from pellucid.io.picture import read_picture
from pellucid.io.video import read_video

PLAIN_ENDINGS = (
    ".png",
    ".jpg",
    ".jpeg",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".nii",
    ".nii.gz",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
)


def read_plain(path: Path, kind: Format, modality: Modality | None = None, index: int | None = None) -> Image:
    """An image of any kind but DICOM, whose series are of many files.

    Args:
        path: of the file.
        kind: as ``image_format`` found it.
        modality: what made the image.
        index: page, frame or volume, from 0, of a file with several.

    Raises:
        PellucidError: as the reader of its kind.
    """
    if kind is Format.NIFTI:
        return read_nifti(path, modality, index)
    if kind in (Format.NRRD, Format.METAIMAGE):
        return read_itk(path, kind, modality, index)
    if kind is Format.VIDEO:
        return read_video(path, modality, index)
    return read_picture(path, kind, modality, index)
