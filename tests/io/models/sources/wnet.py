"""W-Net for retinal vessels: two U-Nets in a row (Galdran et al. 2022, agaldran/lwnet; MIT license)."""

from itertools import pairwise

import torch
from torch import Tensor, nn


def conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(outputs)]


class ConvBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, pool: bool) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.block = nn.Sequential(*conv(inputs, outputs), *conv(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        return self.block(x) + self.shortcut(x)


class Bridge(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Enlarge(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 2, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class UpBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up_layer = Enlarge(inputs, outputs)
        self.conv_layer = ConvBlock(2 * outputs, outputs, pool=False)
        self.conv_bridge_layer = Bridge(outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv_layer(torch.cat([self.up_layer(x), self.conv_bridge_layer(skip)], 1))


class UNet(nn.Module):
    def __init__(self, inputs: int, classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.first = ConvBlock(inputs, widths[0], pool=False)
        pairs = list(pairwise(widths))
        self.down_path = nn.ModuleList(ConvBlock(a, b, pool=True) for a, b in pairs)
        self.up_path = nn.ModuleList(UpBlock(b, a) for a, b in reversed(pairs))
        self.final = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        skips = []
        for block in self.down_path:
            skips.append(x)
            x = block(x)
        for block, skip in zip(self.up_path, reversed(skips), strict=True):
            x = block(x, skip)
        return self.final(x)


class WNet(nn.Module):
    def __init__(self, classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.unet1 = UNet(3, classes, widths)
        self.unet2 = UNet(3 + classes, classes, widths)

    def forward(self, x: Tensor) -> Tensor:
        return self.unet2(torch.cat([x, self.unet1(x)], 1))


def vessels() -> nn.Module:
    return WNet(1, (8, 16, 32))
