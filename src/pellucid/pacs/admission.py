"""What may leave this machine: explanations that say what they are, and no image of the patient."""

from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.uid import (
    AdvancedBlendingPresentationStateStorage,
    ColorSoftcopyPresentationStateStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    PseudoColorSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from pellucid.core.errors import InputError
from pellucid.pacs.parcel import Parcel

MAKER, MARK = "Pellucid", "RESEARCH"
_CAPTURES = frozenset({SecondaryCaptureImageStorage, MultiFrameTrueColorSecondaryCaptureImageStorage})
_STATES = frozenset({
    GrayscaleSoftcopyPresentationStateStorage, PseudoColorSoftcopyPresentationStateStorage,
    ColorSoftcopyPresentationStateStorage, AdvancedBlendingPresentationStateStorage,
})  # fmt: skip
KINDS = _CAPTURES | _STATES | {
    ParametricMapStorage, SegmentationStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
}  # fmt: skip
_MADE_UP = ("SYNTHETIC", "PLANTED")
_SAYING = ("SeriesDescription", "ImageType", "ContentDescription", "DerivationDescription", "ImageComments")


def is_own(header: Dataset) -> bool:
    """Whether Pellucid made it."""
    return str(header.get("Manufacturer", "")) == MAKER


def admit(header: Dataset, name: str, any_maker: bool = False) -> None:
    """Refuse what may not be sent.

    An image that was explained is never sent, nor what shows a synthetic or planted finding: in an archive it could
    be read as the patient's. A map or mask that says to hold burned-in text is refused; a capture is let through,
    since it can only hold what its source, in the same archive, holds already.

    Args:
        header: of the object.
        name: to speak of it by.
        any_maker: let derived objects of other makers, and without our marks, through.

    Raises:
        InputError: it may not be sent; says why.
    """
    kind = header.get("SOPClassUID")
    if kind not in KINDS:
        raise InputError(
            f"expected an object that explains an image, {name} is none",
            "send what `pellucid explain --dicom` wrote: images themselves are never sent",
        )
    if str(header.get("SyntheticData", "")) == "YES" or any(_says(header, key, _MADE_UP) for key in _SAYING):
        raise InputError(
            f"{name} shows a synthetic or planted finding", "keep it out of archives: it could be read as the patient's"
        )
    if str(header.get("BurnedInAnnotation", "")) == "YES" and kind not in _CAPTURES:
        raise InputError(f"{name} says to hold burned-in text, which a map never does", "have its maker look at it")
    if any_maker:
        return
    if not is_own(header):
        raise InputError(f"{name} was not made by Pellucid", "give our own objects, or say --any")
    if not _says(header, "SeriesDescription", (MARK,)):
        raise InputError(f"{name} does not say that it is for research", "have it written again by `pellucid explain`")


def doubts(parcels: Iterable[Parcel]) -> list[str]:
    """What a sender should know: most viewers cannot show a parametric map, so that alone it is not seen."""
    by_study: dict[str, set[str]] = {}
    for each in parcels:
        by_study.setdefault(each.study, set()).add(each.sop_class)
    alone = sum(ParametricMapStorage in kinds and not kinds & (_CAPTURES | _STATES) for kinds in by_study.values())
    if not alone:
        return []
    return [
        f"{alone} {'study gets' if alone == 1 else 'studies get'} a parametric map without a capture or presentation "
        "state beside it: most viewers cannot show a parametric map"
    ]


def _says(header: Dataset, keyword: str, words: tuple[str, ...]) -> bool:
    value = str(header.get(keyword, "")).upper()
    return any(word in value for word in words)
