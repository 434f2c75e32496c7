"""Operations of torch replaced by others while a module runs (guided backpropagation, layer-wise relevance)."""

from collections.abc import Callable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode

Rules = Mapping[Callable[..., Any], Callable[..., Any]]


class Replaced(TorchFunctionMode):
    """Operations replaced by name; a function mode sees functional and reused ReLU alike, above autograd."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self._rules = rules

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._rules.get(func, func)(*args, **(kwargs or {}))
