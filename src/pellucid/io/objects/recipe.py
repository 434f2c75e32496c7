"""Everything needed to make one explanation again, and to judge what comes out, in one canonical text."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes

from pellucid.core.errors import InputError, NonFinite
from pellucid.io.guard import reading

FORMAT, VERSION = "pellucid recipe", 1
MANUFACTURER = "Pellucid"
GROUP, CREATOR = 0x7051, "PELLUCID"  # an odd group is private (PS3.5 section 7.8.1)
_TEXT, _DIGEST = 0x01, 0x02
_MOST = 1024  # characters of Contribution Description (0018,A003), an ST
_AGAIN = "send the object again from where it was made"


@dataclass(frozen=True)
class MapFacts:
    """What is known of a map without having it.

    Args:
        digest: SHA-256 of shape and values (float32, little endian, on the image's grid); empty: there is no map.
        shape: of the image's grid.
        unit: of a value.
        low: smallest value.
        high: largest value.
        mean: over all voxels.
        total: sum of magnitudes.
        peak: index of the largest magnitude.

    Example:
        >>> MapFacts.of(np.eye(2, dtype=np.float32), "logit").total
        2.0
    """

    digest: str = ""
    shape: tuple[int, ...] = ()
    unit: str = ""
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    total: float = 0.0
    peak: tuple[int, ...] = ()

    @classmethod
    def of(cls, values: NDArray[np.floating[Any]], unit: str) -> "MapFacts":
        """The facts of a map on the image's grid; the statistics are summed in float64.

        Raises:
            NonFinite: the map holds NaN or infinity.
        """
        if not np.isfinite(values).all():
            raise NonFinite("expected a map of finite values, got NaN or infinity", "explain with another method")
        wide = values.astype(np.float64)
        peak = np.unravel_index(int(np.abs(wide).argmax()), values.shape)
        return cls(
            map_digest(values),
            tuple(values.shape),
            unit,
            float(wide.min()),
            float(wide.max()),
            float(wide.mean()),
            float(np.abs(wide).sum()),
            tuple(int(i) for i in peak),
        )


def map_digest(values: NDArray[np.floating[Any]]) -> str:
    """SHA-256 of the shape and the float32 values; minus zero counts as zero."""
    plain = np.ascontiguousarray(values, dtype="<f4") + np.float32(0)
    return hashlib.sha256(str(tuple(values.shape)).encode() + plain.tobytes()).hexdigest()


@dataclass(frozen=True)
class Recipe:
    """How one explanation was made, and nothing about who the patient is.

    Args:
        target: as the command takes it.
        method: as the command takes it, every parameter written out and the layer by its resolved name.
        fills: what hidden voxels show, as the command takes it.
        seed: of everything random.
        precision: of the forwards.
        engine: that evaluated the perturbed images.
        device: type of the device.
        crop: center of the box that was cut out, LPS millimeters; empty: the whole image was taken.
        override: explained although the model card excludes the image.
        input_digest: SHA-256 of the images.
        regions: SHA-256 of each region the case had, by name.
        background: SHA-256 of the cases it was compared with; empty: none.
        model: name and version.
        model_digest: SHA-256 of the weights.
        card_digest: SHA-256 of the model card.
        value: what the model gave the target at the image itself; None: not known.
        versions: of the software.
        made: the map that came out.
        scores: of the metrics as the command takes them; None: undefined. Only where they are written beside it.
        key: the content key, from which the objects' UIDs follow.

    Example:
        >>> recipe = Recipe("pneumonia", "Saliency:sign=dropped", seed=3)
        >>> Recipe.parse(recipe.text) == recipe
        True
    """

    target: str
    method: str
    fills: tuple[str, ...] = ()
    seed: int = 0
    precision: str = "float32"
    engine: str = "eager"
    device: str = "cpu"
    crop: tuple[float, ...] = ()
    override: bool = False
    input_digest: str = ""
    regions: Mapping[str, str] = field(default_factory=dict)
    background: str = ""
    model: str = ""
    model_digest: str = ""
    card_digest: str = ""
    value: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    made: MapFacts = field(default_factory=MapFacts)
    scores: Mapping[str, float | None] = field(default_factory=dict)
    key: str = ""

    @property
    def text(self) -> str:
        """Canonical JSON in ASCII: equal recipes have equal texts, whatever character set an object declares.

        Raises:
            NonFinite: a number is NaN or infinite.
        """
        plain = {"format": FORMAT, "version": VERSION} | asdict(self)
        try:
            return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        except ValueError:
            raise NonFinite(
                "expected finite numbers in a recipe, got NaN or infinity", "write an undefined score as None"
            ) from None

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def words(self) -> str:
        """The same for a person, in one line of ASCII."""
        said = {
            "target": self.target,
            "method": self.method,
            "fills": "; ".join(self.fills),
            "seed": self.seed,
            "precision": self.precision,
            "engine": self.engine,
            "model": self.model,
            "weights_sha256": self.model_digest,
            "card_sha256": self.card_digest,
            "input_sha256": self.input_digest,
            "map_sha256": self.made.digest,
            "software": " ".join(f"{name} {version}" for name, version in sorted(self.versions.items())),
        }
        line = "; ".join(f"{name}={value}" for name, value in said.items() if value != "")
        return "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in line)

    def scored(self, scores: Mapping[str, float | None]) -> "Recipe":
        """The same with the scores that are written beside the map."""
        return replace(self, scores=dict(scores))

    @classmethod
    def parse(cls, text: str) -> "Recipe":
        """Read the canonical text back.

        Raises:
            InputError: it is no recipe, or one of a newer version.
        """
        with reading("the recipe of an explanation", _AGAIN):
            plain = json.loads(text)
            if plain.pop("format") != FORMAT or plain.pop("version") != VERSION:
                raise InputError(
                    f"expected a {FORMAT} of version {VERSION}, got another", "read it with the Pellucid that wrote it"
                )
            made = MapFacts(**_tuples(MapFacts, plain.pop("made")))
            return cls(**_tuples(cls, plain), made=made)


def _tuples(kind: type[Recipe] | type[MapFacts], plain: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as tuples; a key that the class does not know, or a value of another type, is an error."""
    known = {f.name: f.type for f in fields(kind)}
    strict = {key: known[key] for key in plain if known.get(key) in (str, int, bool)}
    if set(plain) - set(known) or any(type(plain[key]) is not wanted for key, wanted in strict.items()):
        raise InputError("expected the fields of a recipe, got others", "read it with the Pellucid that wrote it")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}


