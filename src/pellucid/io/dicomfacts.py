"""What the attributes of a DICOM image mean for a map: modality, unit, window, lengths, directions, traits."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Modality

_MODALITIES = {
    **dict.fromkeys(("CR", "DX", "MG", "XA", "RF", "IO", "PX", "RG", "BTO"), Modality.XRAY),
    "CT": Modality.CT,
    "MR": Modality.MRI,
    "PT": Modality.PET,
    **dict.fromkeys(("US", "IVUS"), Modality.ULTRASOUND),
    "OP": Modality.FUNDUS,
    **dict.fromkeys(("OPT", "OCT", "IVOCT"), Modality.OCT),
    "ES": Modality.ENDOSCOPY,
    **dict.fromkeys(("SM", "GM"), Modality.HISTOLOGY),
    "DMS": Modality.DERMOSCOPY,
}
_MEASURED = frozenset({"CT", "MR", "PT", "NM"})  # values are signals: how they are displayed does not change them
_PET_UNITS = {"BQML": "Bq/ml", "GML": "g/ml", "CNTS": "counts", "CPS": "counts/s", "CM2ML": "cm2/ml", "PCNT": "%"}
_SUV_TYPES = {"BW": "SUVbw", "LBMJANMA": "SUVlbm", "LBMJAMES128": "SUVlbm-james"}  # PS3.3 C.8.9.1: BW where absent
_CODES = {
    "dicom_modality": ("Modality",),
    "body_part": ("BodyPartExamined",),
    "view": ("ViewPosition",),
    "laterality": ("ImageLaterality", "FrameLaterality", "Laterality"),
    "kernel": ("ConvolutionKernel",),
    "manufacturer": ("Manufacturer",),
    "device": ("ManufacturerModelName",),
    "patient_position": ("PatientPosition",),
    "scanning_sequence": ("ScanningSequence",),
    "presentation_intent": ("PresentationIntentType",),
    "burned_in": ("BurnedInAnnotation",),
    "conversion": ("ConversionType",),
}
_NUMBERS = {"kvp": "KVP", "field_strength_t": "MagneticFieldStrength", "thickness_mm": "SliceThickness"}
_PAIRS = ("LR", "AP", "HF")
_WRITTEN_ON = frozenset({"US", "IVUS", "ES", "XC", "GM", "OT", "DOC"})  # screens and photographs
_OLDEST = 90.0  # an age above 89 can identify somebody (HIPAA Safe Harbor)
_CENTIMETERS, _TISSUE = 3, 1  # PS3.3 C.8.5.5.1.15 and C.8.5.5.1.1
_SAME = 1e-3


def find(header: Dataset, keyword: str) -> Any:
    """An attribute at the top, or in the functional groups of an enhanced object (shared, else of frame 1)."""
    value = header.get(keyword)
    if value is not None and value != "":
        return value
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (header.get(name) or ())[:1]:
            for element in group:
                if element.VR == "SQ" and element.value and element.value[0].get(keyword) not in (None, ""):
                    return element.value[0].get(keyword)
    return None


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Exactly ``count`` finite numbers, or None."""
    if value is None or value == "":
        return None
    parts = list(value) if np.iterable(value) and not isinstance(value, str) else [value]
    found = tuple(float(v) for v in parts)
    return found if len(found) == count and bool(np.isfinite(found).all()) else None


def spacing(header: Dataset, keyword: str) -> tuple[float, float] | None:
    """Row and column spacing in mm, or None where it is missing or not positive (zeros occur)."""
    found = numbers(find(header, keyword), 2)
    return (found[0], found[1]) if found is not None and min(found) > 0 else None


def modality_of(header: Dataset) -> Modality:
    """The kind of image."""
    return _MODALITIES.get(str(header.get("Modality", "")), Modality.UNKNOWN)


def is_measured(header: Dataset) -> bool:
    """Whether values are physical, so that MONOCHROME1 is only a wish about their display."""
    return str(header.get("Modality", "")) in _MEASURED


def unit_of(header: Dataset) -> str:
    """Unit of the values after the modality transform."""
    kind = str(header.get("Modality", ""))
    if kind == "PT" and find(header, "Units") == "GML":
        return _SUV_TYPES.get(str(find(header, "SUVType") or "BW"), "g/ml")
    if kind == "PT":
        return _PET_UNITS.get(str(find(header, "Units") or ""), "a.u.")
    if kind != "CT" or find(header, "RescaleIntercept") is None:
        return "a.u."
    return "HU" if str(find(header, "RescaleType") or "HU") == "HU" else "a.u."


def window_of(header: Dataset) -> tuple[float, float] | None:
    """The values shown as black and white by the first window of the header (PS3.3 C.11.2.1.2), or its VOI table."""
    center, width = (_first(find(header, key)) for key in ("WindowCenter", "WindowWidth"))
    if center is not None and width is not None and width > 0:
        exact = str(find(header, "VOILUTFunction") or "LINEAR") != "LINEAR"
        if exact:
            return center - width / 2, center + width / 2
        return (center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2) if width > 1 else None
    table = find(header, "VOILUTSequence")
    described = numbers(table[0].get("LUTDescriptor"), 3) if table else None
    if described is None or described[0] < 2:
        return None
    return described[1], described[1] + described[0] - 1


def plane_grid(header: Dataset, shape: tuple[int, int]) -> Grid:
    """The grid of an image without a position in the patient: calibrated as far as the standard says.

    ImagerPixelSpacing is the detector plane; PixelSpacing beside it means the same while equal, and was corrected
    where it differs (PS3.3 10.7.1.1); FIDUCIAL was measured, GEOMETRY assumed (10.7.1.2).
    """
    steps, calibration = _calibrated(header)
    return Grid.regular(shape, steps, calibration if steps else Calibration.NONE, letters=_letters(header))


