"""Pictures of a map as a Secondary Capture, for viewers that can show nothing else; in the place of their source."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import ExplicitVRLittleEndian, MultiFrameTrueColorSecondaryCaptureImageStorage, RLELossless
from pydicom.valuerep import DS

from pellucid.core.errors import ShapeMismatch
from pellucid.core.grid import Grid
from pellucid.io.dicomfile import frame_count
from pellucid.io.guard import writing
from pellucid.io.objects.identity import stamp
from pellucid.io.objects.marks import MANUFACTURER, PRODUCT, Made, canonical_parameters, equipment, mark, plain
from pellucid.io.objects.recipe import Recipe, embed
from pellucid.io.objects.source import Source

KIND = "sc"
SERIES_NUMBER = 9400
_ENCODER = "pylibjpeg"
_TEXT = 1024  # characters of ST


@dataclass(frozen=True, eq=False)
class Pictures:
    """What a Secondary Capture shows, drawn by the display rules.

    Args:
        frames: "frame row column color" of 8 bits; the image begins at the upper left pixel.
        slices: of the image behind each frame, along its first axis; 0 of a 2-D image.
        zoom: pixels of a frame along each edge of a pixel of the image.
        words: what is drawn, in one sentence; never about the patient.
    """

    frames: NDArray[np.uint8]
    slices: tuple[int, ...]
    zoom: int
    words: str


def secondary_capture(made: Made, pictures: Pictures, recipe: Recipe | None = None) -> Dataset:
    """Pictures as a Secondary Capture object, with its UIDs.

    A volume becomes one multi-frame true color object with the plane of every frame, so that it scrolls along with its
    source; a projection or picture becomes a single-frame one. Pixels are RLE-compressed without loss where the extra
    ``dicom`` is installed. The words are burned in, and the object says so.

    Args:
        made: the explanation on its source.
        pictures: drawn from that explanation.
        recipe: of how to make it again, kept inside; None: none.

    Raises:
        ShapeMismatch: the pictures are not of this source.
        UnwritableOutput: the source lacks what the object needs.
    """
    _check(made.source, pictures)
    with writing("secondary capture"):
        dataset = _single(made, pictures.frames[0])
        if made.source.image.grid.rank == 3:
            _stack(dataset, made, pictures)
        _store(dataset, pictures.frames)
        _refer(dataset, made.source, pictures.slices)
        dataset.BurnedInAnnotation = "YES"  # of the words; of the patient's identity there is none in them
        dataset.DerivationDescription = plain(f"{pictures.words}; {canonical_parameters(made)}")[:_TEXT]
        spacing = _spacing(made.source.image.grid, pictures.zoom)
        if spacing is not None and made.source.image.grid.rank == 2:
            dataset.PixelSpacing = spacing
            dataset.PixelSpacingCalibrationType = "GEOMETRY"
            dataset.PixelSpacingCalibrationDescription = plain(str(made.source.image.grid.calibration))
        mark(dataset, made, "overlay")
        if recipe is not None:
            embed(dataset, recipe)
        return stamp(dataset, made.key, KIND)


def _check(source: Source, pictures: Pictures) -> None:
    shape, grid = pictures.frames.shape, source.image.grid
    depth = grid.shape[0] if grid.rank == 3 else 1
    rows, columns = (n * pictures.zoom for n in grid.shape[-2:])
    large = len(shape) == 4 and shape[3] == 3 and shape[1] >= rows and shape[2] >= columns
    known = len(pictures.slices) == shape[0] and all(0 <= s < depth for s in pictures.slices)
    if pictures.frames.dtype != np.uint8 or not large or not known:
        raise ShapeMismatch(
            f"expected color frames of at least {rows} x {columns} pixels for slices of {depth}, got {shape} of "
            f"{pictures.frames.dtype} for {len(pictures.slices)} slices",
            "draw them from the explanation that is exported",
        )


def _single(made: Made, frame: NDArray[np.uint8]) -> Dataset:
    """A single-frame object with everything of the patient and the study."""
    source, letters = made.source, made.source.image.grid.letters
    dataset = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=source.first,
        pixel_array=frame,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=(letters[-1], letters[-2]) if letters else ("L", "F"),
        series_instance_uid="2.25.0",
        series_number=SERIES_NUMBER,
        sop_instance_uid="2.25.0",
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=PRODUCT,
        software_versions=equipment(made),
        device_serial_number=plain(str(made.provenance.versions.get("pellucid", "unknown"))),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    if not letters:
        dataset.PatientOrientation = ""  # the source states none, and nobody may guess it
    dataset.SecondaryCaptureDeviceManufacturer = MANUFACTURER
    dataset.SecondaryCaptureDeviceManufacturerModelName = PRODUCT
    for keyword in ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"):
        delattr(dataset, keyword)  # the same picture made tomorrow is the same object
    return dataset


def _stack(dataset: Dataset, made: Made, pictures: Pictures) -> None:
    """The same with all frames, each with its plane (PS3.3 A.8.5, C.7.6.16)."""
    grid = made.source.image.grid
    dataset.SOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.NumberOfFrames = len(pictures.frames)
    places = [_corner(grid, place, pictures.zoom) for place in pictures.slices]
    normal = _normal(grid)
    dataset.SliceLocationVector = [_decimal(float(place @ normal)) for place in places]
    dataset.FrameIncrementPointer = 0x00182005
    if made.source.geometry is None:
        return
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = grid.frame_of_reference, ""
    dataset.SharedFunctionalGroupsSequence = [_shared(grid, pictures.zoom)]
    dataset.PerFrameFunctionalGroupsSequence = [_plane(place) for place in places]


def _store(dataset: Dataset, frames: NDArray[np.uint8]) -> None:
    """The pixels, compressed by the one encoder that is fast and safe.

    gdcm 3.2.6 ends the whole process on a frame whose size is no multiple of 15, and pydicom's own takes 0.5 s a frame.
    """
    encoder = get_encoder(RLELossless)
    if _ENCODER not in encoder.available_plugins:
        dataset.PixelData = frames.tobytes()
        return
    layout: dict[str, Any] = {
        "rows": frames.shape[1],
        "columns": frames.shape[2],
        "samples_per_pixel": 3,
        "number_of_frames": 1,
        "bits_allocated": 8,
        "bits_stored": 8,
        "pixel_representation": 0,
        "photometric_interpretation": "RGB",
        "planar_configuration": 0,
    }
    dataset.PixelData = encapsulate([encoder.encode(f, encoding_plugin=_ENCODER, **layout) for f in frames])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = RLELossless


def _corner(grid: Grid, place: int, zoom: int) -> NDArray[np.float64]:
    """Where the center of a frame's upper left pixel lies: an enlarged picture's is nearer to the image's corner."""
    inset = 0.5 / zoom - 0.5
    return grid.world(np.asarray([[place, inset, inset]], float))[0]


