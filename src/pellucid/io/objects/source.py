"""The DICOM instances that an explanation is about, opened again and compared with what was explained."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import highdicom as hd
import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pellucid.core.errors import BadOption, ShapeMismatch, SourceChanged, UnreadableImage
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Image
from pellucid.io.dicom import Survey, read_dicom, read_series, survey
from pellucid.io.dicomfacts import numbers, spacing
from pellucid.io.dicomfile import DAMAGED
from pellucid.io.formats import Format, find_format
from pellucid.io.guard import reading
from pellucid.io.modelcard import FACTORS
from pellucid.io.suv import converted, suv_traits
from pellucid.io.volume import is_enhanced

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_ASKED = ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")
_ALSO_ASKED = ("PatientSex", "ReferringPhysicianName")  # type 2 too: every object of the study repeats them
_REFERENCES = ("ReferencedStudySequence", "ReferencedPatientSequence", "ReferencedPerformedProcedureStepSequence")
_SEXES = ("M", "F", "O")
_MOMENTS = ("Content", "Acquisition", "Series", "Study")
_DATE, _TIME = re.compile(r"(19|20)\d{6}"), re.compile(r"\d{6}(\.\d{1,6})?|\d{4}|\d{2}")
_NO_DATE = "19000101"  # ContentDate must not be empty, and inventing a day would be worse
_OFF = 0.05  # of a voxel that a slice may lie beside the grid's plane


class Moment(NamedTuple):
    """A DICOM date and time."""

    date: str
    time: str


class Flat(NamedTuple):
    """A map on the pixels of the one instance of an image without frame of reference; made by ``Source.flat_map``.

    Args:
        array: "row column", of the instance's own size.
    """

    array: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Source:
    """The instances that were explained, and the image that was read from them.

    Args:
        headers: of the instances without their pixels, in the order of the volume's first axis; one for a 2-D image,
            a chosen frame or an enhanced object. They hold the patient's name: never shown.
        image: as read, and as it was explained.
        frames: number, from 1, of the frame behind each position of the first axis (1 in a single-frame instance).
        start: row and column of the instances at which the image begins; not (0, 0) where it was cropped.
        aligned: whether the image's slices are the instances' own; false where it was resampled.
        factor: of the image's values to those of the instances' modality transform (SUV); 1 where they are the same.
    """

    headers: tuple[Dataset, ...] = field(repr=False)
    image: Image
    frames: tuple[int, ...] = (1,)
    start: tuple[int, int] = (0, 0)
    aligned: bool = True
    factor: float = 1.0

    @property
    def first(self) -> Dataset:
        """The header whose facts about patient, study and equipment the objects repeat."""
        return self.headers[0]

    @property
    def flat(self) -> bool:
        """Whether it is a projection or picture, which has no place in the patient."""
        return self.image.grid.calibration is not Calibration.PATIENT

    @property
    def study(self) -> str:
        """StudyInstanceUID; never shown."""
        return str(self.first.StudyInstanceUID)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of an instance."""
        return int(self.first.Rows), int(self.first.Columns)

    @property
    def moment(self) -> Moment:
        """When the source was made: the time that every object made from it carries, see ADR 14."""
        for name in _MOMENTS:
            date = str(self.first.get(f"{name}Date") or "")
            if _DATE.fullmatch(date):
                time = str(self.first.get(f"{name}Time") or "")
                return Moment(date, time if _TIME.fullmatch(time) else "000000")
        return Moment(_NO_DATE, "000000")

    @cached_property
    def geometry(self) -> hd.VolumeGeometry | None:
        """Where the image lies, with axes (slice, row, column); None without a frame of reference."""
        grid = self.image.grid
        if self.flat or not grid.frame_of_reference:
            return None
        matrix, shape = grid.matrix, grid.shape
        if grid.rank == 2:  # one slice: its normal becomes the first axis, as thick as the slice is
            thickness = numbers(self.first.get("SliceThickness"), 1)
            step = thickness[0] if thickness and thickness[0] > 0 else 1.0
            normal = np.append(matrix[:3, 2] / np.linalg.norm(matrix[:3, 2]) * step, 0.0)
            matrix, shape = np.column_stack([normal, matrix[:, 0], matrix[:, 1], matrix[:, 3]]), (1, *shape)
        return hd.VolumeGeometry(matrix, shape, "PATIENT", frame_of_reference_uid=grid.frame_of_reference)

    def volume(self, values: NDArray[Any]) -> hd.Volume:
        """A map on the image's grid as the volume that objects are written from.

        Args:
            values: "*space" of the image's grid.

        Raises:
            BadOption: the image states no frame of reference, so there is no place to write to.
            ShapeMismatch: values and image disagree.
        """
        geometry = self.geometry
        if geometry is None:
            raise BadOption(
                "expected a source with a frame of reference, got an image that states none",
                "write the objects that are aligned to its pixels (secondary capture, presentation state)",
            )
        self._check(values)
        array = values.reshape(geometry.spatial_shape)
        return hd.Volume(array, geometry.affine, "PATIENT", frame_of_reference_uid=geometry.frame_of_reference_uid)

    def flat_map(self, values: NDArray[Any]) -> Flat:
        """A map of a projection or picture, pixel by pixel on its one instance.

        Raises:
            BadOption: the image lies in the patient: use ``volume``.
            ShapeMismatch: values and image disagree.
        """
        if not self.flat:
            raise BadOption("expected a projection or picture, got an image in patient space", "place it as a volume")
        self._check(values)
        return Flat(values)

    def _check(self, values: NDArray[Any]) -> None:
        if tuple(values.shape) != self.image.grid.shape:
            raise ShapeMismatch(
                f"expected a map of shape {self.image.grid.shape}, got {tuple(values.shape)}",
                "pass the map on the image's own grid (explanation.numpy())",
            )


