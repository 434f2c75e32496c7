"""Slices with a position in the patient as one image; highdicom is the only reader of their geometry."""

from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pellucid.core.errors import UnreadableImage
from pellucid.core.grid import Calibration, Grid, as_affine
from pellucid.core.image import Image, Modality
from pellucid.io.dicomfacts import (
    find,
    is_measured,
    modality_of,
    numbers,
    traits_of,
    unit_of,
    window_of,
)
from pellucid.io.dicomfile import decoder_name
from pellucid.io.planes import Planes

_STAND_IN = "2.25.0"  # highdicom needs a frame of reference where old scanners wrote none
_GEOMETRY = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
_GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
_LOOSE = 1e-3  # of highdicom's own test of orientations: ours came first and is stricter


def has_position(header: Dataset) -> bool:
    """Whether a single-frame image says where in the patient it lies."""
    return all(header.get(k) for k in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))


def is_enhanced(header: Dataset) -> bool:
    """Whether frames carry their own geometry."""
    return "PerFrameFunctionalGroupsSequence" in header


def check_planes(headers: Sequence[Dataset]) -> None:
    """Refuse slices that are not one regular volume, with the reason.

    Raises:
        UnreadableImage: tilt, gap, duplicates, mixed sizes or orientations, several frames of reference.
    """
    problem = frames_problem(headers) or planes_of(headers).problem()
    if problem is not None:
        raise UnreadableImage(
            f"expected slices that form one regular volume, got {problem}",
            "give one complete stack, or pass --resample-geometry, which mends a tilt or a small gap and says so",
        )


def frames_problem(headers: Sequence[Dataset]) -> str | None:
    """Why positions of these slices cannot be compared; None where they can."""
    several = len({str(h.get("FrameOfReferenceUID", "")) for h in headers}) > 1
    return "slices of several frames of reference" if several else None


def planes_of(headers: Sequence[Dataset]) -> Planes:
    """Where the slices of a series, or the frames of an enhanced object, lie."""
    return _frame_planes(headers[0]) if is_enhanced(headers[0]) else _slice_planes(headers)


def read_slices(datasets: Sequence[Dataset], modality: Modality | None) -> Image:
    """Single-frame objects of one series as a volume, axes (slice, row, column); one slice as a 2-D image."""
    options: dict[str, Any] = _transform(datasets[0])
    stated = datasets[0].get("FrameOfReferenceUID")
    for dataset in datasets:
        dataset.pixel_array_options(decoding_plugin=decoder_name(dataset))
        if not stated:
            dataset.FrameOfReferenceUID = _STAND_IN
    volume = hd.get_volume_from_series(datasets, orientation_tol=_LOOSE, **options)
    return _image(volume, datasets[len(datasets) // 2], modality, str(stated) if stated else None)


def read_frames(dataset: Dataset, modality: Modality | None) -> Image:
    """An enhanced multi-frame object as a volume."""
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:  # highdicom would choose the decoder itself
        dataset.decompress(decoding_plugin=decoder_name(dataset), generate_instance_uid=False)
    image = hd.Image.from_dataset(dataset, copy=False)
    volume = image.get_volume(**_transform(dataset))
    stated = dataset.get("FrameOfReferenceUID")
    return _image(volume, dataset, modality, str(stated) if stated else None)


def _transform(dataset: Dataset) -> dict[str, Any]:
    """Modality transform only: with highdicom's defaults MONOCHROME1 would invert HU, and maps of SUV replace Bq."""
    return {
        "dtype": np.float32,
        "apply_real_world_transform": False,
        "apply_presentation_lut": False,
        "apply_palette_color_lut": dataset.get("PhotometricInterpretation") == "PALETTE COLOR",
        "apply_icc_profile": False,
    }


def _image(volume: hd.Volume, dataset: Dataset, modality: Modality | None, frame_of_reference: str | None) -> Image:
    array: NDArray[np.float32] = np.asarray(volume.array, dtype=np.float32)
    array = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
    matrix = np.asarray(volume.affine, dtype=float)
    shape = array.shape[1:]
    if shape[0] == 1:  # one slice: its rows and columns, with the normal as third direction
        array, shape = array[:, 0], shape[1:]
        normal = matrix[:3, 0] / np.linalg.norm(matrix[:3, 0])
        matrix = np.column_stack([matrix[:, 1], matrix[:, 2], np.append(normal, 0.0), matrix[:, 3]])
    grid = Grid(shape, as_affine(matrix), Calibration.PATIENT, frame_of_reference)
    traits = traits_of(dataset)
    traits["photometric"] = str(dataset.get("PhotometricInterpretation", ""))
    if grid.rank == 3:
        traits["slice_mm"] = round(grid.spacing[0], 6)
    data, unit, window = torch.from_numpy(np.ascontiguousarray(array)), unit_of(dataset), window_of(dataset)
    if len(data) == 3:
        palette = dataset.get("RedPaletteColorLookupTableDescriptor")
        bits = int(palette[2]) if traits["photometric"] == "PALETTE COLOR" else int(dataset.BitsStored)
        data, unit, window = data / (2**bits - 1), "[0,1]", None
        traits["photometric"] = "RGB"
    elif traits["photometric"] == "MONOCHROME1" and not is_measured(dataset):
        top = stored_limits(dataset)
        data = sum(top) - data
        window = (sum(top) - window[1], sum(top) - window[0]) if window else None
        traits["photometric"] = "MONOCHROME2"
    return Image(data, grid, modality or modality_of(dataset), unit, window, traits)


def stored_limits(dataset: Dataset) -> tuple[float, float]:
    """Smallest and largest value after the modality transform that the stored bits allow: not of this one image."""
    table = dataset.get("ModalityLUTSequence")
    if table:
        return 0.0, float(2 ** int(table[0].LUTDescriptor[2]) - 1)
    bits = int(dataset.BitsStored)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if int(dataset.PixelRepresentation) else (0, 2**bits - 1)
    slope, intercept = rescale(dataset)
    return low * slope + intercept, high * slope + intercept


def rescale(dataset: Dataset) -> tuple[float, float]:
    """Slope and intercept of the modality transform."""
    slope, intercept = (find(dataset, key) for key in ("RescaleSlope", "RescaleIntercept"))
    return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)


def _slice_planes(headers: Sequence[Dataset]) -> Planes:
    rows = [[numbers(h.get(keyword), count) for keyword, count in _GEOMETRY] for h in headers]
    return _planes(rows, [(int(h.Rows), int(h.Columns)) for h in headers])


def _frame_planes(header: Dataset) -> Planes:
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    rows = []
    for frame in header.PerFrameFunctionalGroupsSequence:
        items = [(frame.get(group) or shared.get(group) or [Dataset()])[0] for group in _GROUPS]
        rows.append([numbers(item.get(key), count) for item, (key, count) in zip(items, _GEOMETRY, strict=True)])
    return _planes(rows, [(int(header.Rows), int(header.Columns))] * len(rows))


def _planes(rows: list[list[tuple[float, ...] | None]], sizes: list[tuple[int, int]]) -> Planes:
    """Missing numbers become NaN, which ``Planes`` names."""
    columns = [
        np.asarray([row[i] if row[i] is not None else (np.nan,) * count for row in rows], dtype=float)
        for i, (_, count) in enumerate(_GEOMETRY)
    ]
    return Planes(columns[0], columns[1], columns[2], np.asarray(sizes, dtype=np.int64))
