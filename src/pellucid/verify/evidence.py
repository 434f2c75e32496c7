"""What the formulas of this room are written on: activations and gradients by plain torch alone."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from pellucid.verify.subjects import Prepared


@dataclass(frozen=True, eq=False)
class Evidence:
    """A subject's numbers.

    Args:
        prepared: the subject.
        noise: that ours has drawn, "draw batch channel *space".
    """

    prepared: Prepared
    noise: Tensor

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
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
            kept.append(output if output.requires_grad else output.detach().requires_grad_())
            return kept[-1].clone()

        handle = self.net.get_submodule(self.prepared.peer_layer).register_forward_hook(keep)
        try:
            total = self.scores(self.x, labels).sum()
        finally:
            handle.remove()
        return kept[0].detach(), torch.autograd.grad(total, kept[0])[0]


def over_space(x: Tensor) -> tuple[int, ...]:
    """The spatial axes."""
    return tuple(range(2, x.ndim))
