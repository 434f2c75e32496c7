"""Something that evaluates a model faster than its module does, for the thousands of forwards of a perturbation."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.core.model import Inputs, in_parts

# torch on a processor, OpenVINO (std::bad_alloc), oneDNN under it, ONNX Runtime
_FULL = ("can't allocate memory", "bad_alloc", "bad allocation", "out of memory", "failed to allocate memory")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory; many runtimes raise it as any other.

    Example:
        >>> ran_out(RuntimeError("Exception from core.cpp: std::bad_alloc")), ran_out(RuntimeError("no such layer"))
        (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    told = str(error).lower()
    return any(words in told for words in _FULL)


@dataclass(frozen=True, eq=False)
class Engine(ABC):
    """Inputs to the head's output, and nothing else: no gradient, no layer, no edit.

    Args:
        name: as ``--engine`` takes it.
        precision: of the arithmetic, in words.
        batch: items at once; what fits best, or the model's fixed batch.
        fixed: whether it takes exactly ``batch`` items; missing ones are filled up, and dropped afterwards.
    """

    name: str
    precision: str
    batch: int
    fixed: bool = False

    def __call__(self, inputs: Inputs) -> Tensor:
        """The head's output as float32, on the device of the inputs, for any number of items.

        Raises:
            MemoryError: there is not enough, in whatever words the runtime says it.
        """
        device = next(iter(inputs.values())).device
        try:
            with torch.no_grad():
                return in_parts(self._run, inputs, self.batch, self.fixed).to(device, torch.float32)
        except Exception as error:  # runtimes share no base, and tell of memory in words
            if ran_out(error) and not isinstance(error, torch.OutOfMemoryError | MemoryError):
                raise MemoryError(str(error)) from error
            raise

    @abstractmethod
    def _run(self, inputs: Inputs) -> Tensor:
        """The head's output for at most (``fixed``: exactly) ``batch`` items; the inputs must not be changed."""