def embed(dataset: Dataset, recipe: Recipe) -> None:
    """Write a recipe into a DICOM object: exactly as a private block, and readable in standard attributes.

    The block is declared safe (PS3.3 C.12.1.1.7), so that a de-identifier that honors this keeps it; the readable form
    is the description of a piece of contributing equipment, which every kind of object may hold (PS3.3 C.12.1).

    Args:
        dataset: changed; an earlier recipe in it is replaced.
        recipe: of the explanation that the object holds.
    """
    block = dataset.private_block(GROUP, CREATOR, create=True)
    for offset, kind, value in ((_TEXT, "UT", recipe.text), (_DIGEST, "LO", recipe.digest)):
        if offset in block:
            del block[offset]
        block.add_new(offset, kind, value)
    others = [item for item in dataset.get("PrivateDataElementCharacteristicsSequence", []) if not _is_ours(item)]
    dataset.PrivateDataElementCharacteristicsSequence = [*others, _safe_block()]
    others = [item for item in dataset.get("ContributingEquipmentSequence", []) if not _is_reader(item)]
    dataset.ContributingEquipmentSequence = [*others, _equipment(recipe)]


def extract(dataset: Dataset) -> Recipe:
    """The recipe in a DICOM object, exactly as ``embed`` wrote it.

    Raises:
        InputError: the object holds none, or one that was changed since.
    """
    found: dict[int, str] = {}
    with reading("an object with the recipe of an explanation", _AGAIN):
        if not dataset.group_dataset(GROUP):
            raise InputError(
                "expected an object that Pellucid wrote, this holds no recipe (a de-identifier may have removed it)",
                _AGAIN,
            )
        block = dataset.private_block(GROUP, CREATOR)
        for offset in (_TEXT, _DIGEST):
            value = block[offset].value
            found[offset] = (value.decode("ascii") if isinstance(value, bytes) else str(value)).rstrip(" \0")
    if hashlib.sha256(found[_TEXT].encode()).hexdigest() != found[_DIGEST]:
        raise InputError("expected the recipe as it was written, its text was changed (the SHA-256 differs)", _AGAIN)
    return Recipe.parse(found[_TEXT])


def _safe_block() -> Dataset:
    item = Dataset()
    item.PrivateGroupReference = GROUP
    item.PrivateCreatorReference = CREATOR
    item.BlockIdentifyingInformationStatus = "SAFE"
    return item


def _equipment(recipe: Recipe) -> Dataset:
    item, purpose = Dataset(), Dataset()
    code = codes.DCM.ProcessingEquipment
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = code.value, "DCM", code.meaning
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer = MANUFACTURER
    item.ContributionDescription = recipe.words[:_MOST]
    return item


def _is_ours(item: Dataset) -> bool:
    return item.get("PrivateGroupReference") == GROUP and item.get("PrivateCreatorReference") == CREATOR


def _is_reader(item: Dataset) -> bool:
    return item.get("Manufacturer") == MANUFACTURER and "ContributionDescription" in item
