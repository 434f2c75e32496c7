"""What every object says of itself: research, who made it and how, and where on the body its source was taken."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from pellucid.core.card import Card
from pellucid.core.explanation import Explanation, Provenance
from pellucid.io.objects.codes import ARTIFICIAL_INTELLIGENCE, UNPAIRED
from pellucid.io.objects.identity import content_key
from pellucid.io.objects.source import Source

RESEARCH = "RESEARCH - NOT FOR DIAGNOSIS"
MANUFACTURER, PRODUCT = "Pellucid", "Pellucid"
CREATOR = "Pellucid^"  # one component alone is no person's name to a validator
_LONG, _TEXT, _SHORT = 64, 1024, 16  # characters of LO, ST and CS


@dataclass(frozen=True, eq=False)
class Made:
    """An explanation on its source: what each kind of object is made from.

    Args:
        explanation: whose answer is a map.
        card: of its method.
        source: the instances that were explained.
        name: of the method with its parameters, as it is told apart from others of the case.
    """

    explanation: Explanation
    card: Card
    source: Source
    name: str

    @property
    def provenance(self) -> Provenance:
        """How the map was made."""
        return self.explanation.provenance

    @cached_property
    def key(self) -> str:
        """The content key; see ``identity.content_key``."""
        return content_key(self.provenance)

    @property
    def title(self) -> str:
        """``GradCAM of pneumonia``."""
        return plain(f"{self.name} of {self.provenance.target}")


def mark(dataset: Dataset, made: Made, what: str, image: bool = True) -> Dataset:
    """Put the marks on an object before it gets its UIDs (``identity.stamp``).

    RESEARCH in the series description, and as content qualification of an image; the source's body part and
    laterality, without which a validator misses a side; the source's time as time of the content (ADR 14); a neutral
    patient orientation of a projection.

    Args:
        dataset: of any class; changed in place.
        made: the explanation on its source.
        what: the object is, such as ``attribution map``.
        image: whether it has pixels.

    Returns:
        The same data set.
    """
    source, moment = made.source.first, made.source.moment
    dataset.SeriesDescription = series_description(what, made)
    if image:
        dataset.ContentQualification = "RESEARCH"
    if "ContentDate" in dataset or image:
        dataset.ContentDate, dataset.ContentTime = moment
    for keyword in ("BodyPartExamined", "AnatomicRegionSequence"):
        if source.get(keyword):
            dataset[keyword] = source[keyword]
    _side(dataset, source)
    if image and made.source.flat and "PatientOrientation" not in dataset:
        dataset.PatientOrientation = source.get("PatientOrientation") or ""  # empty says unknown (PS3.3 C.7.6.1.1.1)
    return dataset


def _side(dataset: Dataset, source: Dataset) -> None:
    """The side of the body as the image's own laterality, which is right for every class of image (PS3.3 C.7.6.1).

    Where nobody said it, the series' laterality must be empty unless the body part has no side (C.7.3.1); a
    segmentation has none at all.
    """
    side = source.get("ImageLaterality") or source.get("Laterality")
    if "Laterality" in dataset:
        del dataset.Laterality
    if side:
        dataset.ImageLaterality = side
    elif source.get("BodyPartExamined") not in UNPAIRED and dataset.SOPClassUID != SegmentationStorage:
        dataset.Laterality = ""


def keep_thickness(dataset: Dataset, placed: hd.Volume) -> None:
    """Give a single slice its own thickness as distance: highdicom 0.28.2 writes 1 mm, and reads another place back."""
    if placed.spatial_shape[0] == 1:
        measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.SpacingBetweenSlices = measures.SliceThickness


def series_description(what: str, made: Made) -> str:
    """``RESEARCH - NOT FOR DIAGNOSIS: attribution map GradCAM``, as long as the standard allows."""
    return plain(f"{RESEARCH}: {what} {made.name}")[:_LONG].rstrip()


def content_label(text: str) -> str:
    """A code string: capitals, digits, space and underscore.

    Example:
        >>> content_label("Grad-CAM++ of pneumonia")
        'GRAD_CAM_OF_PNEU'
    """
    return re.sub(r"[^A-Z0-9]+", "_", text.upper()).strip("_")[:_SHORT].rstrip("_") or "MAP"


def plain(text: str) -> str:
    """Printable ASCII without the backslash, which parts values in DICOM; the objects' character set may know no more.

    Example:
        >>> plain("5 µ")
        '5 ?'
    """
    return re.sub(r"[^\x20-\x7e]", "?", text.replace("\\", "/"))


def equipment(made: Made) -> tuple[str, ...]:
    """Versions of the software that made the object."""
    own = made.provenance.versions
    told = [f"{name} {own[name]}" for name in ("pellucid", "torch") if name in own]
    return (*told, f"highdicom {version('highdicom')}")


def parameters(made: Made) -> Mapping[str, str]:
    """How the map was made, by name: the same in every object; commas and equal signs of values are replaced."""
    p = made.provenance
    found = {
        "explainer": p.method,
        "target": p.target,
        "layer": p.layer,
        "infill": p.infill,
        **{f"setting.{name}": value for name, value in sorted(p.plain()["settings"].items())},
        "seed": p.seed,
        "precision": p.precision,
        "engine": p.engine,
        "unit": made.explanation.attribution.unit,
        "model": p.model,
        "weights_sha256": p.model_digest,
        "card_sha256": p.card_digest,
        "input_sha256": p.input_digest,
        "content_key": made.key,
    }
    kept = {name: value for name, value in found.items() if value is not None and value != ""}
    return {name: plain(str(value)).replace(",", ";").replace("=", ":") for name, value in kept.items()}


def canonical_parameters(made: Made) -> str:
    """All parameters in one string: some readers show only the first of several."""
    return ",".join(f"{name}={value}" for name, value in parameters(made).items())


def algorithm(made: Made) -> hd.AlgorithmIdentificationSequence:
    """The algorithm identification of SEG and SR: family, name, version of Pellucid, and every parameter."""
    return hd.AlgorithmIdentificationSequence(
        name=plain(made.provenance.method)[:_LONG],
        family=ARTIFICIAL_INTELLIGENCE,
        version=plain(str(made.provenance.versions.get("pellucid", "unknown")))[:_LONG],
        source=MANUFACTURER,
        parameters=dict(parameters(made)),
    )
