"""Tensors from a weights file into a module, and nothing else from it."""

import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pellucid.core.errors import Untrusted, WeightsMismatch
from pellucid.io.modelform import Form

State = dict[str, Tensor]
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network_weights", "network")
_SHOWN = 3
_NUMPY = [np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64, np.uint8, np.bool_]
# checkpoints of trainers keep losses as NumPy's numbers: numbers alone are read, under the names of NumPy 1 and 2
_NUMBERS: list[Any] = [
    np.dtype,
    *(type(np.dtype(kind)) for kind in _NUMPY),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
]


def read_state(path: Path, form: Form, key: str | None = None) -> State:
    """The tensors of a weights file by name; lists and tables inside it become ``0.weight`` and the like.

    Args:
        path: safetensors, or what ``torch.save`` wrote.
        form: of the file.
        key: entry that holds the tensors; None: the whole file, or the one usual entry of a checkpoint.

    Raises:
        WeightsMismatch: damaged, or no tensors in it.
        Untrusted: it holds pickled code; such a file is never read, also not with ``--trust-code``.
    """
    held: Any = _safetensors(path) if form is Form.SAFETENSORS else _pickled(path)
    if key is not None:
        if not isinstance(held, Mapping) or key not in held:
            there = ", ".join(map(str, held)) if isinstance(held, Mapping) else f"a {type(held).__name__}"
            raise WeightsMismatch(f"{path.name} has no entry {key!r}: {there[:200]}", "correct model.weights_key")
        held = held[key]
    elif isinstance(held, Mapping) and not any(isinstance(v, Tensor) for v in held.values()):
        found = [k for k in _WRAPPERS if isinstance(held.get(k), Mapping)]
        held = held[found[0]] if len(found) == 1 else held
    state = dict(_flat(held, ""))
    if not state:
        raise WeightsMismatch(f"{path.name} holds no tensors", "give the file of model.state_dict()")
    return state


def _safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise WeightsMismatch(f"{path.name} is no whole safetensors file: {error}", "copy it again") from error


def _pickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of an unusual pickle; what it holds is refused or read
            with torch.serialization.safe_globals(_NUMBERS):
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "pickle data was truncated" in str(error):
            raise WeightsMismatch(f"{path.name} is cut off", "copy it again") from error
        raise Untrusted(
            f"{path.name} holds pickled code beside its tensors, and loading it would run that code",
            "ask its makers for safetensors, or for torch.save(model.state_dict(), ...); a whole pickled model is "
            "never loaded",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).partition("\n")[0][:150]
        raise WeightsMismatch(f"{path.name} is no whole weights file: {reason}", "copy it again") from error


def _flat(value: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Tensors inside tables and lists, by dotted path; numbers and text beside them are left out."""
    if isinstance(value, Tensor):
        yield prefix or "weight", value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _flat(inner, f"{prefix}.{i}" if prefix else str(i))


def fit_weights(module: nn.Module, state: State, name: str) -> tuple[str, ...]:
    """Put the tensors into the module, cast to its own types, and return notes on what was bridged.

    Raises:
        WeightsMismatch: a tensor is missing, left over or of another shape; the first of each are listed.
    """
    own = {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
    state, notes = _without_wrapper(own, state)
    missing, left_over = _missing(own, state), [k for k in state if k not in own]
    misshaped = [k for k in own if k in state and (state[k].shape != own[k].shape or _other_kind(state[k], own[k]))]
    if missing or left_over or misshaped:
        faults = [
            _listing(missing, "missing", lambda k: f"{k} {tuple(own[k].shape)}"),
            _listing(left_over, "left over", lambda k: f"{k} {tuple(state[k].shape)}"),
            _listing(misshaped, "of another shape or kind", lambda k: f"{k} {_look(state[k])} for {_look(own[k])}"),
        ]
        raise WeightsMismatch(
            f"the weights {name} do not fit the network: {'; '.join(f for f in faults if f)}",
            "check the factory, its options and that the weights belong to this version",
        )
    module.load_state_dict({k: v.to(own[k].dtype) for k, v in state.items()}, strict=False)
    narrowed = sum(v.dtype.itemsize > own[k].dtype.itemsize for k, v in state.items())
    cast = (f"{narrowed} tensors of the weights were rounded to the network's own number type",) if narrowed else ()
    return (*notes, *cast)


def _without_wrapper(own: State, state: State) -> tuple[State, tuple[str, ...]]:
    """Names without the one prefix (``module.``) that a wrapper put before all of them, where that makes them fit."""
    first = {k.partition(".")[0] for k in state}
    bare = {k.partition(".")[2]: v for k, v in state.items()}
    if len(first) == 1 and not set(state) & set(own) and set(bare) & set(own):
        return bare, (f"the weights' names begin with {first.pop()!r}, which was taken off",)
    return state, ()


def _missing(own: State, state: State) -> list[str]:
    """Names that the file lacks, except twins of tensors it has and counters that old checkpoints do not have."""
    given = {v.data_ptr() for k, v in own.items() if k in state and v.numel()}
    return [
        k
        for k, v in own.items()
        if k not in state and v.data_ptr() not in given and not k.endswith("num_batches_tracked")
    ]


def _other_kind(a: Tensor, b: Tensor) -> bool:
    return a.is_floating_point() != b.is_floating_point()


def _look(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _listing(keys: list[str], what: str, show: Any) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} {what} ({', '.join(show(k) for k in keys[:_SHOWN])}{more})"
