"""A TOML file that a person wrote, held against the schema of what it declares."""

import json
import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from pellucid.core.errors import BadOption, InputError

Declared = TypeVar("Declared")


def read_declaration(path: Path, schema: TypeAdapter[Declared], what: str, page: str) -> Declared:
    """What a file declares; the first thing wrong with it is named by its key.

    Args:
        path: of the TOML file.
        schema: of the class that it fills.
        what: it declares, such as ``study``; for messages.
        page: of the documentation that lists every key.

    Raises:
        InputError: the file cannot be read.
        BadOption: not TOML, or a key that is missing, unknown or of another type.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadOption(f"{path.name} is not TOML: {error}", "correct the line that is named") from error
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror}", f"give the TOML of a {what}") from error
    try:
        return schema.validate_json(json.dumps(raw, default=str))  # strict python wants tuples
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        raise BadOption(f"{what} key {place!r}: {first['msg']}", f"{page} lists every key") from error
