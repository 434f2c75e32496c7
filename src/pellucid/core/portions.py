"""Some items at a time, where a module takes a fixed number or memory holds no more."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Inputs = Mapping[str, Tensor]


def in_parts(call: Callable[[Inputs], Tensor], inputs: Inputs, size: int, fixed: bool) -> Tensor:
    """The answers of ``call``, made on some items at a time.

    Args:
        call: head's output of inputs.
        inputs: any number of items.
        size: at most so many at a time.
        fixed: exactly so many, filled up with the last one.
    """
    count = len(next(iter(inputs.values())))
    parts: list[Tensor] = []
    for first in range(0, count, size):
        part = {k: v[first : first + size] for k, v in inputs.items()}
        short = size - min(size, count - first) if fixed else 0
        padded = {k: torch.cat([v, v[-1:].expand(short, *v.shape[1:])]) for k, v in part.items()} if short else part
        parts.append(call(padded)[: min(size, count - first)])
    return torch.cat(parts)
