"""A MONAI bundle folder: its metadata, its ``inference`` configuration, and ``models/model.pt`` or ``model.ts``."""

import importlib
import inspect
import json
import types
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pellucid.core.errors import BadCard, MissingExtra, ModelError
from pellucid.core.model import Model
from pellucid.io.cardschema import ModelCard
from pellucid.io.loaders.bundlecard import bundle_card
from pellucid.io.loaders.bundleconfig import code_in, needed, network_id, read_config
from pellucid.io.loaders.parts import Origin, Parts
from pellucid.io.loaders.source import importable, read_code
from pellucid.io.loaders.torchscript import load_torchscript
from pellucid.io.loaders.trial import settled
from pellucid.io.modelform import Form, detect_form
from pellucid.io.trust import Trust, code_digest, sha256_of
from pellucid.io.weights import fit_weights, read_state

_NETS = "monai.networks.nets"
_PLACES = ("models/model.pt", "models/model.safetensors", "models/model.ts")


def bundle_weights(folder: Path) -> Path:
    """The file of a bundle that holds its weights.

    Raises:
        ModelError: there is none.
    """
    for place in _PLACES:
        if (folder / place).is_file():
            return folder / place
    raise ModelError(f"the bundle {folder.name} holds no weights", f"put one of {', '.join(_PLACES)} into it")


def load_bundle(origin: Origin) -> Parts:
    """Load a bundle; its network from the configuration where that can be had, else from TorchScript.

    Raises:
        Untrusted: its configuration or its TorchScript would run code, and nobody said that it may.
        MissingExtra: MONAI is not installed.
        BadCard: metadata or configuration do not say enough.
        WeightsMismatch: the weights do not fit the network.
    """
    folder = origin.path
    weights = bundle_weights(folder)
    metadata, inference = read_config(folder, "metadata"), read_config(folder, "inference")
    made, doubts = origin.card, ()
    if made is None:
        made, doubts = bundle_card(metadata, inference, weights.relative_to(folder).as_posix(), sha256_of(weights))
    inner = replace(origin, path=weights, form=detect_form(weights), card=made)
    name = network_id(inference)
    if inner.form is Form.TORCHSCRIPT or name is None:
        if inner.form is not Form.TORCHSCRIPT:
            raise BadCard("configs/inference has no network_def", "add it, or models/model.ts")
        parts = load_torchscript(inner)
    else:
        parts = _from_config(inner, made, folder, inference, name)
    return replace(parts, card=made, notes=(*doubts, *parts.notes))


def _from_config(origin: Origin, card: ModelCard, folder: Path, inference: dict[str, Any], name: str) -> Parts:
    part = needed(inference, name)
    reasons = code_in(part)
    if not reasons:
        part, reasons = _spelled_out(part)
    trust: Trust = "not needed"
    code: dict[str, bytes] = {}
    if reasons:
        code, part = read_code(folder), inference
        trust = origin.gate.admit(origin.name, "; ".join(reasons[:3]), {**origin.code, **_digests(folder, code)})
    state = read_state(origin.path, origin.form, card.model.weights_key)
    module = _network(folder, part, name, code)
    notes = fit_weights(module, state, origin.path.name)
    module.eval().to(origin.device)
    model = Model(module, card.inputs, card.output_spec, call=card.model.call)
    found = settled(model)
    return Parts(
        module,
        model.inputs,
        model.output,
        found.can,
        model.call,
        trust,
        (*notes, *found.notes),
        channels=found.channels,
    )


def _digests(folder: Path, code: Mapping[str, bytes]) -> dict[str, str]:
    configs = [p for p in sorted((folder / "configs").rglob("*")) if p.is_file()]
    paths = [*configs, *(folder / name for name in code)]
    return {p.relative_to(folder).as_posix(): sha256_of(p) for p in paths}


def bundle_digest(folder: Path) -> str:
    """What stands for the bundle's card in records: its configuration files."""
    return code_digest(_digests(folder, {}))


def _network(folder: Path, config: Mapping[str, Any], name: str, code: Mapping[str, bytes]) -> nn.Module:
    parser_class = _monai("monai.bundle").ConfigParser
    try:
        with importable(folder, code), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            parser = parser_class(json.loads(json.dumps(config)))
            parser["bundle_root"] = str(folder)
            module = parser.get_parsed_content(name)
    except Exception as error:  # whatever the bundle's own configuration raises
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise BadCard(f"configs/inference: {name} cannot be built: {reason}", "correct the bundle") from error
    if not isinstance(module, nn.Module):
        raise BadCard(
            f"configs/inference: {name} is a {type(module).__name__}, expected a network", "correct the bundle"
        )
    return module


def _monai(module: str) -> types.ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI warns about optional packages of its own
            return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra("a MONAI bundle needs MONAI", "pip install 'pellucid[monai]'") from error


def _spelled_out(config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The configuration with full names of its targets, and those that turn out to be no part of a network."""
    foreign: list[str] = []

    def spell(value: Any) -> Any:
        if isinstance(value, list):
            return [spell(v) for v in value]
        if not isinstance(value, dict):
            return value
        inner = {k: spell(v) for k, v in value.items()}
        if "_target_" in inner:
            place, _, name = str(inner["_target_"]).rpartition(".")
            place = place or _NETS
            reason = _not_a_network_part(place, name, inner)
            if reason:
                foreign.append(f"the call of {inner['_target_']!r}, {reason}")
            inner["_target_"] = f"{place}.{name}"
        return inner

    return spell(config), foreign


def _not_a_network_part(place: str, name: str, given: Mapping[str, Any]) -> str:
    """Empty for a module class (or ``resnet`` maker) of MONAI or torch that fetches nothing; else why it is not."""
    if place.startswith("monai"):
        _monai("monai.networks")
    try:
        found = getattr(importlib.import_module(place), name, None)
    except ImportError:
        found = None
    home = str(getattr(found, "__module__", ""))
    network = isinstance(found, type) and issubclass(found, nn.Module)
    if not (home.startswith(("monai.networks.", "torch.nn.")) and (network or name.startswith("resnet"))):
        return "which is no network part of MONAI or torch"
    defaults = {k: p.default for k, p in inspect.signature(found).parameters.items() if "pretrain" in k.lower()}
    fetching = [k for k, default in defaults.items() if default not in (False, None, inspect.Parameter.empty)]
    return "which fetches weights unless told not to" if any(k not in given for k in fetching) else ""
