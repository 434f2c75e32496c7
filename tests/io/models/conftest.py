"""Model folders made on the fly: small seeded networks, their weights in every form, and cards beside them."""

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

SOURCES = Path(__file__).resolve().parent / "sources"
SHAPES = {"plane": ((1, 16, 16),), "volume": ((1, 8, 8, 8),), "pair": ((1, 8, 8, 8), (1, 8, 8, 8))}
Tables = dict[str, Any]
Maker = Callable[..., Path]


@cache
def source(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"sources_{name}", SOURCES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    if isinstance(value, bool | str):
        return json.dumps(value)
    return str(value)


def tables(**changes: Any) -> Tables:
    """A card as tables: ``model__name="x"`` sets one key, ``model__name=None`` takes it out."""
    card: Tables = {
        "model": {
            "name": "small",
            "version": "1",
            "task": "classification",
            "modality": ["x-ray"],
            "weights": "weights.safetensors",
            "sha256": "0" * 64,
            "license": "MIT",
        },
        "inputs": [{"name": "image", "rank": 2, "channels": 1, "size": [16, 16], "scale": "unit"}],
        "output": {"labels": ["a", "b", "c"], "activation": "softmax"},
    }
    for key, value in changes.items():
        table, _, name = key.partition("__")
        if not name:
            card[table] = value
        elif value is None:
            del card[table][name]
        else:
            card.setdefault(table, {})[name] = value
    return card


def text_of(card: Tables) -> str:
    lines = []
    for table, held in card.items():
        for one in held if isinstance(held, list) else [held]:
            lines.append(f"[[{table}]]" if isinstance(held, list) else f"[{table}]")
            lines += [f"{k} = {toml(v)}" for k, v in one.items()]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def small() -> ModuleType:
    """The module of small networks."""
    return source("small")


@pytest.fixture
def card_text() -> Callable[..., str]:
    """Text of a card, with changes."""
    return lambda **changes: text_of(tables(**changes))


@pytest.fixture
def write_card() -> Callable[..., Path]:
    """Write a card beside weights, with their digest."""

    def write(folder: Path, **changes: Any) -> Path:
        card = tables(**changes)
        weights = folder / card["model"]["weights"]
        if "model__sha256" not in changes and weights.is_file():
            card["model"]["sha256"] = digest(weights)
        path = folder / "model.toml"
        path.write_text(text_of(card), encoding="utf-8")
        return path

    return write


@pytest.fixture
def python_folder(tmp_path: Path, write_card: Callable[..., Path]) -> Callable[..., Path]:
    """A folder with a card, safetensors and the source of a factory; returns the card's path."""

    def make(factory: str = "plane", folder: Path | None = None, **changes: Any) -> Path:
        place = folder or tmp_path / "model"
        place.mkdir(exist_ok=True)
        (place / "network.py").write_bytes((SOURCES / "small.py").read_bytes())
        save_file(getattr(source("small"), factory)().state_dict(), place / "weights.safetensors")
        return write_card(place, **{"model__factory": f"network:{factory}", **changes})

    return make


@pytest.fixture(scope="session")
def export() -> Callable[..., Path]:
    """Write a network as ``torchscript``, ``traced``, ``pt2`` or ``onnx``; a name of a file says nothing."""

    def write(form: str, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, fixed: bool) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own older formats and internals
            _WRITERS[form](module, inputs, path, fixed)
        return path

    return write


@pytest.fixture(scope="session")
def exported(small: ModuleType, export: Maker, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """The bytes of a network in a form, exported once for a batch of two, or of one that is fixed."""

    @cache
    def make(form: str, kind: str, fixed: bool) -> bytes:
        inputs = tuple(torch.rand(1 if fixed else 2, *shape) for shape in SHAPES[kind])
        path = tmp_path_factory.mktemp("export") / "network"
        return export(form, getattr(small, kind)(), inputs, path, fixed).read_bytes()

    return make


def _script(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, fixed: bool) -> None:
    torch.jit.script(module).save(str(path))


def _trace(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, fixed: bool) -> None:
    traced = torch.jit.trace(module, inputs)
    (traced if module.training else torch.jit.freeze(traced)).save(str(path))


def _shapes(inputs: tuple[torch.Tensor, ...], fixed: bool) -> tuple[dict[int, Any], ...] | None:
    return None if fixed else tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)


def _pt2(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, fixed: bool) -> None:
    torch.export.save(torch.export.export(module, inputs, dynamic_shapes=_shapes(inputs, fixed)), path)


def _onnx(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, fixed: bool) -> None:
    names = ["pet", "ct"] if len(inputs) == 2 else ["image"]
    torch.onnx.export(
        module,
        inputs,
        path,
        dynamo=True,
        input_names=names,
        output_names=["score"],
        dynamic_shapes=_shapes(inputs, fixed),
        external_data=False,
        verbose=False,
    )


_WRITERS = {"torchscript": _script, "traced": _trace, "pt2": _pt2, "onnx": _onnx}
