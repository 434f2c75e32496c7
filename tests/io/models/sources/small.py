"""Small networks of several kinds: copied into a model's folder as its factory, and built directly to compare."""

import torch
from torch import Tensor, nn


class Plane(nn.Module):
    """2-D classifier with an in-place layer, batch statistics and dropout."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 8, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.features(x).mean((2, 3))))


class Volume(nn.Module):
    """3-D segmentation of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3, padding=1)
        self.last = nn.Conv3d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


class Pair(nn.Module):
    """3-D classifier of two named inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.pet = nn.Conv3d(1, 3, 3, padding=1)
        self.ct = nn.Conv3d(1, 3, 3, padding=1)
        self.head = nn.Linear(3, 2)

    def forward(self, pet: Tensor, ct: Tensor) -> Tensor:
        return self.head((torch.relu(self.pet(pet)) * torch.tanh(self.ct(ct))).mean((2, 3, 4)))


def seeded(module: nn.Module) -> nn.Module:
    """The module with weights of its own seed, in evaluation mode."""
    source = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape, generator=source) * 0.5)
        for name, value in module.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(torch.randn(value.shape, generator=source) * 0.1)
            if name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=source) + 0.5)
    return module.eval()


def plane(classes: int = 3) -> nn.Module:
    return seeded(Plane(classes))


def volume() -> nn.Module:
    return seeded(Volume())


def pair() -> nn.Module:
    return seeded(Pair())
