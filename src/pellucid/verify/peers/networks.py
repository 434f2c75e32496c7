"""The networks that are compared on, seeded; their structure is built on both sides, their weights are handed over."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

LABELS = 3
_CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL: dict[int, type[nn.Module]] = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


class Small(nn.Module):
    """Two convolutions with batch normalization and ReLU, then a pooled head or one that weighs every cell apart.

    Args:
        rank: spatial axes.
        channels: of the input.
        cells: of the layer ``act2``, for a head that weighs each; None: a pooled head.
    """

    def __init__(self, rank: int, channels: int, cells: int | None = None) -> None:
        super().__init__()
        conv, norm = _CONV[rank], _NORM[rank]
        self.conv1, self.norm1, self.act1 = conv(channels, 6, 3, 1, 1), norm(6), nn.ReLU()
        self.conv2, self.norm2, self.act2 = conv(6, 8, 3, 2, 1), norm(8), nn.ReLU()
        self.pool = _POOL[rank](1) if cells is None else nn.Identity()
        self.flat, self.head = nn.Flatten(), nn.Linear(8 * (cells or 1), LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        a = self.act2(self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x))))))
        return self.head(self.flat(self.pool(a)))


class Functional(nn.Module):
    """A network whose ReLU is no module: what replaces modules does not see it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.head = nn.Linear(8, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        a = functional.relu(self.conv2(functional.relu(self.conv1(x))))
        return self.head(a.flatten(2).mean(2))


class Plain(nn.Module):
    """Two convolutions, averaged by a module: what peers that look at modules alone can take apart."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.act1 = nn.Conv2d(channels, 6, 3, 2, 1), nn.ReLU()
        self.conv2, self.act2 = nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.pool(self.act2(self.conv2(self.act1(self.conv1(x))))).flatten(1))


class Residual(nn.Module):
    """A sum of a path and its shortcut, without a bias anywhere: relevance has nowhere to go but the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.act1 = nn.Conv2d(channels, 6, 3, 2, 1, bias=False), nn.ReLU()
        self.conv2, self.act2 = nn.Conv2d(6, 6, 3, 1, 1, bias=False), nn.ReLU()
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(6, LABELS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        a = self.act1(self.conv1(x))
        return self.head(self.pool(a + self.act2(self.conv2(a))).flatten(1))


class Normed(nn.Module):
    """Normalization by the image's own statistics, without a bias; the largest of each channel, as their mean is 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, 6, 3, 2, 1, bias=False), nn.InstanceNorm2d(6)
        self.act1, self.conv2 = nn.LeakyReLU(0.01), nn.Conv2d(6, 6, 3, 1, 1, bias=False)
        self.pool, self.head = nn.AdaptiveMaxPool2d(1), nn.Linear(6, LABELS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.pool(self.conv2(self.act1(self.norm1(self.conv1(x))))).flatten(1))


class Affine(nn.Module):
    """A score that is linear in the image: every correct path rule is exact on it."""

    def __init__(self, channels: int, cells: int) -> None:
        super().__init__()
        self.flat, self.head = nn.Flatten(), nn.Linear(channels * cells, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.flat(x))


class Faint(nn.Module):
    """The same network with its score divided by ten thousand: an explanation should hardly care."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.net(x) * 1e-4


class Regional(nn.Module):
    """A segmentation seen as a classifier of one value: the mean logit of a class over a fixed region.

    Args:
        net: to class maps.
        label: whose logits count.
        mask: the region, "*space".
    """

    def __init__(self, net: nn.Module, label: int, mask: Tensor) -> None:
        super().__init__()
        self.net, self.label, self.mask = net, label, mask

    def forward(self, x: Tensor) -> Tensor:
        """One column."""
        return self.net(x)[:, self.label][:, self.mask].mean(1, keepdim=True)


def _densenet(channels: int, _cells: int) -> nn.Module:
    from monai.networks.nets import DenseNet121

    return DenseNet121(spatial_dims=2, in_channels=channels, out_channels=LABELS)


def _unet(rank: int) -> Callable[[int, int], nn.Module]:
    def make(channels: int, _cells: int) -> nn.Module:
        from monai.networks.nets import UNet

        return UNet(rank, channels, LABELS, (6, 8, 12), (2, 2), num_res_units=1)

    return make


# every network: (channels of the input, cells of its last layer or voxels of its input) -> module
NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "pooled-2d": lambda channels, _: Small(2, channels),
    "pooled-3d": lambda channels, _: Small(3, channels),
    "dense-2d": lambda channels, cells: Small(2, channels, cells),
    "dense-3d": lambda channels, cells: Small(3, channels, cells),
    "faint-2d": lambda channels, cells: Faint(Small(2, channels, cells)),
    "functional-2d": lambda channels, _: Functional(channels),
    "plain-2d": lambda channels, _: Plain(channels),
    "residual-2d": lambda channels, _: Residual(channels),
    "normed-2d": lambda channels, _: Normed(channels),
    "linear-2d": Affine,
    "densenet121": _densenet,
    "unet-2d": _unet(2),
    "unet-3d": _unet(3),
}
OF_MONAI = ("densenet121", "unet-2d", "unet-3d")


def build(name: str, channels: int, cells: int) -> nn.Module:
    """A network by name, seeded, in float64 and evaluation mode, with batch statistics that are not trivial."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = NETWORKS[name](channels, cells).double().eval()
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 -- torch names no public base of them
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
    return net


def plain(net: nn.Module) -> nn.Module:
    """The network without in-place layers, which most peers cannot hook; its scores are the same."""
    for module in net.modules():
        if "inplace" in vars(module):
            module.inplace = False
    return net