def _normal(grid: Grid) -> NDArray[np.float64]:
    across, down = (grid.matrix[:3, axis] / grid.spacing[axis] for axis in (2, 1))
    return np.cross(across, down)


def _shared(grid: Grid, zoom: int) -> Dataset:
    across, down = (grid.matrix[:3, axis] / grid.spacing[axis] for axis in (2, 1))
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [_decimal(float(v)) for v in (*across, *down)]
    measures.PixelSpacing = [_decimal(grid.spacing[axis] / zoom) for axis in (1, 2)]
    measures.SliceThickness = measures.SpacingBetweenSlices = _decimal(grid.spacing[0])
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    return shared


def _plane(place: NDArray[np.float64]) -> Dataset:
    position, frame = Dataset(), Dataset()
    position.ImagePositionPatient = [_decimal(float(v)) for v in place]
    frame.PlanePositionSequence = [position]
    return frame


def _spacing(grid: Grid, zoom: int) -> list[DS] | None:
    return [_decimal(s / zoom) for s in grid.spacing[-2:]] if grid.unit == "mm" else None


def _decimal(value: float) -> Any:
    """A decimal string of at most 16 characters; never minus zero."""
    return DS(value + 0.0, auto_format=True)


def _refer(dataset: Dataset, source: Source, slices: Sequence[int]) -> None:
    """The instances that the pictures show, and of one of several frames which (PS3.3 table 10-3).

    The slices of a resampled image are none of the instances', so that it was made from all of them.
    """
    stack = source.aligned and len(source.headers) > 1
    chosen = [source.headers[s] for s in slices] if stack else list(source.headers)
    frames = _frames(source, slices)
    items, again, series = [], [], Dataset()
    for header in chosen:
        for found in (items, again):
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
            found.append(item)
    if frames:
        items[0].ReferencedFrameNumber = frames
    dataset.SourceImageSequence = items
    series.ReferencedInstanceSequence, series.SeriesInstanceUID = again, source.first.SeriesInstanceUID
    dataset.ReferencedSeriesSequence = [series]


def _frames(source: Source, slices: Sequence[int]) -> list[int]:
    """Numbers of the frames that are shown of a multi-frame instance; empty: all, or it is none."""
    chosen = [source.frames[s] for s in slices] if source.aligned else list(source.frames)
    several = len(source.headers) == 1 and len(set(chosen)) < frame_count(source.first)
    return chosen if several else []
