"""What is known of each modality: fills that hide, fills that lie, artifacts to watch."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pellucid.core.image import Modality
from pellucid.core.infill import Infill, parse_infill


@dataclass(frozen=True)
class ModalityGuide:
    """Rules for one modality.

    Args:
        modality: it is for.
        infills: default and second fill.
        lies: which fills look like disease.
        watch: shortcuts and artifacts.
        noise: acquisition-realistic perturbations.
        source_status: ``verified``, ``interpreted`` or ``unverified``.
    """

    modality: Modality
    infills: tuple[Infill, ...]
    lies: str
    watch: tuple[str, ...]
    noise: str
    source_status: str


@cache
def _table() -> dict[str, dict[str, object]]:
    return tomllib.loads(resources.files("pellucid.guide").joinpath("modality.toml").read_text("utf-8"))


def modality_guide(modality: Modality) -> ModalityGuide:
    """The rules for a modality.

    Example:
        >>> modality_guide(Modality.CT).lies
        '0 HU in lung is a nodule, -1000 HU is free air, blurred brain is edema'
    """
    table = _table()
    entry = dict(table[str(modality)])
    return ModalityGuide(
        modality,
        tuple(parse_infill(text) for text in entry["fills"]),
        str(entry["lies"]),
        tuple(entry["watch"]),
        str(entry["noise"]),
        str(table["source_status"]),
    )
