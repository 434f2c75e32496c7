"""The Structured Report beside a map: what was asked, how it was answered, and every number that judges the answer."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pellucid.core.image import Modality
from pellucid.io.dicomfile import frame_count
from pellucid.io.guard import writing
from pellucid.io.objects.codes import (
    ARTIFICIAL_INTELLIGENCE,
    ATTRIBUTION_REGION,
    PRIVATE,
    VISUAL_EXPLANATION,
    explanation_code,
    unit_code,
)
from pellucid.io.objects.identity import stamp, uid_of
from pellucid.io.objects.marks import (
    MANUFACTURER,
    PRODUCT,
    RESEARCH,
    Made,
    canonical_parameters,
    equipment,
    mark,
    parameters,
    plain,
)
from pellucid.io.objects.outlines import Line, slices_of
from pellucid.io.objects.recipe import Recipe, embed

KIND = "sr"
SERIES_NUMBER = 9300
FIRST_LINE = "This report says nothing about whether the model is right. Research use: not for diagnosis."
TITLE = Code("report", PRIVATE, f"{RESEARCH}: visual explanation report")
UNDEFINED, UNMEASURED = codes.DCM.MeasurementFailure, codes.DCM.MeasurementNotAttempted  # CID 42: why no number
_MEANING, _VALUE = 64, 16  # characters of a code's meaning (LO) and value (SH)
_LINES = 400  # outlines of a region: beyond it the smallest are left out, and the report says how many
_UNITS = {
    "s": codes.UCUM.Second,
    "ms": codes.UCUM.Millisecond,
    "mm": codes.UCUM.Millimeter,
    "voxels": Code("{voxels}", "UCUM", "voxels"),
    "px": Code("{pixels}", "UCUM", "pixels"),
}
_PROCEDURES = {
    Modality.CT: codes.cid100.CTUnspecifiedBodyRegion,
    Modality.MRI: codes.cid100.MRIUnspecifiedBodyRegion,
    Modality.PET: codes.cid100.PETUnspecifiedBodyRegion,
    Modality.XRAY: codes.cid100.XRUnspecifiedBodyRegion,
}
_NOT_OF_A_REPORT = ("BodyPartExamined", "Laterality", "ImageLaterality", "AnatomicRegionSequence")
_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2014": "-", "\u00d7": "x", "\u00b1": "+-", "\u2019": "'"})
_CONTAINS = sr.RelationshipTypeValues.CONTAINS
_PROPERTY = sr.RelationshipTypeValues.HAS_PROPERTIES


@dataclass(frozen=True)
class Measured:
    """A number of the report, or the reason why there is none.

    Args:
        name: of the metric, or what the number is.
        value: None or NaN: undefined.
        unit: as the metric's card has it.
        reason: why it is undefined.
        spelled: the metric as the command takes it; empty: it is no metric.
        beside: what the number is read against, a few words each.
    """

    name: str
    value: float | None
    unit: str = "1"
    reason: str = ""
    spelled: str = ""
    beside: tuple[str, ...] = ()

    @property
    def defined(self) -> bool:
        """Whether there is a number."""
        return self.value is not None and isfinite(self.value)


@dataclass(frozen=True)
class Ruling:
    """Something that was checked, or was not.

    Args:
        name: of the check.
        state: how it went, in a word or two (``pass``, ``fail``, ``not measured``, ``applies``).
        words: one sentence that says why.
        value: the number it was decided by, where there is one.
    """

    name: str
    state: str
    words: str = ""
    value: float | None = None


@dataclass(frozen=True, eq=False)
class Told:
    """What the report says beside the recipe.

    Args:
        measured: numbers, the model's own first.
        rulings: verdicts.
        said: sentences by heading, never about the patient.
        region: "*space" of the image's grid, above the null; None where no null was measured or nothing may be shown.
        objects: made from the same explanation (map, segmentation, capture).
        predecessors: reports that this one replaces.
    """

    measured: tuple[Measured, ...] = ()
    rulings: tuple[Ruling, ...] = ()
    said: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    region: NDArray[np.bool_] | None = None
    objects: tuple[Dataset, ...] = ()
    predecessors: tuple[Dataset, ...] = ()


def structured_report(made: Made, recipe: Recipe, told: Told) -> Dataset:
    """A Comprehensive 3D SR (TID 1500), with its UIDs; preliminary and unverified, since nobody has read it.

    An image without frame of reference gets a Comprehensive SR, whose regions are on its pixels.

    Args:
        made: the explanation on its source.
        recipe: of how to make it again, kept inside with the scores.
        told: numbers, verdicts and sentences.

    Raises:
        UnwritableOutput: the source lacks what the object needs.
    """
    scores = {m.spelled: m.value if m.defined else None for m in told.measured if m.spelled}
    with writing("structured report"):
        kind = sr.Comprehensive3DSR if made.source.geometry is not None else sr.ComprehensiveSR
        dataset = kind(
            evidence=[*made.source.headers, *told.objects],
            content=_report(made, told, _outlines(told.region))[0],
            series_instance_uid="2.25.0",
            series_number=SERIES_NUMBER,
            sop_instance_uid="2.25.0",
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=PRODUCT,
            software_versions=equipment(made),
            device_serial_number=_own_version(made),
            is_complete=True,
            is_final=False,
            is_verified=False,
            previous_versions=told.predecessors or None,
            coding_schemes=[CodingSchemeIdentificationItem(PRIVATE, name="Pellucid", version=_own_version(made))],
            transfer_syntax_uid="1.2.840.10008.1.2.1",
        )
        mark(dataset, made, "report", image=False)
        for keyword in _NOT_OF_A_REPORT:
            if keyword in dataset:
                delattr(dataset, keyword)
        embed(dataset, recipe.scored(scores))
        return stamp(dataset, made.key, KIND)


def private(name: str) -> Code:
    """A code of our own for what the standard has none for: readable, and never longer than the standard allows.

    Example:
        >>> private("DeletionAUC").value, private("ModelParameterRandomization").value
        ('DeletionAUC', 'ModelPara-7258b7')
    """
    value = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-")
    if len(value) > _VALUE or value != name:
        value = f"{value[:9]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return Code(value, PRIVATE, _ascii(name)[:_MEANING])


def measure_unit(unit: str) -> Code:
    """A metric's unit as UCUM; what has no unit of its own is ``1``."""
    return _UNITS.get(unit) or unit_code(unit)


