"""The attribution map as a DICOM Parametric Map, on the geometry of its source and neutral: color is for others."""

from enum import StrEnum
from math import isfinite
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pellucid.core.errors import BadOption, NonFinite
from pellucid.io.guard import writing
from pellucid.io.objects.codes import concept, explanation_code, unit_code
from pellucid.io.objects.identity import stamp
from pellucid.io.objects.marks import (
    CREATOR,
    MANUFACTURER,
    PRODUCT,
    Made,
    canonical_parameters,
    content_label,
    equipment,
    keep_thickness,
    mark,
    plain,
)
from pellucid.io.objects.recipe import Recipe, embed

KIND = "pm"
SERIES_NUMBER = 9100
_LABEL, _LONG, _TEXT = 16, 64, 1024  # characters of SH, LO and ST
_TOP, _ZERO = 2**16 - 1, 2**15  # of 16 bits: the largest value, and the one that means zero in a signed map
_UNRECOGNIZABLE = "NO"  # only where the source says so: the map of a head can show its face


class Encoding(StrEnum):
    """How values are stored."""

    FLOAT32 = "float32"  # as they are
    UINT16 = "uint16"  # in 65535 equal steps, for readers without floats


def parametric_map(
    made: Made, placed: hd.Volume, recipe: Recipe | None = None, encoding: Encoding = Encoding.FLOAT32
) -> Dataset:
    """A map as a Parametric Map object, with its UIDs.

    Only a map that knows its place is taken: a bare array beside a list of sources is written in the order of the
    list, and a shuffled list scrambles it without a word. An image without a frame of reference gets none, since the
    standard demands one (PS3.3 A.75.3).

    Args:
        made: the explanation on its source.
        placed: ``Source.volume`` of the map.
        recipe: of how to make it again, kept inside; None: none.
        encoding: of the values.

    Raises:
        BadOption: a bare array.
        NonFinite: NaN or infinity in the map.
        UnwritableOutput: the source lacks what the object needs.
    """
    if not isinstance(placed, hd.Volume):
        raise BadOption(
            f"expected a map with its geometry, got a bare {type(placed).__name__}",
            "place it with source.volume(values)",
        )
    if not np.isfinite(placed.array).all():
        raise NonFinite("expected a finite map, got NaN or infinity", "explain again in float32, or another method")
    with writing("parametric map"):
        dataset = _written(made, placed, encoding)
        keep_thickness(dataset, placed)
        dataset.DerivationDescription = canonical_parameters(made)[:_TEXT]
        mark(dataset, made, "attribution map")
        if recipe is not None:
            embed(dataset, recipe)
        return stamp(dataset, made.key, KIND)


def quantum(placed: hd.Volume) -> float:
    """The step between two stored values of a 16-bit map: half of it is the largest error."""
    return _mapping(placed.array)[0]


def _mapping(values: NDArray[Any]) -> tuple[float, int]:
    """Slope, and the stored value that means zero: a zero of the map stays exactly zero."""
    low, high = float(values.min()), float(values.max())
    largest = max(-low, high)
    zero, steps = (_ZERO, _ZERO - 1) if low < 0 else (0, _TOP)
    return (largest / steps if largest > 0 else 1.0), zero


def _written(made: Made, placed: hd.Volume, encoding: Encoding) -> Dataset:
    array, slope, zero = placed.array, 1.0, 0
    if encoding is Encoding.UINT16:
        slope, zero = _mapping(array)
        stored = (np.rint(array / np.float32(slope)) + zero).clip(0, _TOP).astype(np.uint16)
    else:
        stored = np.ascontiguousarray(array, dtype=np.float32)
    code = explanation_code(made.card)
    unit = made.explanation.attribution.unit
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="ATTRIBUTION",
        lut_explanation=plain(f"{made.title}, {unit}")[:_LONG],
        unit=concept(unit_code(unit)),
        value_range=(0, _TOP) if encoding is Encoding.UINT16 else (float(array.min()), float(array.max())),
        slope=slope,
        intercept=-zero * slope,
        quantity_definition=concept(code),
    )
    return hd.pm.ParametricMap(
        source_images=made.source.headers,
        pixel_array=placed.with_array(stored),
        series_instance_uid="2.25.0",
        series_number=SERIES_NUMBER,
        sop_instance_uid="2.25.0",
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=PRODUCT,
        software_versions=equipment(made),
        device_serial_number=made.provenance.versions.get("pellucid", "unknown"),
        contains_recognizable_visual_features=made.source.first.get("RecognizableVisualFeatures") != _UNRECOGNIZABLE,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[_window(made, array, slope, zero)],
        content_description=plain(made.title)[:_LONG],
        content_creator_name=CREATOR,
        content_label=content_label(made.provenance.method),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )


def _window(made: Made, values: NDArray[Any], slope: float, zero: int) -> hd.VOILUTTransformation:
    """The fixed display scale of the method where it was measured, else this map's own; in stored values."""
    reference = made.explanation.reference
    known = reference.scale if reference is not None and isfinite(reference.scale) else 0.0
    limit = (known or max(abs(float(values.min())), abs(float(values.max()))) or 1.0) / slope
    signed = made.explanation.attribution.signed
    center, width = (zero, 2 * limit) if signed else (zero + limit / 2, limit)
    found = hd.VOILUTTransformation(float(f"{center:.6g}"), float(f"{width:.6g}"), None, "LINEAR_EXACT")
    found.WindowCenterWidthExplanation = "attribution"  # given to highdicom 0.28.2 it is written letter by letter
    return found
