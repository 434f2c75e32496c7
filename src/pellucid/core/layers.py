"""Layers by name: ``features.norm5``, ``relu#2`` (its second call), ``encoder[0]`` (first element of a tuple)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pellucid.core.errors import UnknownLayer

_NAME = re.compile(r"^(?P<path>[^#\[]*)(?:#(?P<call>\d+))?(?:\[(?P<element>\d+)\])?$")
Edit = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LayerName:
    """A layer's module path, which of its calls, and which element of its output."""

    path: str
    call: int | None = None
    element: int | None = None

    @classmethod
    def parse(cls, text: str) -> "LayerName":
        """Read ``path#call[element]``.

        Raises:
            UnknownLayer: the text is not of this form.
        """
        found = _NAME.match(text)
        if found is None:
            raise UnknownLayer(f"{text!r} is not a layer name", "write path, path#2 or path[0]")
        call, element = found["call"], found["element"]
        return cls(found["path"], int(call) if call else None, int(element) if element else None)


@dataclass(frozen=True)
class LayerShape:
    """The output of one call of one layer, as a trace saw it.

    Args:
        name: ``path``, with ``#call`` where the module is called more than once and ``[element]`` for tuples.
        kind: class of the module.
        shape: of the output for a batch.
    """

    name: str
    kind: str
    shape: tuple[int, ...]

    def extent(self, rank: int) -> int:
        """Number of spatial positions; 0 where the output is not "batch channel *space"."""
        return prod(self.shape[2:]) if len(self.shape) == rank + 2 else 0


def trace(module: nn.Module, forward: Callable[[], object]) -> tuple[LayerShape, ...]:
    """Run ``forward`` once and list every layer's outputs in the order in which they are finished."""
    seen: list[tuple[str, int, int | None, str, tuple[int, ...]]] = []
    calls: dict[str, int] = {}

    def watch(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, _args: object, output: object) -> None:
            calls[path] = calls.get(path, 0) + 1
            parts = enumerate(output) if isinstance(output, tuple | list) else [(None, output)]
            for element, part in parts:
                if isinstance(part, Tensor):
                    seen.append((path, calls[path], element, type(layer).__name__, tuple(part.shape)))

        return hook

    handles = [m.register_forward_hook(watch(p)) for p, m in module.named_modules() if p]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return tuple(
        LayerShape(
            f"{path}{f'#{call}' if calls[path] > 1 else ''}{f'[{element}]' if element is not None else ''}", kind, shape
        )
        for path, call, element, kind, shape in seen
    )


class Watch:
    """Hooks that keep (and may edit) the outputs of named layers during one forward.

    A hook returns a clone: an in-place layer behind the watched one would silently change what was kept, or what the
    backward of an edit needs.

    Args:
        module: that will be run.
        keep: names of layers whose outputs are kept.
        edits: function of a layer's output, by name.
        leaf: whether a kept output without a graph begins one, and turns gradients on if they were off until then.
    """

    def __init__(self, module: nn.Module, keep: tuple[str, ...], edits: Mapping[str, Edit], leaf: bool) -> None:
        self._kept: dict[str, list[Tensor]] = {}
        self._module, self._keep, self._edits, self._leaf = module, keep, edits, leaf
        self._handles: list[RemovableHandle] = []
        self._rounds, self._calls = 0, dict[str, int]()

    def __enter__(self) -> "Watch":
        names = {name: LayerName.parse(name) for name in (*self._keep, *self._edits)}
        layers = {name.path: self._module.get_submodule(name.path) for name in names.values()}
        if layers:
            self._handles.append(self._module.register_forward_pre_hook(self._begin))
        for path, layer in layers.items():
            here = {text: name for text, name in names.items() if name.path == path}
            self._handles.append(layer.register_forward_hook(self._hook(path, here)))
        return self

    @property
    def kept(self) -> Mapping[str, list[Tensor]]:
        """By layer, its output in each run of the module (a fixed batch size takes several).

        Raises:
            UnknownLayer: the module did not call a layer for this input.
        """
        silent = [name for name in self._keep if len(self._kept.get(name, ())) != self._rounds]
        if silent:
            raise UnknownLayer(f"the module does not call {silent[0]!r} for this input", "choose another layer")
        return self._kept

    def _begin(self, _module: nn.Module, _args: object) -> None:
        self._rounds += 1
        self._calls.clear()

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, path: str, names: Mapping[str, LayerName]) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_layer: nn.Module, _args: object, output: Any) -> Any:
            self._calls[path] = self._calls.get(path, 0) + 1
            for text, name in names.items():
                if name.call in (None, self._calls[path]):
                    output = self._pass(text, name.element, output)
            return output

        return hook

    def _pass(self, text: str, element: int | None, output: Any) -> Any:
        tensor = output if element is None else output[element]
        if not isinstance(tensor, Tensor):
            raise UnknownLayer(
                f"layer {text!r} returns a {type(tensor).__name__}, expected a tensor",
                f"name one element, for example {text}[0]",
            )
        if text in self._edits:
            tensor = self._edits[text](tensor)
        if text in self._keep:
            if self._leaf and not tensor.requires_grad and tensor.is_floating_point():
                torch.set_grad_enabled(True)
                tensor = tensor.detach().requires_grad_()  # a frozen or ungraphed prefix: the graph begins here
            earlier = self._kept.setdefault(text, [])[: self._rounds - 1]
            self._kept[text] = [*earlier, tensor]
        return with_element(output, element, tensor.clone())


def with_element(output: Any, element: int | None, tensor: Tensor) -> Any:
    """An output with one element replaced; a named tuple stays one. None: the output is the tensor itself."""
    if element is None:
        return tensor
    parts = list(output)
    parts[element] = tensor
    return parts if isinstance(output, list) else getattr(type(output), "_make", tuple)(parts)


def joined(parts: list[Tensor], items: int, size: int | None) -> Tensor:
    """A layer's output over the runs of one evaluation, without the rows that filled up a fixed batch ``size``."""
    if size is None:
        return parts[-1]
    rows = torch.cat(parts)
    return rows[: len(rows) * items // (len(parts) * size)]
