"""Play back what a module computed before a layer, so that only what comes after is computed anew."""

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pellucid.core.layers import Edit, LayerName, with_element

_Finished = tuple[nn.Module, object]


class Replay:
    """While entered, modules that finished before the layer give back what they gave, for several versions at once.

    A module that is still running when the layer finishes (the layer's parents) runs, with the operations between its
    children; so skip connections around the layer are right. The module's ``forward`` is hidden, not replaced, and
    comes back on leaving, also after an error.

    Args:
        finished: calls in order, the layer's own last.
        element: of the layer's output that is edited.
        edit: of it.
        versions: of the recorded batch.
        batch: recorded items.
    """

    def __init__(self, finished: list[_Finished], element: int | None, edit: Edit, versions: int, batch: int) -> None:
        self._finished, self._element, self._edit = finished, element, edit
        self._versions, self._batch, self._next = versions, batch, 0
        self._hidden: list[tuple[nn.Module, object]] = []

    def __enter__(self) -> None:
        self._next = 0
        for layer in dict.fromkeys(layer for layer, _ in self._finished):
            self._hidden.append((layer, layer.__dict__.get("forward")))
            layer.__dict__["forward"] = self._stand_in(layer, layer.forward)

    def __exit__(self, *_: object) -> None:
        while self._hidden:
            layer, own = self._hidden.pop()
            del layer.__dict__["forward"]
            if own is not None:
                layer.__dict__["forward"] = own

    def _stand_in(self, layer: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def play(*args: Any, **kwargs: Any) -> Any:
            if self._next == len(self._finished) or self._finished[self._next][0] is not layer:
                return forward(*args, **kwargs)
            output = _tiled(self._finished[self._next][1], self._versions, self._batch)
            self._next += 1
            if self._next < len(self._finished):
                return output
            part = output if self._element is None else output[self._element]
            return with_element(output, self._element, self._edit(part))

        return play


class Recording:
    """While entered, keeps the outputs of every module that finishes before a layer does.

    Only those whose parents are still running when the layer finishes are kept: the others are inside them.

    Args:
        module: that will be run.
        layer: name.
    """

    def __init__(self, module: nn.Module, layer: str) -> None:
        self._name = LayerName.parse(layer)
        self._module, self._target = module, module.get_submodule(self._name.path)
        self._finished: list[_Finished] = []
        self._running: list[int] = []
        self._calls, self._batch = 0, 0
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> None:
        for layer in self._module.modules():
            self._handles.append(layer.register_forward_pre_hook(self._begin))
            self._handles.append(layer.register_forward_hook(self._end))

    def __exit__(self, *_: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def replay(self, edit: Edit, versions: int) -> Replay:
        """What was recorded, with the layer's output edited."""
        return Replay(self._finished, self._name.element, edit, versions, self._batch)

    def _done(self) -> bool:
        return self._calls == (self._name.call or 1)

    def _begin(self, layer: nn.Module, _args: object) -> None:
        self._running.append(len(self._finished))

    def _end(self, layer: nn.Module, _args: object, output: object) -> None:
        began = self._running.pop()
        if layer is self._module:
            self._batch = len(cast(Tensor, _first(output)))
        if self._done():
            return
        del self._finished[began:]
        self._finished.append((layer, _kept(output)))
        self._calls += int(layer is self._target)


def _kept(output: Any) -> Any:
    """A copy: an in-place operation behind would change what was recorded."""
    return _mapped(output, lambda t: t.detach().clone())


def _tiled(output: Any, versions: int, batch: int) -> Any:
    """Versions of the batch, batch innermost; what has no batch axis (a position table) stays.

    Windows of attention lie on the batch axis too, item outermost, so a repeat is right for them as well.
    """

    def tile(t: Tensor) -> Tensor:
        has_batch = t.ndim > 0 and len(t) % batch == 0
        return t.repeat(versions, *(1,) * (t.ndim - 1)) if has_batch else t.clone()

    return _mapped(output, tile)


def _mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, dict):
        return {k: _mapped(v, change) for k, v in cast(dict[Any, Any], output).items()}
    if isinstance(output, tuple | list):
        parts = [_mapped(v, change) for v in cast(list[Any], output)]
        return parts if isinstance(output, list) else getattr(type(output), "_make", tuple)(parts)
    return output


def _first(output: Any) -> Any:
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output