def _outlines(region: NDArray[np.bool_] | None) -> Sequence[tuple[int, Line]]:
    """Slice and border of every part of the region, the longest first."""
    return [] if region is None else slices_of(region if region.ndim == 3 else region[None])


def _report(made: Made, told: Told, lines: Sequence[tuple[int, Line]]) -> sr.MeasurementReport:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=uid_of("device", MANUFACTURER, *sorted(made.provenance.versions.values())),
        name=PRODUCT,
        manufacturer_name=MANUFACTURER,
        model_name=PRODUCT,
    )
    observer = sr.ObserverContext(codes.DCM.Device, device)
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=_PROCEDURES.get(made.source.image.modality, codes.cid100.ImagingProcedure),
        imaging_measurements=[_explanation(made, told, len(lines)), *_regions(made, lines[:_LINES])],
        title=TITLE,
    )


def _explanation(made: Made, told: Told, lines: int) -> sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501, with the row of TID 1410 that names the map (130401 DCM); highdicom 0.28.2 does not write that row."""
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(made, "explanation"),
        finding_type=explanation_code(made.card),
        algorithm_id=_algorithm(made),
        measurements=[_measurement(one) for one in told.measured if one.defined],
        source_images=[_source_image(made, place) for place in _places(made)],
    )
    content = group[0].ContentSequence
    content.insert(0, _text("Caution", FIRST_LINE))
    content.extend(sr.ContentSequence(_images(told.objects)))
    content.extend(sr.ContentSequence(_undefined(one) for one in told.measured if not one.defined))
    content.extend(sr.ContentSequence(_ruling(one) for one in told.rulings))
    left_out = f"{lines - _LINES} of {lines} outlines, the shortest, are left out"
    said = {**told.said, "Region": (left_out,)} if lines > _LINES else told.said
    content.extend(sr.ContentSequence(_text(heading, words) for heading, all_ in said.items() for words in all_))
    return group


def _algorithm(made: Made) -> sr.AlgorithmIdentification:
    """TID 4019; the first parameter holds them all, since some readers show only one."""
    return sr.AlgorithmIdentification(
        name=plain(made.name),
        version=plain(_own_version(made)),
        parameters=[canonical_parameters(made), *(f"{name}={value}" for name, value in parameters(made).items())],
        family=ARTIFICIAL_INTELLIGENCE,
        manufacturer=MANUFACTURER,
    )


def _own_version(made: Made) -> str:
    return made.provenance.versions.get("pellucid", "unknown")


def _tracking(made: Made, what: str) -> sr.TrackingIdentifier:
    return sr.TrackingIdentifier(uid=uid_of(made.key, what), identifier=f"{what}: {made.title}")


def _places(made: Made) -> Sequence[int]:
    """One of each instance: an enhanced object is named once."""
    return range(len(made.source.headers))


def _source_image(made: Made, place: int) -> sr.SourceImageForMeasurementGroup:
    header, source = made.source.headers[place], made.source
    several = frame_count(header) > 1
    frames = (list(source.frames) if len(source.headers) == 1 else [source.frames[place]]) if several else None
    return sr.SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID, referenced_frame_numbers=frames)


def _measurement(one: Measured) -> sr.Measurement:
    """TID 300: a number with its unit, and for a metric how it was measured."""
    how = None
    if one.spelled:
        said = [_ascii(one.spelled), *(_ascii(words) for words in one.beside)]
        how = sr.AlgorithmIdentification(name=plain(one.name), version="1", parameters=said)
    value = float(one.value or 0.0)
    return sr.Measurement(name=private(one.name), value=value, unit=measure_unit(one.unit), algorithm_id=how)


def _undefined(one: Measured) -> sr.CodeContentItem:
    """What could not be measured: the standard's code for that and the reason, and no number.

    A NUM without value would say the same, and highdicom 0.28.2 cannot open a report that holds one.
    """
    item = sr.CodeContentItem(private(one.name), UNDEFINED if one.spelled else UNMEASURED, _CONTAINS)
    reason = one.reason or "no reason was given"
    said = [f"{'undefined' if one.spelled else 'no number'}: {reason}", *filter(None, (one.spelled,))]
    item.ContentSequence = sr.ContentSequence([_text("Reason", words, _PROPERTY) for words in said])
    return item


def _ruling(one: Ruling) -> sr.CodeContentItem:
    item = sr.CodeContentItem(private(one.name), private(one.state), _CONTAINS)
    below: list[sr.ContentItem] = [_text("Reason", one.words, _PROPERTY)] if one.words else []
    if one.value is not None and isfinite(one.value):
        unit = unit_code("1")
        below.append(sr.NumContentItem(private("Decided by"), float(one.value), unit, None, _PROPERTY))
    if below:
        item.ContentSequence = sr.ContentSequence(below)
    return item


def _text(heading: str, words: str, how: sr.RelationshipTypeValues = _CONTAINS) -> sr.TextContentItem:
    return sr.TextContentItem(private(heading), _ascii(words), how)


def _ascii(words: str) -> str:
    """Signs that the report's character set may not know, by what they mean: a lost minus would turn a number over."""
    return plain(words.translate(_SIGNS))


