"""Operations of torch replaced by others while a module runs (guided backpropagation, layer-wise relevance)."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from pellucid.core.attention import multi_head

Table = Mapping[Callable[..., Any], Callable[..., Any]]


class Rulebook(ABC):
    """Rules that see every operation with its place, and the model's inputs and output besides.

    They change what goes back, never the values that go forward: targets may be bound on a pass under them.
    """

    @property
    def additive(self) -> bool:
        """Whether what goes back for a sum of outputs is the sum of theirs: then windows may be taken one by one."""
        return False

    @property
    def composed(self) -> bool:
        """Whether attention of many heads arrives as one operation, and not as those it is made of."""
        return False

    @abstractmethod
    def begin(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The inputs as the module is to get them."""

    @abstractmethod
    def operate(
        self, operation: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any], place: str
    ) -> Any:
        """What the operation gives, made in the rulebook's way.

        Args:
            operation: of torch; called from here it is not replaced again.
            args: positional.
            named: by keyword.
            place: path of the layer that calls it; empty for the model itself.
        """

    @abstractmethod
    def finish(self, output: Tensor) -> Tensor:
        """The head's output as the targets are to get it."""


Rules = Table | Rulebook


def called(model: Callable[[Mapping[str, Tensor]], Tensor], module: nn.Module, x: Any, rules: Rules | None) -> Tensor:
    """The output of ``model``, which calls ``module``, at the named inputs ``x``, by the ``rules``."""
    if isinstance(rules, Rulebook):
        given = rules.begin(x)
        with _Places(module) as places, _Booked(rules, places):
            output = model(given)
        return rules.finish(output)
    if not rules:
        return model(x)
    with _Replaced(rules):
        return model(x)


class _Replaced(TorchFunctionMode):
    """Operations replaced by name; a function mode sees functional and reused ReLU alike, above autograd."""

    def __init__(self, rules: Table) -> None:
        super().__init__()
        self._rules = rules

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._rules.get(func, func)(*args, **(kwargs or {}))


class _Booked(TorchFunctionMode):
    def __init__(self, rules: Rulebook, places: "_Places") -> None:
        super().__init__()
        self._operate, self._composed, self._stack = rules.operate, rules.composed, places.stack

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.multi_head_attention_forward and not self._composed:
            bound = inspect.signature(func).bind(*args, **(kwargs or {}))
            bound.apply_defaults()
            with self:
                return multi_head(bound.arguments)
        return self._operate(func, args, kwargs or {}, self._stack[-1])


class _Places:
    """Hooks that know which layer is running; ``stack[-1]`` is its path."""

    def __init__(self, module: nn.Module) -> None:
        self.stack = [""]
        self._module = module
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "_Places":
        for path, layer in self._module.named_modules():
            if path:
                self._handles.append(layer.register_forward_pre_hook(self._entering(path), prepend=True))
                # also when the layer raises: the module may catch its own error and go on
                self._handles.append(layer.register_forward_hook(self._leaving, always_call=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _entering(self, path: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, _args: object) -> None:
            self.stack.append(path)

        return hook

    def _leaving(self, _layer: nn.Module, _args: object, _output: object) -> None:
        self.stack.pop()
