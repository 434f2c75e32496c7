"""MeshNet of Brainchop: dilated 3-D convolutions that keep the size (Fedorov et al. 2017; MIT license)."""

from torch import Tensor, nn


class MeshNet(nn.ModuleList):
    """Convolution and ReLU at each dilation, then a 1 x 1 x 1 convolution; names as in the weights: ``0.weight``."""

    def __init__(self, channels: int, dilations: list[int], classes: int = 3) -> None:
        inputs = [1, *[channels] * (len(dilations) - 1)]
        layers = [nn.Conv3d(i, channels, 3, padding=d, dilation=d) for i, d in zip(inputs, dilations, strict=True)]
        super().__init__([*layers, nn.Conv3d(channels, classes, 1)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in list(self)[:-1]:
            x = layer(x).relu()
        return self[len(self) - 1](x)


def build(channels: int, dilations: list[int]) -> nn.Module:
    return MeshNet(channels, dilations)