def check_dicom(files: Sequence[Path]) -> None:
    """Check that an image came from DICOM files, before hours are spent on it.

    Raises:
        BadOption: it did not.
    """
    if not files or any(find_format(path) is not Format.DICOM for path in files):
        raise BadOption(
            "expected an image from DICOM files, since DICOM objects belong to the study of their source, got another",
            "leave out --dicom: the maps of a volume are written as NIfTI beside the report",
        )


def open_source(files: Sequence[Path], image: Image) -> Source:
    """Read the files of an image again, and check that they still hold what was explained.

    The values and the geometry must be equal bit for bit: a file that was replaced, of another series or of another
    patient is refused, and nothing is written into the wrong study. Of several frames without geometry the one that
    was explained is found by its values.

    Args:
        files: the image was read from, as ``Case.files`` gives them.
        image: as it was explained; it may be cropped.

    Raises:
        BadOption: the files are not DICOM, or several instances for a 2-D image without a frame of reference.
        SourceChanged: the files hold something else than what was explained.
        UnreadableImage: they cannot be read any more.
    """
    check_dicom(files)
    found = survey(files)
    _check_one(found, image, len(files))
    with reading(*DAMAGED):
        frame = _same_frame(found, image)
        headers = [_complete(member.header) for member in found.members]
        _check_one_series(headers)
        factor = suv_traits(headers).get(FACTORS.get(image.unit, ""), 1.0)
        return replace(_placed(headers, image, frame), factor=float(factor))


def _check_one(found: Survey, image: Image, count: int) -> None:
    if found.failures:
        raise found.failures[0][1]
    if len(found.members) != count:
        raise _changed(f"{count} images were explained and {len(found.members)} are there")
    if image.grid.calibration is not Calibration.PATIENT and count != 1:
        raise BadOption(
            f"expected one source instance for an image without a frame of reference, got {count}",
            "explain one instance at a time",
        )


def _same_frame(found: Survey, image: Image) -> int:
    """The frame, from 0, that holds what was explained; 0 of a volume."""
    loop = image.grid.calibration is not Calibration.PATIENT and found.members[0].frames > 1
    for index in range(found.members[0].frames if loop else 1):
        other = _difference(converted(_again(found, image, index if loop else None), image.unit), image)
        if other is None:
            return index
    raise _changed("none of the frames is the one that was explained" if loop else str(other))


def _again(found: Survey, image: Image, index: int | None) -> Image:
    """The whole image once more; what the reader refuses now has changed since."""
    try:
        if len(found.members) == 1:
            return read_dicom(found.members[0].path, image.modality, index)
        if "resampled" in image.traits:
            return read_series(found, image.modality, None, True)
        return read_series(found, image.modality)
    except (BadOption, UnreadableImage) as error:
        raise _changed(f"reading them again failed ({error.problem})") from error


