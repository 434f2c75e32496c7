"""Something that evaluates a model faster than its module does, for the thousands of forwards of a perturbation."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.core.model import Inputs, in_parts


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
        """The head's output as float32, on the device of the inputs, for any number of items."""
        device = next(iter(inputs.values())).device
        with torch.no_grad():
            return in_parts(self._run, inputs, self.batch, self.fixed).to(device, torch.float32)

    @abstractmethod
    def _run(self, inputs: Inputs) -> Tensor:
        """The head's output for at most (``fixed``: exactly) ``batch`` items; the inputs must not be changed."""
