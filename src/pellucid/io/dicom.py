"""A DICOM file or series folder as an image: the right values, the right place, and nobody's name."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from pellucid.core.errors import BadOption, PellucidError, UnreadableImage
from pellucid.core.image import Image, Modality
from pellucid.io.breast import check_breast
from pellucid.io.dicomfacts import is_measured, modality_of, plane_grid, traits_of, unit_of, window_of
from pellucid.io.dicomfile import (
    DAMAGED,
    check_image,
    class_name,
    decoder_name,
    decoding,
    frame_count,
    is_companion,
    is_result,
    open_datasets,
    open_header,
)
from pellucid.io.dicomvideo import is_dicom_video, read_dicom_video
from pellucid.io.formats import Format, find_format
from pellucid.io.guard import check_values, reading
from pellucid.io.regular import plan_for, read_resampled
from pellucid.io.suv import suv_traits
from pellucid.io.volume import (
    check_planes,
    frames_problem,
    has_position,
    is_enhanced,
    planes_of,
    read_frames,
    read_slices,
    rescale,
    stored_limits,
)

_UNSCALED = frozenset({"CR", "DX", "MG", "XA", "RF", "IO", "PX", "RG", "CT", "MR", "PT", "NM"})
_LISTED = 6  # series named in one message


@dataclass(frozen=True)
class Member:
    """A DICOM image of a folder, by what decides how it is read.

    Args:
        path: of the file.
        study: StudyInstanceUID; never shown.
        series: SeriesInstanceUID; never shown.
        placed: whether it has a position in the patient.
        frames: in this file.
        title: modality and size, for messages.
        header: everything but the pixels; it holds the patient's name, so it is never printed.
    """

    path: Path
    study: str
    series: str
    placed: bool
    frames: int
    title: str
    header: Dataset = field(repr=False, compare=False)


@dataclass(frozen=True)
class Survey:
    """The DICOM images of a folder.

    Args:
        members: those whose header can be read.
        failures: files that are DICOM and cannot.
        others: objects beside the images (reports, presentation states, segmentations), by what they are.
    """

    members: tuple[Member, ...]
    failures: tuple[tuple[Path, PellucidError], ...] = ()
    others: tuple[str, ...] = ()

    @property
    def series(self) -> dict[str, list[Member]]:
        """Members by series, in order of appearance."""
        found: dict[str, list[Member]] = {}
        for member in self.members:
            found.setdefault(member.series, []).append(member)
        return found

    @property
    def studies(self) -> "list[Survey]":
        """The same by study; what cannot be read, and what is no image, stays with each of them."""
        found: dict[str, list[Member]] = {}
        for member in self.members:
            found.setdefault(member.study, []).append(member)
        return [Survey(tuple(group), self.failures, self.others) for group in found.values()]

    @property
    def apart(self) -> "list[Survey]":
        """Each image for itself, whatever lies beside it."""
        return [Survey((member,)) for member in self.members]

    @property
    def separate(self) -> bool:
        """Whether each file is an image of its own: none has a place in a stack, or no two belong together."""
        alone = len(self.members) > 1 and all(len(group) == 1 for group in self.series.values())
        return alone or not any(member.placed for member in self.members)


def read_dicom(path: Path, modality: Modality | None = None, index: int | None = None) -> Image:
    """One DICOM file: a projection, picture or slice in 2-D, an enhanced object as a volume.

    Projections and pictures: after the modality transform, MONOCHROME1 inverted once, color as RGB in [0, 1]; the
    first window is kept for display. Slices and enhanced objects: in patient space, in their own unit (HU, Bq/ml).

    Args:
        path: of the file.
        modality: overrides what the header says.
        index: frame of a multi-frame object without geometry, from 0.

    Raises:
        UnreadableImage: damaged, no image, too large, or frames that form no regular volume.
        BadOption: several frames and no index, or an index that does not exist.
    """
    if is_dicom_video(path):
        return read_dicom_video(path, modality, index)
    with reading(*DAMAGED):
        dataset = open_datasets([path])[0]
        count = frame_count(dataset)
        enhanced = is_enhanced(dataset)
        if enhanced or (count == 1 and has_position(dataset)):
            _refuse_index(index)
            check_planes([dataset])
            with decoding(dataset):
                image = read_frames(dataset, modality) if enhanced else read_slices([dataset], modality)
            return replace(image, traits={**image.traits, **suv_traits([dataset])})
        with decoding(dataset):
            return _read_plane(dataset, modality, _frame(count, index))


def survey(paths: Iterable[Path]) -> Survey:
    """The headers of those files that are DICOM images; indexes, reports and other objects are named at most."""
    members, failures, others = [], [], []
    for path in paths:
        if find_format(path) is not Format.DICOM:
            continue
        try:
            with reading(*DAMAGED):
                header = open_header(path)
                if is_companion(header) or is_result(header):
                    others.append(class_name(header))
                else:
                    members.append(_member(path, header))
        except PellucidError as error:
            failures.append((path, error))
    return Survey(tuple(members), tuple(failures), tuple(others))


def read_series(
    found: Survey, modality: Modality | None = None, index: int | None = None, resample: bool = False
) -> Image:
    """The one series of a folder as a volume, sorted by position and not by name.

    Args:
        found: its files.
        modality: overrides what the headers say.
        index: frame, where the series is one object without geometry.
        resample: bring a tilted gantry or a small gap onto a regular grid, and say so; else they are refused.

    Raises:
        UnreadableImage: no series, several, damaged slices, separate images, or no regular volume.
        BadOption: an index, where there is one volume.
    """
    _check_one_series(found)
    members = found.members
    if len(members) == 1:
        return read_dicom(members[0].path, modality, index)
    _refuse_index(index)
    titles = {m.title for m in members}
    if not all(m.placed and m.frames == 1 for m in members):
        raise UnreadableImage(
            f"expected slices with a position in the patient, got {len(members)} images of which "
            f"{sum(m.placed and m.frames == 1 for m in members)} have one ({', '.join(sorted(titles)[:_LISTED])})",
            "give one of the files",
        )
    with reading(*DAMAGED):
        headers = [member.header for member in members]
        plan = plan_for(planes_of(headers)) if resample and frames_problem(headers) is None else None
        if plan is None:
            check_planes(headers)
        samples = int(headers[0].get("SamplesPerPixel", 1))
        check_values((len(headers), int(headers[0].Rows), int(headers[0].Columns), samples), "a DICOM series")
        datasets = open_datasets([member.path for member in members])
        with decoding(datasets[0]):
            image = read_slices(datasets, modality) if plan is None else read_resampled(datasets, plan, modality)
        return replace(image, traits={**image.traits, **suv_traits(headers)})


def _check_one_series(found: Survey) -> None:
    if not found.members and not found.failures:
        held = f" ({', '.join(sorted(set(found.others))[:_LISTED])})" if found.others else ""
        raise UnreadableImage(
            f"expected a folder with DICOM images, got one without{held}", "give the folder of the series"
        )
    if found.failures:
        total = len(found.members) + len(found.failures)
        raise UnreadableImage(
            f"expected a complete series, {len(found.failures)} of {total} DICOM files cannot be read: "
            f"{found.failures[0][1].problem}",
            "export the series again, or take these files out if they do not belong to it",
        )
    groups = found.series
    if len(groups) > 1:
        lines = [f"{len(group)} x {Counter(m.title for m in group).most_common(1)[0][0]}" for group in groups.values()]
        more = f" and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
        raise UnreadableImage(
            f"expected one series, got {len(lines)}: {'; '.join(lines[:_LISTED])}{more}",
            "choose with --series NUMBER ('pellucid dicom series' lists them), or by the card of a --model",
        )


def _member(path: Path, header: Dataset) -> Member:
    check_image(header)
    title = f"{header.get('Modality', 'unknown')} {int(header.Rows)} x {int(header.Columns)}"
    placed = has_position(header) or is_enhanced(header)
    study, series = (str(header.get(f"{level}InstanceUID", "")) for level in ("Study", "Series"))
    return Member(path, study, series, placed, frame_count(header), title, header)


def _refuse_index(index: int | None) -> None:
    if index not in (None, 0):
        raise BadOption(f"expected no index for a volume or a single image, got {index}", "leave the index out")


def _frame(count: int, index: int | None) -> int:
    if index is None and count > 1:
        raise BadOption(
            f"expected one frame, got an object of {count} frames (a loop or a run)",
            f"choose one: index 0 to {count - 1}",
        )
    if not 0 <= (index or 0) < count:
        raise BadOption(f"expected an index from 0 to {count - 1}, got {index}", "choose a frame that exists")
    return index or 0


def _read_plane(dataset: Dataset, modality: Modality | None, frame: int) -> Image:
    pixels = pixel_array(dataset, index=frame, decoding_plugin=decoder_name(dataset))  # YBR comes back as RGB
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    traits = traits_of(dataset)
    if photometric == "PALETTE COLOR" or pixels.ndim == 3:
        values, unit, window = _color(pixels, dataset, photometric), "[0,1]", None
        traits["photometric"] = "RGB"
    else:
        values, unit, window = _gray(pixels, dataset, photometric)
        keeps = photometric == "MONOCHROME1" and is_measured(dataset)
        traits["photometric"] = photometric if keeps else "MONOCHROME2"
    if dataset.get("Modality") == "MG":
        traits |= check_breast(dataset, values[0])
    data = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    grid = plane_grid(dataset, (int(data.shape[1]), int(data.shape[2])))
    return Image(data, grid, modality or modality_of(dataset), unit, window, traits)


def _color(pixels: NDArray[Any], dataset: Dataset, photometric: str) -> NDArray[Any]:
    if photometric == "PALETTE COLOR":
        _swap_palette(dataset)
        colored = apply_color_lut(pixels, dataset)[..., :3]
        top = np.iinfo(colored.dtype).max
    else:
        colored, top = pixels, 2 ** int(dataset.BitsStored) - 1
    return np.moveaxis(colored.astype(np.float64) / top, -1, 0)


def _swap_palette(dataset: Dataset) -> None:
    """Put 16-bit palette entries of a big-endian object into the order that pydicom takes them to be in."""
    if dataset.file_meta.TransferSyntaxUID.is_little_endian:
        return
    entries = int(dataset.RedPaletteColorLookupTableDescriptor[0]) or 2**16
    for color in ("Red", "Green", "Blue"):
        keyword = f"{color}PaletteColorLookupTableData"
        table = dataset.get(keyword)
        if isinstance(table, bytes) and len(table) == 2 * entries:
            dataset[keyword].value = np.frombuffer(table, ">u2").astype("<u2").tobytes()


def _gray(
    pixels: NDArray[Any], dataset: Dataset, photometric: str
) -> tuple[NDArray[Any], str, tuple[float, float] | None]:
    values = apply_modality_lut(pixels, dataset).astype(np.float64)
    window = window_of(dataset)
    limits = stored_limits(dataset) if "BitsStored" in dataset else (0.0, 0.0)
    if photometric == "MONOCHROME1" and not is_measured(dataset):
        values = sum(limits) - values
        window = (sum(limits) - window[1], sum(limits) - window[0]) if window else None
    plain = rescale(dataset) == (1.0, 0.0) and not dataset.get("ModalityLUTSequence")
    if plain and str(dataset.get("Modality", "")) not in _UNSCALED and pixels.dtype.kind == "u":
        # ultrasound, endoscopy, photographs: the same numbers as in an exported PNG
        low, high = limits
        values = (values - low) / (high - low)
        window = ((window[0] - low) / (high - low), (window[1] - low) / (high - low)) if window else None
        return values[None], "[0,1]", window
    return values[None], unit_of(dataset), window
