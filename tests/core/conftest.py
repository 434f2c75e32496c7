"""Small networks whose answers are known, and a full picture of a module's state."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Small(nn.Module):
    """A classifier with in-place, reused and functional ReLU, batch norm and dropout, in training mode."""

    def __init__(self, rank: int = 2, channels: int = 2, classes: int = 3) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
        norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[rank]
        self.first, self.norm, self.second = conv(channels, 4, 3, padding=1), norm(4), conv(4, 6, 3, 2, 1)
        self.relu, self.drop = nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.pool = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[rank](2)
        self.last = nn.Linear(6 * 2**rank, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = self.relu(self.second(x))
        return self.last(F.relu(self.drop(self.pool(x).flatten(1)) - 0.1))


@pytest.fixture
def small() -> Callable[..., nn.Module]:
    def make(rank: int = 2, channels: int = 2, classes: int = 3, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = Small(rank, channels, classes)
            module.norm.running_mean.normal_()
            module.norm.running_var.uniform_(0.5, 2)
        return module.train()

    return make


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    """Seeded normal numbers."""

    def make(*shape: int, seed: int = 0) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

    return make


def _state(module: nn.Module) -> list[object]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        [(m.training, vars(m).get("inplace"), *(len(getattr(m, h)) for h in hooks)) for m in module.modules()],
        # the version counts writes in place, also those that were undone
        [(p.requires_grad, p._version, p.data_ptr()) for p in module.parameters()],
        [None if p.grad is None else (p.grad.data_ptr(), p.grad._version) for p in module.parameters()],
        [b._version for b in module.buffers()],
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        len(torch.overrides._get_current_function_mode_stack()),
    ]


@pytest.fixture
def untouched() -> Callable[[nn.Module], AbstractContextManager[None]]:
    """A context that fails where anything of a module, or of the random and other global states, is changed."""

    @contextmanager
    def watch(module: nn.Module) -> Iterator[None]:
        before, weights = _state(module), {k: v.clone() for k, v in module.state_dict().items()}
        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        try:
            yield
        finally:
            for was, now in zip(before, _state(module), strict=True):
                assert was == now
            assert torch.equal(torch_state, torch.get_rng_state())
            assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002
            assert all(torch.equal(weights[k], v) for k, v in module.state_dict().items())

    return watch