def _difference(again: Image, image: Image) -> str | None:
    """How they differ, bit for bit; None: not at all."""
    start, shape = _start(again.grid, image.grid), image.grid.shape
    if start is None or not all(0 <= s <= n - k for s, n, k in zip(start, again.grid.shape, shape, strict=True)):
        return "their geometry is another"
    part = again if again.grid.shape == shape else again.cropped(start, shape)
    if not part.grid.same_geometry(image.grid, 1e-6) or part.grid.frame_of_reference != image.grid.frame_of_reference:
        return "their geometry is another"
    return None if torch.equal(part.data, image.data) else "their values are others"


def _start(whole: Grid, part: Grid) -> tuple[int, ...] | None:
    """The voxel of ``whole`` at which ``part`` begins."""
    if whole.rank != part.rank:
        return None
    return tuple(int(v) for v in np.round(whole.index(part.matrix[:3, 3])[0]))


def _changed(how: str) -> SourceChanged:
    return SourceChanged(
        f"expected the files that were explained, but {how}: the source has changed, or is of another study",
        "explain these files again; nothing was written",
    )


def _complete(header: Dataset) -> Dataset:
    """With every attribute that the objects must repeat, empty where the source has none."""
    if any(not header.get(uid) for uid in _UIDS):
        raise UnreadableImage(
            "expected a source with study, series and instance UIDs, got one without",
            "export it again from the archive",
        )
    for keyword in (*_ASKED, *_ALSO_ASKED):
        if header.get(keyword) is None:
            setattr(header, keyword, "")
    if "SpacingBetweenSlices" in header:  # highdicom believes it, also where the positions say another
        del header.SpacingBetweenSlices
    if header.PatientSex not in _SEXES:  # anything else is no code of the standard
        header.PatientSex = ""
    if spacing(header, "PixelSpacing") is None and "PixelSpacing" in header:  # zeros occur, and are no length
        del header.PixelSpacing
    for keyword in _REFERENCES:  # objects copy them, and half a reference is an error in each
        if any("ReferencedSOPClassUID" not in item for item in header.get(keyword) or ()):
            del header[keyword]
    return header


def _check_one_series(headers: Sequence[Dataset]) -> None:
    several = [
        k for k in ("StudyInstanceUID", "SeriesInstanceUID", "PatientID") if len({str(h.get(k)) for h in headers}) > 1
    ]
    if several or len({str(h.SOPInstanceUID) for h in headers}) != len(headers):
        raise _changed("they are not the distinct instances of one series of one patient")


def _placed(headers: list[Dataset], image: Image, frame: int) -> Source:
    """The headers in the order of the image's first axis."""
    grid = image.grid
    if grid.calibration is not Calibration.PATIENT:
        return Source(tuple(headers), image, (frame + 1,))
    positions = _frame_positions(headers[0]) if is_enhanced(headers[0]) else [h.ImagePositionPatient for h in headers]
    found = grid.index(np.asarray(positions, float))
    if grid.rank == 2:
        found = np.column_stack([np.zeros(len(found)), found])
    depth = grid.shape[0] if grid.rank == 3 else 1
    order = np.argsort(found[:, 0], kind="stable")
    slices = np.round(found[:, 0]).astype(int)
    inside = [int(i) for i in order if 0 <= slices[i] < depth]
    exact = np.abs(found - np.round(found)).max() < _OFF and [int(slices[i]) for i in inside] == list(range(depth))
    chosen = inside if exact else [int(i) for i in order]
    row, column = (int(-round(float(v))) for v in found[chosen[0], 1:])
    start = (row, column) if exact else (0, 0)
    if is_enhanced(headers[0]):
        return Source((headers[0],), image, tuple(i + 1 for i in chosen), start, bool(exact))
    return Source(tuple(headers[i] for i in chosen), image, (1,) * len(chosen), start, bool(exact))


def _frame_positions(header: Dataset) -> list[Any]:
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    groups = [
        (f.get("PlanePositionSequence") or shared.PlanePositionSequence)
        for f in header.PerFrameFunctionalGroupsSequence
    ]
    return [group[0].ImagePositionPatient for group in groups]