def _images(objects: Sequence[Dataset]) -> Iterator[sr.ImageContentItem]:
    """The objects with pixels; the others are named in the evidence."""
    for one in objects:
        if "Rows" in one:
            yield sr.ImageContentItem(
                VISUAL_EXPLANATION, one.SOPClassUID, one.SOPInstanceUID, relationship_type=_CONTAINS
            )


def _regions(
    made: Made, lines: Sequence[tuple[int, Line]]
) -> list[sr.PlanarROIMeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations]:
    """The region above the null: in the frame of reference (TID 1411, 1410), or on the pixels (TID 1410)."""
    if not lines:
        return []
    if made.source.geometry is None:
        if not made.source.aligned:  # its slices are none of the instances', and there is no other place to draw on
            return []
        return [_flat_region(made, line, place, number) for number, (place, line) in enumerate(lines, 1)]
    frame = made.source.image.grid.frame_of_reference or ""
    placed = [_in_patient(made, place, line) for place, line in lines]
    if len(placed) == 1:
        return [
            sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=_tracking(made, "region"),
                finding_type=ATTRIBUTION_REGION,
                referenced_region=sr.ImageRegion3D("POLYGON", placed[0], frame),
            )
        ]
    series = sr.SourceSeriesForSegmentation(made.source.first.SeriesInstanceUID)
    return [
        sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=_tracking(made, "region"),
            finding_type=ATTRIBUTION_REGION,
            referenced_volume_surface=sr.VolumeSurface("POLYGON", placed, frame, source_series=series),
        )
    ]


def _flat_region(made: Made, line: Line, place: int, number: int) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """On its own slice; pixel (0, 0) of an SCOORD reaches from (0, 0) to (1, 1), columns first (PS3.3 C.18.6.1.2)."""
    source = made.source
    header = source.headers[place] if len(source.headers) > 1 else source.first
    frames = [source.frames[place]] if frame_count(header) > 1 else None
    image = sr.SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID, referenced_frame_numbers=frames)
    moved = (line + source.start)[:, ::-1]
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(made, f"region {number}"),
        finding_type=ATTRIBUTION_REGION,
        referenced_region=sr.ImageRegion("POLYLINE", moved, image),
    )


def _in_patient(made: Made, place: int, line: Line) -> NDArray[np.float64]:
    """Corners of pixels as millimeters: a voxel's index is its center."""
    grid = made.source.image.grid
    index = line - 0.5 if grid.rank == 2 else np.column_stack([np.full(len(line), float(place)), line - 0.5])
    return grid.world(index)
