"""What the formulas of this room are written on: activations and gradients by plain torch alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.verify.subjects import Prepared

Hook = Callable[[nn.Module, Any, Any], Tensor]


@dataclass(frozen=True, eq=False)
class Evidence:
    """A subject's numbers.

    Args:
        prepared: the subject.
        noise: that ours has drawn, "draw batch channel *space".
        given: further tensors, by name: what was handed to the peer, and what it told beside its map.
    """

    prepared: Prepared
    noise: Tensor
    given: Mapping[str, Tensor] = field(default_factory=dict)

    @cached_property
    def net(self) -> nn.Module:
        """As the peer has it."""
        return self.prepared.peer_net()

    @property
    def x(self) -> Tensor:
        """The image."""
        return self.prepared.x

    def scores(self, x: Tensor, labels: tuple[int, ...] | None = None) -> Tensor:
        """The explained value of each item."""
        output, chosen = self.net(x), labels or self.prepared.labels
        return output[torch.arange(len(output)), list(chosen)]

    @cached_property
    def score(self) -> Tensor:
        """Of the image itself."""
        with torch.no_grad():
            return self.scores(self.x)

    def gradient(self, x: Tensor | None = None) -> Tensor:
        """Of the explained value with respect to the image."""
        leaf = (self.x if x is None else x).clone().requires_grad_()
        return torch.autograd.grad(self.scores(leaf).sum(), leaf)[0]

    @cached_property
    def cells(self) -> tuple[Tensor, Tensor]:
        """Activation and gradient of the layer."""
        return self.cells_for(self.prepared.labels)

    def cells_for(self, labels: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The same for other labels, one for each item."""
        return self.cells_at(self.prepared.peer_layer, labels)

    def cells_at(self, layer: str, labels: tuple[int, ...] | None = None) -> tuple[Tensor, Tensor]:
        """The same of another layer."""
        return self.cells_of([layer], labels)[layer]

    def cells_of(
        self, layers: Sequence[str], labels: tuple[int, ...] | None = None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The same of several layers, by one forward and backward."""
        kept: dict[str, Tensor] = {}

        def keep(layer: str) -> Hook:
            def hook(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
                kept[layer] = output if output.requires_grad else output.detach().requires_grad_()
                return kept[layer].clone()

            return hook

        handles = [self.net.get_submodule(layer).register_forward_hook(keep(layer)) for layer in layers]
        try:
            total = self.scores(self.x, labels).sum()
        finally:
            for handle in handles:
                handle.remove()
        gradients = torch.autograd.grad(total, [kept[layer] for layer in layers])
        return {layer: (kept[layer].detach(), g) for layer, g in zip(layers, gradients, strict=True)}

    def scores_behind(self, cells: Tensor) -> Tensor:
        """The explained value of each item when the layer gives these cells instead of its own."""
        handle = self.net.get_submodule(self.prepared.peer_layer).register_forward_hook(lambda *_: cells)
        try:
            with torch.no_grad():
                return self.scores(self.x)
        finally:
            handle.remove()

    def guided(self) -> Tensor:
        """The gradient to the image with every module of the class ReLU guided, by hooks on its backward."""

        def cut(_module: nn.Module, given: tuple[Tensor, ...], _output: object) -> tuple[Tensor]:
            return (given[0].clamp_min(0),)

        handles = [m.register_full_backward_hook(cut) for m in self.net.modules() if isinstance(m, nn.ReLU)]
        try:
            return self.gradient()
        finally:
            for handle in handles:
                handle.remove()


def over_space(x: Tensor) -> tuple[int, ...]:
    """The spatial axes."""
    return tuple(range(2, x.ndim))
