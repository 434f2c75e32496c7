"""``model.toml`` read and checked, and the question whether the model it describes may be used on an image."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isinf
from pathlib import Path
from typing import Literal, Protocol

from pydantic import TypeAdapter, ValidationError

from pellucid.core.errors import BadCard
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Modality
from pellucid.io.cardrules import check_rules, explain_schema_errors
from pellucid.io.cardschema import TABLES, AppliesTo, ModelCard

CARD_NAME = "model.toml"
Verdict = Literal["applies", "unknown", "excluded"]
_TRAITS = {  # key of the card: traits of an image that may say it
    "body_part": ("body_part",),
    "view": ("view",),
    "laterality": ("laterality",),
    "contrast": ("contrast", "contrast_agent"),
    "kernel": ("kernel",),
    "sequence": ("sequence", "scanning_sequence"),
    "photometric": ("photometric",),
}


_UNSTATED = ("a.u.", "[0,1]")
FACTORS = {"SUVbw": "suv_bw", "SUVlbm": "suv_lbm", "SUVlbm-james": "suv_lbm_james"}  # unit: trait that leads to it

_SCHEMA = TypeAdapter(ModelCard)


def read_card(path: Path) -> ModelCard:
    """Read and check a model card.

    Raises:
        BadCard: not TOML, a key that is unknown, missing, of the wrong kind, or that contradicts another.
    """
    return parse_card(_text(path))


def parse_card(text: str) -> ModelCard:
    """A model card from its text; errors as ``read_card``."""
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadCard(f"{CARD_NAME} is not TOML: {error}", "correct this line (text stands in quotes)") from error
    try:
        # through JSON, where a list may become a tuple although types are checked strictly; TOML dates become text
        card = _SCHEMA.validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        raise explain_schema_errors(error.errors(), raw, TABLES) from error
    check_rules(card, raw)
    return card


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BadCard(f"there is no model card {path.name}", f"write {CARD_NAME} (docs/model_card.md)") from error
    except (UnicodeDecodeError, OSError) as error:
        raise BadCard(f"{path.name} cannot be read as text: {error}", "save it as UTF-8") from error


class Described(Protocol):
    """What a card is compared with: an image, or a series of which only the headers were read."""

    @property
    def grid(self) -> Grid:
        """Shape, and lengths where there are any."""
        ...

    @property
    def modality(self) -> Modality:
        """The kind of image."""
        ...

    @property
    def unit(self) -> str:
        """Of the values."""
        ...

    @property
    def traits(self) -> Mapping[str, str | float]:
        """Technical facts."""
        ...


@dataclass(frozen=True)
class Applicability:
    """Whether the card covers an image.

    Args:
        verdict: ``applies``; ``excluded`` where one trait contradicts the card; else ``unknown`` where one is missing.
        words: why, in one sentence for the first line of the report.
    """

    verdict: Verdict
    words: str


@dataclass(frozen=True)
class _Finding:
    verdict: Verdict
    words: str


def check_applicability(card: ModelCard, image: Described) -> Applicability:
    """Compare an image with what the model was made for; nothing is guessed.

    A trait that contradicts the card excludes the image; one that the image does not state leaves the answer open.
    Bad at: what the file's header gets wrong, and everything the card does not list.
    """
    limits = card.applies_to
    findings = [
        *_modality(card, image),
        *_rank(card, image),
        *_unit(card, image),
        *(f for key in _TRAITS for f in _listed(key, getattr(limits, key), image)),
        *_age(limits, image),
        *_slices(limits, image),
        *_extent(limits, image),
        *_size(limits, image),
    ]
    for verdict, opening in (
        ("excluded", "the model is not for this image"),
        ("unknown", "not known whether the model is for this image"),
    ):
        reasons = [f.words for f in findings if f.verdict == verdict]
        if reasons:
            return Applicability(verdict, f"{opening}: {'; '.join(reasons)}")
    return Applicability("applies", "the image is of the kind that the model card names")


def _modality(card: ModelCard, image: Described) -> Iterator[_Finding]:
    allowed = tuple(m for m in card.modality if m is not Modality.UNKNOWN)
    named = " or ".join(allowed)
    if not allowed:
        yield _Finding("unknown", "the card names no modality")
    elif image.modality is Modality.UNKNOWN:
        yield _Finding("unknown", f"the file does not state its modality (the model is for {named})")
    elif image.modality not in allowed:
        yield _Finding("excluded", f"the modality is {image.modality}, the model is for {named}")


def _rank(card: ModelCard, image: Described) -> Iterator[_Finding]:
    allowed = card.applies_to.rank or tuple(s.rank for s in card.inputs if s.rank)
    if image.grid.rank not in allowed:
        named = " or ".join(f"{r}-D" for r in dict.fromkeys(allowed))
        yield _Finding("excluded", f"the image is {image.grid.rank}-D, the model is for {named}")


def _unit(card: ModelCard, image: Described) -> Iterator[_Finding]:
    """What can be brought into a unit that an input takes counts as being in it: see ``suv``."""
    allowed = tuple(dict.fromkeys(spec.unit for spec in card.inputs if spec.unit is not None))
    can = {unit for unit, trait in FACTORS.items() if trait in image.traits}
    if not allowed or image.unit in allowed or can & set(allowed):
        return
    named = " or ".join(allowed)
    if image.unit in _UNSTATED:
        yield _Finding("unknown", f"the unit of the values is not stated (the model takes {named})")
        return
    why = image.traits.get("suv_refused")
    reason = f", and SUV cannot be worked out ({why})" if why else ""
    yield _Finding("excluded", f"the values are {image.unit}{reason}, the model takes {named}")


def _listed(key: str, allowed: tuple[str, ...], image: Described) -> Iterator[_Finding]:
    if not allowed:
        return
    name, named = key.replace("_", " "), " or ".join(allowed)
    value = next((str(image.traits[t]).strip() for t in _TRAITS[key] if t in image.traits), "")
    if not value:
        yield _Finding("unknown", f"{name} is not stated (the model is for {named})")
    elif value.casefold() not in {a.strip().casefold() for a in allowed}:
        yield _Finding("excluded", f"{name} is {value}, the model is for {named}")


def _age(limits: AppliesTo, image: Described) -> Iterator[_Finding]:
    if limits.age is None:
        return
    value = image.traits.get("age")
    yield from _within("age", value if isinstance(value, int | float) else None, limits.age, "years")


def _slices(limits: AppliesTo, image: Described) -> Iterator[_Finding]:
    if limits.slice_mm is None:
        return
    value = image.traits.get("slice_mm")
    if not isinstance(value, int | float):
        # without a header that says it, the coarsest step of a volume is the distance of its slices
        known = image.grid.rank == 3 and image.grid.calibration is not Calibration.NONE
        value = max(image.grid.spacing) if known else None
    yield from _within("distance of slices", value, limits.slice_mm, "mm")


def _extent(limits: AppliesTo, image: Described) -> Iterator[_Finding]:
    if limits.max_extent_mm is None and limits.min_extent_mm is None:
        return
    grid = image.grid
    known = grid.calibration is not Calibration.NONE
    value = max(n * s for n, s in zip(grid.shape, grid.spacing, strict=True)) if known else None
    span = (limits.min_extent_mm or 0.0, limits.max_extent_mm or float("inf"))
    yield from _within("longest side of the field of view", value, span, "mm")


def _size(limits: AppliesTo, image: Described) -> Iterator[_Finding]:
    if limits.min_size is not None and min(image.grid.shape) < limits.min_size:
        shape = " x ".join(map(str, image.grid.shape))
        yield _Finding("excluded", f"the image has {shape} voxels, the model needs {limits.min_size} or more a side")


def _within(name: str, value: float | None, span: tuple[float, float], unit: str) -> Iterator[_Finding]:
    low, high = span
    if isinf(high):
        named = f"{low:g} {unit} or more"
    else:
        named = f"up to {high:g} {unit}" if low <= 0 else f"{low:g} to {high:g} {unit}"
    if value is None:
        yield _Finding("unknown", f"{name} is not stated (the model is for {named})")
    elif not low <= value <= high:
        yield _Finding("excluded", f"{name} is {value:g} {unit}, the model is for {named}")
