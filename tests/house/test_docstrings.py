"""Docstrings: there, short, true to the signature, with examples that run."""

import dataclasses
import doctest
import inspect
import re
import warnings
from collections.abc import Iterator
from enum import Enum
from types import ModuleType
from typing import Any

import pytest

import pellucid
from pellucid.core.card import Declared

MOST_PROSE = 15
SECTIONS = re.compile(r"^(Args|Returns|Raises|Yields|Source|Example):$")
ENTRY = re.compile(r"^ {4}(\w+): ")


def owned(modules: dict[str, ModuleType]) -> Iterator[tuple[str, Any]]:
    """Public classes, functions and methods where they are defined."""
    for name, module in modules.items():
        for label, value in vars(module).items():
            if label.startswith("_") or getattr(value, "__module__", None) != name:
                continue
            if inspect.isclass(value):
                yield f"{name}.{label}", value
                for inner, member in vars(value).items():
                    function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                    if not inner.startswith("_") and inspect.isfunction(function):
                        yield f"{name}.{label}.{inner}", function
            elif inspect.isfunction(value):
                yield f"{name}.{label}", value


def sections(docstring: str) -> dict[str, list[str]]:
    """The lines of each section; what stands before the first one is prose."""
    found: dict[str, list[str]] = {"prose": []}
    here = "prose"
    for line in inspect.cleandoc(docstring).splitlines():
        heading = SECTIONS.match(line)
        if heading:
            here = heading[1]
        found.setdefault(here, []).append(line)
    return found


def arguments(thing: Any) -> list[str]:
    """What a caller passes: parameters, or the fields that a class itself declares."""
    if not inspect.isclass(thing):
        return [p for p in inspect.signature(thing).parameters if p not in ("self", "cls")]
    if dataclasses.is_dataclass(thing):
        own = vars(thing).get("__annotations__", {})
        return [f.name for f in dataclasses.fields(thing) if f.name in own and not f.name.startswith("_")]
    if issubclass(thing, tuple):
        return list(thing._fields)
    if "__init__" in vars(thing):
        return [p for p in inspect.signature(thing.__init__).parameters if p != "self"]
    return []


def test_everything_public_has_a_docstring(modules: dict[str, ModuleType]) -> None:
    things = list(owned(modules))
    assert len(things) > 150
    assert not [name for name, thing in things if not (vars(thing).get("__doc__") or thing.__doc__ or "").strip()]
    assert not [name for name, module in modules.items() if not (module.__doc__ or "").strip()]


def test_docstrings_are_short(modules: dict[str, ModuleType]) -> None:
    long = {}
    for name, thing in owned(modules):
        parts = sections(thing.__doc__ or "")
        lines = [x for key, part in parts.items() if key not in ("Args", "Example") for x in part if x.strip()]
        if len(lines) > MOST_PROSE:
            long[name] = len(lines)
    assert not long


def test_args_name_what_the_signature_names(modules: dict[str, ModuleType]) -> None:
    wrong = {}
    for name, thing in owned(modules):
        described = [m[1] for line in sections(thing.__doc__ or "").get("Args", []) if (m := ENTRY.match(line))]
        unknown = set(described) - set(arguments(thing))
        if unknown:
            wrong[name] = unknown
    assert not wrong


def test_what_takes_many_arguments_explains_each(modules: dict[str, ModuleType]) -> None:
    silent = {}
    for name, thing in owned(modules):
        text = thing.__doc__ or ""
        if (
            "See ``" in text
            or name.startswith("pellucid.cli.")
            or (inspect.isclass(thing) and issubclass(thing, Declared))
        ):
            continue
        names = arguments(thing)
        missing = [a for a in names if not re.search(rf"\b{a}\b", text)]
        if len(names) >= 4 and missing:
            silent[name] = missing
    assert not silent, "; ".join(f"{k}: {v}" for k, v in silent.items())


def test_public_classes_show_an_example(declared: dict[str, type[Declared]]) -> None:
    """What can be made is shown being made; abstract bases, enumerations and errors are not made by hand."""
    shown = {**{n: getattr(pellucid, n) for n in pellucid.__all__}, **declared}

    def made(thing: Any) -> bool:
        return not inspect.isclass(thing) or not (inspect.isabstract(thing) or issubclass(thing, Exception | Enum))

    assert len(shown) > 25
    assert not [n for n, thing in shown.items() if made(thing) and ">>>" not in (thing.__doc__ or "")]


def test_examples_run(modules: dict[str, ModuleType]) -> None:
    finder, failed, tried = doctest.DocTestFinder(exclude_empty=True), [], 0
    for module in modules.values():
        for test in finder.find(module):
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            report: list[str] = []
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                result = runner.run(test, out=report.append)
            tried += result.attempted
            if result.failed:
                failed.append("".join(report))
    assert tried > 50
    if failed:
        pytest.fail("\n".join(failed))
