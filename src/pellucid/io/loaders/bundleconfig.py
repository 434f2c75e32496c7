"""What of a MONAI bundle's configuration would run code, told from its text before MONAI sees it."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pellucid.core.errors import BadCard, MissingExtra

_NETWORK = ("network_def", "network")
_DATA_TARGETS = re.compile(
    r"^((monai\.networks\.(nets|blocks)\.([a-z_0-9]+\.)?)?[A-Z]\w*"
    r"|(monai\.networks\.nets\.(resnet\.)?)?resnet(10|18|34|50|101|152|200)"
    r"|torch\.nn\.(modules\.[a-z_]+\.)?[A-Z]\w*)$"
)
READS_FILES = re.compile(r"pretrain|weights|url|path|dir|file|ckpt|download", re.IGNORECASE)
_PLAIN_KEYS = frozenset({"_target_", "_desc_"})
_REFERENCE = re.compile(r"^@([A-Za-z_]\w*)")


def read_config(folder: Path, stem: str) -> dict[str, Any]:
    """``configs/<stem>.json`` or ``.yaml`` as plain data; empty where there is none.

    Raises:
        BadCard: neither JSON nor YAML, or no table.
        MissingExtra: it is YAML and no reader for it is installed.
    """
    for suffix in ("json", "yaml", "yml"):
        path = folder / "configs" / f"{stem}.{suffix}"
        if path.is_file():
            held = _parse(path, suffix)
            if not isinstance(held, dict):
                raise BadCard(f"{path.name}: expected a table, got a {type(held).__name__}", "give a whole bundle")
            return held
    return {}


def _parse(path: Path, suffix: str) -> Any:
    text = path.read_text(encoding="utf-8")
    if suffix == "json":
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadCard(f"{path.name} is not JSON: {error}", "correct it") from error
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra(f"{path.name} needs a reader of YAML", "pip install pyyaml") from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise BadCard(f"{path.name} is not YAML: {' '.join(str(error).split())[:120]}", "correct it") from error


def network_id(config: Mapping[str, Any]) -> str | None:
    """The entry that defines the network."""
    return next((name for name in _NETWORK if isinstance(config.get(name), Mapping)), None)


def needed(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An entry with every entry that it refers to, directly or through others."""
    wanted, found = [name], {}
    while wanted:
        key = wanted.pop()
        if key not in found and key in config:
            found[key] = config[key]
            wanted += [m[1] for _, text in _texts(config[key], key) if (m := _REFERENCE.match(text))]
    return found


def code_in(config: Mapping[str, Any]) -> list[str]:
    """What of the configuration would run code, in words; empty for plain networks of MONAI and torch."""
    return list(dict.fromkeys([*_expressions(config), *_calls(config, "")]))


def _expressions(config: Mapping[str, Any]) -> Iterator[str]:
    for where, text in _texts(config, ""):
        if text.startswith("$"):
            yield f"the expression {text[:60]!r} in {where}"
        elif text.startswith("%"):
            yield f"the macro {text[:60]!r} in {where}"


def _calls(value: object, where: str) -> Iterator[str]:
    if isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _calls(inner, f"{where}::{i}")
    if not isinstance(value, Mapping):
        return
    if "_target_" in value:
        target = value["_target_"]
        if not (isinstance(target, str) and _DATA_TARGETS.match(target)):
            yield f"the call of {str(target)[:60]!r} in {where}"
        for key, argument in value.items():
            if key.startswith("_") and key not in _PLAIN_KEYS:
                yield f"the key {key} in {where}"
            reads = bool(argument) and READS_FILES.search(key) is not None
            if reads and (isinstance(argument, str) or "pretrain" in key):
                yield f"the argument {key} in {where}, which may read or fetch files"
    for key, inner in value.items():
        yield from _calls(inner, f"{where}::{key}" if where else str(key))


def _texts(value: object, where: str) -> Iterator[tuple[str, str]]:
    """Every text in nested tables and lists (keys too, which MONAI also reads), with where it stands."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield where, str(key)
            yield from _texts(inner, f"{where}::{key}" if where else str(key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _texts(inner, f"{where}::{i}")


def plain(config: Mapping[str, Any], value: object) -> object:
    """A value with ``@references`` followed; None where it is an expression or refers to none."""
    seen = 0
    while isinstance(value, str) and value.startswith("@") and seen < 20:
        seen += 1
        found: object = config
        for part in re.split(r"::|#", value[1:]):
            if isinstance(found, Mapping):
                found = found.get(part)
            elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
                found = found[int(part)]
            else:
                found = None
        value = found
    if isinstance(value, str) and value[:1] in ("$", "@", "%"):
        return None
    return [plain(config, v) for v in value] if isinstance(value, list) else value
