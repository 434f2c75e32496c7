"""A model as exporters want it: a module from tensors to the head's output, and an example."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pellucid.core.model import Inputs, Model

_EXAMPLE = 2  # items: with one, an exporter may take the batch for a constant
_INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


class Headed(nn.Module):
    """A copy of a model's module that takes tensors in the order of the inputs and returns the head as float32."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.inner = copy.deepcopy(model.module)
        self.model = replace(model, module=self.inner, can=replace(model.can, batch=None), _traces={}, _defaults={})

    def forward(self, *tensors: Tensor) -> Tensor:
        """The head's output."""
        return self.model({s.name: x for s, x in zip(self.model.inputs, tensors, strict=True)}).float()


def group_instances(module: nn.Module) -> None:
    """Replace instance normalization by group normalization with a group for each channel: the same numbers."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in _INSTANCE and not child.track_running_stats:
                made = nn.GroupNorm(child.num_features, child.num_features, child.eps, child.affine)
                made.weight, made.bias = child.weight, child.bias
                setattr(parent, name, made)


def example(model: Model, inputs: Inputs) -> tuple[Tensor, ...]:
    """Items of the shape that will be evaluated, in the order of the inputs."""
    count = model.can.batch or _EXAMPLE
    return tuple(single(inputs[s.name][:1].expand(count, *inputs[s.name].shape[1:])) for s in model.inputs)


def single(x: Tensor) -> Tensor:
    """In single precision where it is a floating-point tensor."""
    return (x.float() if x.is_floating_point() else x).contiguous()


def arrays(model: Model, inputs: Inputs) -> list[NDArray[np.generic]]:
    """The inputs in order, as NumPy has them."""
    return [single(inputs[s.name]).numpy() for s in model.inputs]


@contextmanager
def exporting(model: Model) -> Iterator[None]:
    """Evaluation mode, no graph, random state kept; what exporters warn of is found by comparing scores."""
    with model.held(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