def traits_of(header: Dataset) -> dict[str, str | float]:
    """Technical facts by the names that a card's ``applies_to`` uses; nothing that says who the patient is."""
    traits: dict[str, str | float] = {"format": "DICOM"}
    for name, keywords in _CODES.items():
        value = next((v for v in (_text(find(header, k)) for k in keywords) if v), "")
        if value:
            traits[name] = value
    for name, keyword in _NUMBERS.items():
        value = _first(find(header, keyword))
        if value is not None:
            traits[name] = value
    traits.update(_derived(header))
    return traits


def burned_in_words(traits: Mapping[str, str | float]) -> str:
    """A warning where the pixels of a DICOM image may name the patient; empty: nothing speaks for it.

    It reads what the header says and no pixels: a header that says NO is believed.

    Args:
        traits: of the image.

    Example:
        >>> burned_in_words({"format": "DICOM", "dicom_modality": "US"})[:45]
        'burned-in text is common in images like this '
    """
    if traits.get("format") != "DICOM" or traits.get("burned_in") == "NO":
        return ""
    if traits.get("burned_in") == "YES":
        return "text is burned into the pixels and may name the patient: look before a picture leaves the site"
    if traits.get("dicom_modality") in _WRITTEN_ON or "conversion" in traits:
        return (
            "burned-in text is common in images like this one, and its header does not say that there is none: it may "
            "name the patient, so look before a picture leaves the site"
        )
    return ""


def _derived(header: Dataset) -> Mapping[str, str | float]:
    found: dict[str, str | float] = {}
    kinds = header.get("ImageType") or ()
    if not isinstance(kinds, str) and len(kinds) > 0:
        found["image_type"] = "/".join(_text(k) for k in list(kinds)[:3])
    steps = _first(find(header, "SpacingBetweenSlices")) or _first(find(header, "SliceThickness"))
    if steps:
        found["slice_mm"] = abs(steps)
    if find(header, "ContrastBolusAgent"):
        found["contrast_agent"] = "yes"
    lossy = str(header.get("LossyImageCompression", ""))
    if lossy in ("00", "01"):
        found["lossy"] = "yes" if lossy == "01" else "no"
    years = age_of(header)
    if years is not None:
        found["age"] = min(round(years, 2), _OLDEST)
    return found


def age_of(header: Dataset) -> float | None:
    """Years, where the header states an age."""
    age = re.fullmatch(r"(\d{3})([DWMY])", str(header.get("PatientAge", "")))
    return int(age[1]) / {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[age[2]] if age else None


def values_of(value: Any) -> list[Any]:
    """The values of an attribute of one or several; none where it is empty."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) or not np.iterable(value) else list(value)


def _calibrated(header: Dataset) -> tuple[tuple[float, float] | None, Calibration]:
    regions = header.get("SequenceOfUltrasoundRegions")
    if regions:
        found = _ultrasound(regions)
        return found, Calibration.CALIBRATED if found else Calibration.NONE
    detector = spacing(header, "ImagerPixelSpacing")
    scanned = spacing(header, "NominalScannedPixelSpacing")
    own = spacing(header, "PixelSpacing")
    if own is None:
        return (detector, Calibration.DETECTOR) if detector else (scanned, Calibration.NOMINAL)
    kind = str(header.get("PixelSpacingCalibrationType", ""))
    if kind == "FIDUCIAL" or is_measured(header):
        return own, Calibration.CALIBRATED
    if kind == "GEOMETRY":
        return own, Calibration.NOMINAL  # right at one assumed depth only
    if detector is not None and np.allclose(own, detector, rtol=_SAME):
        return detector, Calibration.DETECTOR
    return own, Calibration.NOMINAL


def _ultrasound(regions: Any) -> tuple[float, float] | None:
    """Row and column spacing in mm where all tissue regions of the screen agree on one."""
    steps = {
        (round(abs(float(r.PhysicalDeltaY)) * 10, 9), round(abs(float(r.PhysicalDeltaX)) * 10, 9))
        for r in regions
        if r.get("RegionSpatialFormat") == _TISSUE
        and r.get("PhysicalUnitsXDirection") == _CENTIMETERS
        and r.get("PhysicalUnitsYDirection") == _CENTIMETERS
    }
    found = next(iter(steps)) if len(steps) == 1 else None
    return found if found is not None and min(found) > 0 and bool(np.isfinite(found).all()) else None


def _letters(header: Dataset) -> tuple[str, str] | None:
    """PatientOrientation in tensor axis order: DICOM names the direction of growing columns first."""
    stated = header.get("PatientOrientation")
    if not stated or isinstance(stated, str) or len(stated) != 2:
        return None
    if header.get("AnatomicalOrientationType") == "QUADRUPED":  # other letters (PS3.3 C.7.6.1.1.1)
        return None
    # the first letter is the main direction: PF is toward the back, a little to the feet
    across, down = (str(s)[:1] for s in stated)
    pairs = [next((p for p in _PAIRS if letter and letter in p), None) for letter in (across, down)]
    return (down, across) if None not in pairs and pairs[0] != pairs[1] else None


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    single = value[0] if not isinstance(value, str) and np.iterable(value) else value
    number = float(single)
    return number if np.isfinite(number) else None


def _text(value: Any) -> str:
    """A code or short name on one line."""
    if value is None:
        return ""
    single = value[0] if not isinstance(value, str) and np.iterable(value) and len(value) else value
    return re.sub(r"[^\x20-\x7e]", "", str(single)).strip()[:64]
