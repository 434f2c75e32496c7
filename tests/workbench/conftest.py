"""A classifier and a segmenter that look for bright voxels, and cases to show them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pellucid.core.case import Case, Region
from pellucid.core.grid import Grid
from pellucid.core.image import Image, Modality
from pellucid.core.model import Identity, Model, OutputSpec
from pellucid.core.prepare import InputSpec


class Bright(nn.Module):
    """Three classes: dark, middling, bright; counts the items it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.last = nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(inplace=True), nn.Linear(3, 3)
        generator = torch.Generator().manual_seed(0)
        self.conv.weight.data = torch.rand(3, 1, 3, 3, generator=generator) / 9
        self.conv.bias.data.zero_()
        self.last.weight.data = torch.tensor([[-4.0, -4.0, -4.0], [1.0, -1.0, 0.5], [4.0, 3.0, 5.0]])
        self.last.bias.data = torch.tensor([0.5, 0.0, 0.5])
        self.items = 0

    def forward(self, x: Tensor) -> Tensor:
        self.items += len(x)
        return self.last(self.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture
def classifier() -> Model:
    spec = InputSpec(size=(16, 16), scale="unit")
    output = OutputSpec(labels=("dark", "middling", "bright"))
    return Model(Bright().train(), (spec,), output, Identity("finder", "1.2", card="c" * 64))


@pytest.fixture
def segmenter() -> Model:
    module = nn.Conv2d(1, 3, 1)
    module.weight.data = torch.tensor([0.0, 2.0, 8.0]).view(3, 1, 1, 1)
    module.bias.data = torch.tensor([0.5, 0.0, -4.0])
    output = OutputSpec("segmentation", ("background", "vessel", "bleeding"))
    return Model(module, (InputSpec(),), output)


@pytest.fixture
def make_case() -> Callable[..., Case]:
    def make(shape: tuple[int, ...] = (32, 32), modality: Modality = Modality.XRAY, name: str = "image") -> Case:
        data = torch.rand(1, *shape, generator=torch.Generator().manual_seed(1)) * 0.2
        lesion = torch.zeros(shape, dtype=torch.bool)
        lesion[(slice(6, 14), slice(18, 26), slice(2, 6))[: len(shape)]] = True
        data[:, lesion] = 1.0
        grid = Grid.regular(shape, (0.5,) * len(shape))
        image = Image(data, grid, modality)
        return Case("case-7", {name: image}, {"lesion": Region(lesion, grid)}, notes=("PLANTED square",))

    return make
