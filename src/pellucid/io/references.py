"""``references.json`` beside a model card: how large the maps of each method usually are for this model."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pellucid.core.atomic import write_text
from pellucid.core.errors import BadCard
from pellucid.core.explanation import Reference

REFERENCES_NAME = "references.json"
References = Mapping[str, Mapping[str, Reference]]  # by method, then by label of the target

_WEIGHTS = "weights"  # the one entry that is no method: SHA-256 of the weights that the maps were made with
_SCHEMA = TypeAdapter(dict[str, dict[str, Reference]], config=ConfigDict(extra="forbid", strict=True))


def read_references(folder: Path, weights: str = "") -> tuple[References, tuple[str, ...]]:
    """The references in a model's folder, and doubts about them; none where there is no such file.

    The file holds ``{method: {label of the target: fields of Reference}, "weights": SHA-256}``.

    Args:
        folder: of the model card.
        weights: SHA-256 of the model's weights; references measured on other weights are left out, with a note.

    Raises:
        BadCard: the file is malformed.
    """
    path = folder / REFERENCES_NAME
    if not path.is_file():
        return {}, ()
    try:
        raw = json.loads(path.read_bytes())
        measured_on = raw.pop(_WEIGHTS, "") if isinstance(raw, dict) else ""
        table = _SCHEMA.validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "(top)"
        raise BadCard(f"{REFERENCES_NAME}: {where}: {first['msg']}", "measure the references again") from error
    except ValueError as error:
        raise BadCard(f"{REFERENCES_NAME} is not JSON: {error}", "measure the references again") from error
    _check_all(table)
    if measured_on and weights and measured_on != weights:
        return {}, (f"{REFERENCES_NAME} was measured on other weights and is not used: maps have no fixed scale",)
    return table, ()


def write_references(folder: Path, table: References, weights: str = "") -> Path:
    """Write the references of a model, whole or not at all.

    Raises:
        UnwritableOutput: the folder cannot be written to.
    """
    _check_all(table)
    plain: dict[str, Any] = {m: {k: asdict(r) for k, r in sorted(by.items())} for m, by in sorted(table.items())}
    if weights:
        plain[_WEIGHTS] = weights
    return write_text(folder / REFERENCES_NAME, json.dumps(plain, indent=2, allow_nan=False) + "\n")


def _check_all(table: References) -> None:
    for method, by_label in table.items():
        for label, reference in by_label.items():
            key = f"{REFERENCES_NAME}: {method}.{label}"
            if not (math.isfinite(reference.scale) and reference.scale > 0):
                raise BadCard(f"{key}: expected a scale above 0, got {reference.scale}", "measure it again")
            if reference.null is not None and not math.isfinite(reference.null):
                raise BadCard(f"{key}: expected a finite null, got {reference.null}", "measure it again")
