"""The region above a map's null as a binary Segmentation, when asked for: a region of the model, not of the body."""

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from pellucid.core.errors import BadOption, BadRegion
from pellucid.io.dicomfile import frame_count
from pellucid.io.guard import writing
from pellucid.io.objects.codes import ATTRIBUTION_REGION, concept
from pellucid.io.objects.identity import stamp
from pellucid.io.objects.marks import (
    CREATOR,
    MANUFACTURER,
    PRODUCT,
    Made,
    algorithm,
    content_label,
    equipment,
    keep_thickness,
    mark,
    plain,
)
from pellucid.io.objects.recipe import Recipe, embed
from pellucid.io.objects.source import Flat

KIND = "seg"
SERIES_NUMBER = 9200
LABEL = "model attribution region"
_LONG = 64  # characters of LO
_HALF_A_PLACE = ("FrameOfReferenceUID", "PositionReferenceIndicator", "PixelSpacing", "SpacingBetweenSlices")


def segmentation(made: Made, placed: hd.Volume | Flat, recipe: Recipe | None = None) -> Dataset:
    """A region as a binary Segmentation object, with its UIDs.

    Its one segment is called ``model attribution region``, with a private code, since the standard's codes name
    lesions and anatomy, and this is neither. It carries no measurement of its size.

    Args:
        made: the explanation on its source.
        placed: the region, placed by ``Source.volume`` or ``Source.flat_map``.
        recipe: of how to make it again, kept inside; None: none.

    Raises:
        BadOption: a bare array, or one frame of several without a frame of reference.
        BadRegion: the region is empty.
        UnwritableOutput: the source lacks what the object needs.
    """
    if not isinstance(placed, hd.Volume | Flat):
        raise BadOption(
            f"expected a region with its geometry, got a bare {type(placed).__name__}",
            "place it with source.volume(mask), or source.flat_map(mask) for a projection",
        )
    _check_one_frame(made)
    if not placed.array.any():
        raise BadRegion("expected a region with at least one voxel, got an empty one", "leave the segmentation out")
    with writing("segmentation"):
        dataset = _written(made, placed)
        if isinstance(placed, hd.Volume):
            keep_thickness(dataset, placed)
        mark(dataset, made, LABEL)
        if recipe is not None:
            embed(dataset, recipe)
        return stamp(dataset, made.key, KIND)


def _check_one_frame(made: Made) -> None:
    """An object of a whole loop or run would say of every frame what holds for one."""
    count = frame_count(made.source.first)
    if made.source.flat and count > 1:
        raise BadOption(
            f"expected a single-frame source for a segmentation without a frame of reference, got {count} frames",
            "write the objects that name their frame (secondary capture, presentation state)",
        )


def _on_pixels(header: Dataset) -> Dataset:
    """A header without a frame that has no position, and without lengths that highdicom would repeat by halves."""
    plain = Dataset()
    plain.update({element.tag: element for element in header if element.keyword not in _HALF_A_PLACE})
    plain.file_meta = header.file_meta
    return plain


def _written(made: Made, placed: hd.Volume | Flat) -> Dataset:
    stored, flat = placed.array.astype(np.uint8), isinstance(placed, Flat)
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=LABEL,
        segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
        segmented_property_type=concept(ATTRIBUTION_REGION),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm(made),
    )
    return hd.seg.Segmentation(
        source_images=[_on_pixels(made.source.first)] if flat else made.source.headers,
        pixel_array=stored[None] if flat else placed.with_array(stored),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        series_instance_uid="2.25.0",
        series_number=SERIES_NUMBER,
        sop_instance_uid="2.25.0",
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=PRODUCT,
        software_versions=equipment(made),
        device_serial_number=made.provenance.versions.get("pellucid", "unknown"),
        content_description=plain(made.title)[:_LONG],
        content_creator_name=CREATOR,
        content_label=content_label("attribution region"),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )
