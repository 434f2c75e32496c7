"""A DICOM file opened with care: what it declares is checked before anything is decoded."""

import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
    MediaStorageDirectoryStorage,
    ParametricMapStorage,
    VLWholeSlideMicroscopyImageStorage,
)

from pellucid.core.errors import MissingExtra, UnreadableImage
from pellucid.io.apart import APART, decode_apart
from pellucid.io.codestream import check_codestreams
from pellucid.io.guard import check_file, check_values, reading

DAMAGED = ("a complete DICOM object", "export it again from the archive")
MAX_INFLATED_BYTES = 2**28
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_NO_IMAGES = {"SEG": "a Segmentation object", "RTDOSE": "a dose distribution"}
_CAREFUL = ("pydicom", "pyjpegls", "pillow", "gdcm")  # pylibjpeg's JPEG is libjpeg's, under GPL: never chosen
_BLOCK = 1 << 16


def open_header(path: Path) -> Dataset:
    """Everything before the pixels; to be called, and its values read, inside ``guard.reading``.

    Raises:
        UnreadableImage: deflated beyond ``MAX_INFLATED_BYTES``.
    """
    check_file(path)
    _check_deflated(path)
    return dcmread(path, stop_before_pixels=True, force=True)  # forced: content was told by its first bytes


def open_datasets(paths: Sequence[Path]) -> list[Dataset]:
    """The whole objects, after the checks of ``check_image``; pixels stay encoded where that is safe.

    Raises:
        UnreadableImage: as ``check_image``, or pixels that are missing or cannot be decoded.
    """
    datasets = [_open(path) for path in paths]
    chosen = [(path, dataset, decoder_name(dataset)) for path, dataset in zip(paths, datasets, strict=True)]
    apart = [each for each in chosen if each[2] in APART]
    if apart:
        decode_apart(apart)
    return datasets


def _open(path: Path) -> Dataset:
    """One object with its encoded pixels."""
    check_image(open_header(path))
    dataset = dcmread(path, force=True)
    if not any(dataset.get(name) for name in _PIXELS):
        raise UnreadableImage("expected a DICOM image, got one whose pixels are missing or cut short", DAMAGED[1])
    meta = getattr(dataset, "file_meta", None)
    if meta is None or "TransferSyntaxUID" not in meta:
        dataset.file_meta = meta or FileMetaDataset()
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    _check_decoder(dataset.file_meta.TransferSyntaxUID)
    check_codestreams(dataset, frame_count(dataset))
    return dataset


def decoder_name(dataset: Dataset) -> str:
    """The library that decodes the pixels; empty where they are not compressed.

    Damaged JPEG and JPEG-LS streams end the whole process inside gdcm 3.2.6, so it comes last, and damaged RLE panics
    inside pylibjpeg-rle 2.2; the others raise an error. All agree on every sound file of pydicom-data.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return ""
    available = get_decoder(syntax).available_plugins
    if syntax == JPEGExtended12Bit and int(dataset.get("BitsStored", 8)) > 8:
        return "gdcm"
    order = ("pylibjpeg", *_CAREFUL) if syntax in JPEG2000TransferSyntaxes else _CAREFUL
    return next((name for name in order if name in available), "")


def decoding(dataset: Dataset) -> AbstractContextManager[None]:
    """The guard around the decoding of pixels, naming how they are coded."""
    name = dataset.file_meta.TransferSyntaxUID.name
    return reading(f"pixels that decode as {name}", "export the image again, or uncompressed")


def _check_decoder(syntax: UID) -> None:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        name = "a private one" if syntax.is_private else syntax.name
        raise UnreadableImage(
            f"expected a compression that can be decoded, got {name}", "export the image uncompressed"
        ) from None
    if not decoder.is_available:
        raise MissingExtra(
            f"no decoder is installed for {syntax.name}", "install the extra with pip install 'pellucid[dicom]'"
        )


def class_name(header: Dataset) -> str:
    """What kind of object it is, by the standard's name."""
    uid = UID(str(header.get("SOPClassUID", "")))
    return uid.name if uid and uid.name != uid else "of an unknown kind"


def frame_count(header: Dataset) -> int:
    """Declared number of frames."""
    declared = header.get("NumberOfFrames")
    return 1 if declared in (None, "") else int(declared)


def is_companion(header: Dataset) -> bool:
    """Whether it lies beside images without being one: an index, report, presentation state, or plan.

    An image class without a size is no companion, nor is a header without a class: it was cut short.
    """
    other = "SOPClassUID" in header and "Image Storage" not in class_name(header)
    return is_directory(header) or ("Rows" not in header and other)


def is_result(header: Dataset) -> bool:
    """Whether it has pixels that somebody worked out of an image: a segmentation, a dose, a parametric map."""
    return header.get("Modality") in _NO_IMAGES or header.get("SOPClassUID") == ParametricMapStorage


def is_directory(header: Dataset) -> bool:
    """Whether it is the index of a disk (DICOMDIR)."""
    meta = getattr(header, "file_meta", None) or {}
    return meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage or "DirectoryRecordSequence" in header


def check_image(header: Dataset) -> None:
    """Refuse what is no image, or declares a size that nobody can hold.

    Raises:
        UnreadableImage: an object without pixels, a segmentation, a whole slide, or impossible sizes.
    """
    if is_directory(header):
        raise UnreadableImage("expected a DICOM image, got the index of a disk (DICOMDIR)", "give a folder of images")
    if "Rows" not in header or "Columns" not in header:
        name = class_name(header)
        if "Image Storage" in name:
            raise UnreadableImage(f"expected a DICOM image, got one whose header is cut short ({name})", DAMAGED[1])
        raise UnreadableImage(
            f"expected a DICOM image, got an object without pixels ({name})", "give the image that it belongs to"
        )
    if header.get("Modality") in _NO_IMAGES:
        raise UnreadableImage(
            f"expected a DICOM image, got {_NO_IMAGES[header.Modality]}", "give the image, and the mask as NIfTI or PNG"
        )
    if header.get("SOPClassUID") == VLWholeSlideMicroscopyImageStorage:
        raise UnreadableImage("expected an image, got a whole slide", "explain tiles of it: --tile X,Y, or --tiles 4")
    samples, stored, allocated = (int(header.get(k, 1)) for k in ("SamplesPerPixel", "BitsStored", "BitsAllocated"))
    check_values((int(header.Rows), int(header.Columns), samples, frame_count(header)), "a DICOM image")
    if not 1 <= stored <= allocated <= 64 and "BitsStored" in header:
        raise UnreadableImage(
            f"expected at most as many bits stored as allocated, got {stored} of {allocated}", DAMAGED[1]
        )


def _check_deflated(path: Path) -> None:
    """Inflate a deflated data set without keeping it: pydicom inflates all of it even for the header alone."""
    with path.open("rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    total, inflating = 0, zlib.decompressobj(-zlib.MAX_WBITS)
    with path.open("rb") as stream:
        stream.seek(144 + int(meta.FileMetaInformationGroupLength))  # preamble, prefix and the length element itself
        while block := stream.read(_BLOCK):
            while block and total <= MAX_INFLATED_BYTES and not inflating.eof:
                total += len(inflating.decompress(block, _BLOCK))
                block = inflating.unconsumed_tail
    if total > MAX_INFLATED_BYTES:
        raise UnreadableImage(
            f"expected a deflated object of at most {MAX_INFLATED_BYTES} bytes, got one that inflates beyond it",
            "convert it to an uncompressed transfer syntax",
        )
