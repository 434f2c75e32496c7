"""Our own objects read back: what they are, whose they are, the map in its place, the report's numbers."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import RLELossless

from pellucid.core.errors import InputError, UnreadableImage
from pellucid.io.dicomfile import DAMAGED, frame_count, open_header
from pellucid.io.guard import check_values, reading
from pellucid.io.objects.codes import PRIVATE
from pellucid.io.objects.identity import stamp
from pellucid.io.objects.recipe import Recipe, extract


class Kind(StrEnum):
    """What an object of ours is, with the word its UID was made with."""

    MAP = "pm"
    REPORT = "sr"
    REGION = "seg"
    PICTURE = "sc"
    STATE = "gsps"
    COLORED = "pcps"


_SAID = re.compile(
    r"(?:^|[,;] ?)(explainer|target|seed|precision|engine|weights_sha256|card_sha256|input_sha256|content_key)=([^,;]*)"
)
_FIRST = "explainer="  # with which a canonical string begins
_CUT = 1024  # characters of an ST: a longer description ends in the middle of a value
_SPELLED = ("Algorithm Parameters", "Reason")
_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.30": Kind.MAP,
    "1.2.840.10008.5.1.4.1.1.88.33": Kind.REPORT,
    "1.2.840.10008.5.1.4.1.1.88.34": Kind.REPORT,
    "1.2.840.10008.5.1.4.1.1.66.4": Kind.REGION,
    "1.2.840.10008.5.1.4.1.1.7": Kind.PICTURE,
    "1.2.840.10008.5.1.4.1.1.7.4": Kind.PICTURE,
    "1.2.840.10008.5.1.4.1.1.11.1": Kind.STATE,
    "1.2.840.10008.5.1.4.1.1.11.2": Kind.STATE,
    "1.2.840.10008.5.1.4.1.1.11.3": Kind.COLORED,
}


@dataclass(frozen=True, eq=False)
class OurObject:
    """A DICOM object that Pellucid wrote.

    Args:
        path: of its file; it may be named after anything, and is never shown.
        kind: what it is.
        recipe: of the explanation it holds.
        dataset: everything but the pixels. It holds the patient's name: never shown.
    """

    path: Path = field(repr=False)
    kind: Kind
    recipe: Recipe
    dataset: Dataset = field(repr=False)

    @property
    def study(self) -> str:
        """StudyInstanceUID; never shown."""
        return str(self.dataset.get("StudyInstanceUID", ""))

    @property
    def referred(self) -> frozenset[str]:
        """SOPInstanceUIDs of everything it refers to; never shown."""
        return frozenset(str(part.ReferencedSOPInstanceUID) for part in _parts(self.dataset) if _names_one(part))

    @property
    def whose(self) -> tuple[str, str]:
        """Patient and issuer of the identifier; never shown."""
        return owner(self.dataset)

    @property
    def described(self) -> Mapping[str, str]:
        """What its standard attributes say of how it was made, by name; empty: they are silent."""
        found: dict[str, str] = {}
        for text in (text for part in (self.dataset, *_parts(self.dataset)) for text in _descriptions(part)):
            if _FIRST in text:  # words that are no description may hold an equal sign, too
                said = text[text.index(_FIRST) :]
                whole = said if len(text) < _CUT else said.rpartition(",")[0]
                found |= {name: value.strip() for name, value in _SAID.findall(whole)}
        return found

    def unchanged(self) -> bool:
        """Whether UID and content still belong together: another name of the patient, say, needs another UID.

        Bad at: somebody who changes the object and gives it the UID that then belongs to it. It is no signature.

        Raises:
            UnreadableImage: the file cannot be read any more.
        """
        with reading(*DAMAGED):
            whole = dcmread(self.path)
            told = str(whole.SOPInstanceUID)
            return str(stamp(whole, self.recipe.key, self.kind.value).SOPInstanceUID) == told


def owner(header: Dataset) -> tuple[str, str]:
    """Identifier of the patient and its issuer; never shown."""
    return str(header.get("PatientID") or ""), str(header.get("IssuerOfPatientID") or "")


@dataclass(frozen=True, eq=False)
class ReadMap:
    """A map as an object holds it.

    Args:
        volume: values in their place.
        step: between two stored values; 0: they are stored as they are.
    """

    volume: hd.Volume
    step: float


@dataclass(frozen=True)
class ReadReport:
    """The numbers and verdicts of a report.

    Args:
        scores: of each metric as the command takes it; None: undefined.
        numbers: every number by what it is.
        rulings: verdict by check.
    """

    scores: Mapping[str, float | None]
    numbers: Mapping[str, float]
    rulings: Mapping[str, str]


def read_ours(path: Path) -> OurObject:
    """Open an object that Pellucid wrote.

    Raises:
        UnreadableImage: no DICOM object, or a damaged one.
        InputError: an object of somebody else, one without its recipe, or with a changed one.
    """
    with reading(*DAMAGED):
        header = open_header(path)
        if "SOPClassUID" not in header:
            raise UnreadableImage("expected a DICOM object, got a file that holds none", DAMAGED[1])
        kind = _CLASSES.get(str(header.SOPClassUID))
        if kind is None:
            raise InputError(
                "expected an object that Pellucid writes (map, report, region, picture or state), got another",
                "give the object that was written beside the report, not its source",
            )
        return OurObject(path, kind, extract(header), header)


def read_map(ours: OurObject, like: hd.VolumeGeometry) -> ReadMap | None:
    """The map of a Parametric Map object in the order of its source's voxels.

    Args:
        ours: of kind ``MAP``.
        like: the geometry of the source.

    Returns:
        None where the object lies elsewhere: another shape, place or frame of reference.

    Raises:
        UnreadableImage: the pixels cannot be read.
    """
    _check_pixels(ours.dataset)
    with reading(*DAMAGED):
        image = hd.imread(ours.path)
        slope, intercept = _mapping(image)
        step = 0.0 if "FloatPixelData" in image else abs(slope)
        # highdicom 0.28.2 fails on values beyond the stated range: an edited map is to be told, not to be unreadable
        found = image.get_volume(dtype=np.float64 if step else np.float32, apply_real_world_transform=False)
        if (slope, intercept) != (1.0, 0.0):
            found = found.with_array(found.array * slope + intercept)
        return None if _elsewhere(found, like) else ReadMap(found.match_geometry(like), step)


def read_region(ours: OurObject, like: hd.VolumeGeometry | None) -> NDArray[np.bool_] | None:
    """The region of a Segmentation object in the order of its source's voxels; None where it lies elsewhere.

    Args:
        ours: of kind ``REGION``.
        like: the geometry of the source; None: a projection, whose pixels are the region's.

    Raises:
        UnreadableImage: the pixels cannot be read.
    """
    _check_pixels(ours.dataset)
    with reading(*DAMAGED):
        image = hd.seg.segread(ours.path)
        if like is None:
            return image.get_frames(apply_real_world_transform=False)[0] > 0
        found = image.get_volume(segment_numbers=[1], combine_segments=True)
        return None if _elsewhere(found, like) else found.match_geometry(like).array > 0


def read_report(ours: OurObject) -> ReadReport:
    """The numbers and verdicts of a report of ours.

    Args:
        ours: of kind ``REPORT``.

    Raises:
        UnreadableImage: the report's tree is damaged.
    """
    scores: dict[str, float | None] = {}
    numbers: dict[str, float] = {}
    rulings: dict[str, str] = {}
    with reading(*DAMAGED):
        for item in _items(ours.dataset):
            name = item.ConceptNameCodeSequence[0]
            if name.get("CodingSchemeDesignator") != PRIVATE or item.RelationshipType != "CONTAINS":
                continue
            spelled = [t for t in _texts(item) if t.partition(":")[0] == name.CodeMeaning.partition(":")[0]]
            if item.ValueType == "NUM":
                value = _number(item)
                numbers[str(name.CodeMeaning)] = value
                scores |= dict.fromkeys(spelled[:1], value)
            elif item.ValueType == "CODE":
                code = item.ConceptCodeSequence[0]
                if code.CodingSchemeDesignator == PRIVATE:
                    rulings[str(name.CodeMeaning)] = str(code.CodeMeaning)
                scores |= dict.fromkeys(spelled[:1], None)
        return ReadReport(scores, numbers, rulings)


def _check_pixels(header: Dataset) -> None:
    """Before anything is allocated or decoded: our objects are small, and plain or run-length coded."""
    with reading(*DAMAGED):
        sizes = (frame_count(header), int(header.Rows), int(header.Columns))
        syntax = header.file_meta.TransferSyntaxUID
    check_values(sizes, "an object with pixels")
    if syntax.is_encapsulated and syntax != RLELossless:
        raise UnreadableImage(
            f"expected pixels as they were written, got them coded as {syntax.name}",
            "fetch the object from the archive without compression",
        )


def _number(item: Dataset) -> float:
    """FD where it is there: the decimal string beside it has 16 characters only."""
    value: Any = item.MeasuredValueSequence[0]
    return float(value.get("FloatingPointValue", value.NumericValue))


def _mapping(image: Dataset) -> tuple[float, float]:
    """Slope and intercept of the stored values, shared by all frames."""
    mapping: Any = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    return float(mapping.RealWorldValueSlope), float(mapping.RealWorldValueIntercept)


def _elsewhere(found: hd.Volume, like: hd.VolumeGeometry) -> bool:
    """Whether it is not the same lattice, whatever the order of its axes."""
    if found.frame_of_reference_uid != like.frame_of_reference_uid:
        return True
    try:
        return not found.match_geometry(like).geometry_equal(like, tol=1e-4)
    except (RuntimeError, ValueError):  # so highdicom says that no order of the axes makes them equal
        return True


def _texts(item: Dataset) -> list[str]:
    """How it was measured, or why not, in words."""
    below = [part for part in item.get("ContentSequence", ()) if part.get("ValueType") == "TEXT"]
    return [str(p.TextValue) for p in below if p.ConceptNameCodeSequence[0].CodeMeaning in _SPELLED]


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """Every content item below the root."""
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from _items(item)


def _parts(dataset: Dataset) -> Iterator[Dataset]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from _parts(item)


def _descriptions(part: Dataset) -> list[str]:
    """Where each kind of object says how it was made."""
    said = [part.get(keyword) for keyword in ("DerivationDescription", "AlgorithmParameters", "TextValue")]
    return [text for one in said for text in (one if isinstance(one, MultiValue) else [one]) if isinstance(text, str)]


def _names_one(part: Dataset) -> bool:
    return "ReferencedSOPInstanceUID" in part
