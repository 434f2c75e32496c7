"""A network built by a Python factory, with weights from safetensors or ``torch.load(weights_only=True)``."""

import inspect
import types
from collections.abc import Callable
from typing import Any, get_type_hints

import torch
from torch import nn

from pellucid.core.errors import BadCard, PellucidError
from pellucid.core.model import Model
from pellucid.io.cardschema import ModelCard
from pellucid.io.loaders.parts import Origin, Parts
from pellucid.io.loaders.source import Source, find_source
from pellucid.io.loaders.trial import settled
from pellucid.io.trust import Trust
from pellucid.io.weights import fit_weights, read_state


def load_python(origin: Origin, card: ModelCard) -> Parts:
    """Build the network and fill it.

    Raises:
        Untrusted: the factory is not one of Pellucid's own, and nobody said that it may run.
        BadCard: there is no such factory, or it builds no network.
        WeightsMismatch: the weights do not fit.
    """
    entry = card.model
    if entry.factory is None:
        raise BadCard(
            f"{origin.path.name} holds weights only: the card does not say which network they belong to",
            "add model.factory = 'package.module:function'",
        )
    module_name, _, function = entry.factory.partition(":")
    source = find_source(module_name, origin.folder)
    trust = _admit(origin, source, entry.factory)
    state = read_state(origin.path, origin.form, entry.weights_key)
    module = _build(_named(source, function, trust), entry.factory, dict(entry.options))
    notes = fit_weights(module, state, origin.path.name)
    module.eval().to(origin.device)
    model = Model(module, card.inputs, card.output_spec, call=entry.call)
    found = settled(model)  # a forward under no_grad would give maps of zeros: seen here, where it can be said
    return Parts(
        module,
        model.inputs,
        model.output,
        found.can,
        entry.call,
        trust,
        (*notes, *found.notes),
        channels=found.channels,
    )


def _admit(origin: Origin, source: Source, factory: str) -> Trust:
    """A factory of Pellucid's own that takes no argument needs no trust; with arguments a card could misuse it."""
    options = origin.card.model.options if origin.card is not None else {}
    if source.kind == "own" and not options:
        return "not needed"
    what = f"the factory {factory}" + (" with arguments from the card" if source.kind == "own" else "")
    return origin.gate.admit(origin.name, what, {**origin.code, **source.digests})


def _named(source: Source, function: str, trust: Trust) -> Callable[..., Any]:
    try:
        module = source.load()
    except PellucidError:
        raise
    except Exception as error:  # whatever the model's own code raises
        raise BadCard(
            f"model.factory: importing {source.module} failed: {_first(error)}",
            "install what it needs; files beside the card import each other as 'from .name import ...'",
        ) from error
    found = vars(module).get(function)
    if not callable(found):
        there = ", ".join(k for k, v in vars(module).items() if callable(v) and not k.startswith("_"))
        raise BadCard(f"model.factory: {source.module} has no function {function!r}", f"there are: {there[:200]}")
    if trust == "not needed" and not _is_own_factory(found, module):
        raise BadCard(f"model.factory: {source.module}:{function} builds no network", "name a factory of networks")
    return found


def _is_own_factory(found: Callable[..., Any], module: types.ModuleType) -> bool:
    """Whether it is a function of that very module that takes nothing and says that it returns a network."""
    if not inspect.isfunction(found) or found.__module__ != module.__name__:
        return False
    return not inspect.signature(found).parameters and get_type_hints(found).get("return") is nn.Module


def _build(factory: Callable[..., Any], name: str, options: dict[str, Any]) -> nn.Module:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # what the weights file does not fill is the same at each load
            module = factory(**options)
    except Exception as error:  # whatever the model's own code raises
        raise BadCard(f"model.factory: {name} failed: {_first(error)}", "correct model.options") from error
    if not isinstance(module, nn.Module):
        raise BadCard(
            f"model.factory: expected a torch module from {name}, got a {type(module).__name__}", "return the network"
        )
    return module


def _first(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
