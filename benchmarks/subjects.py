"""The networks and images that are measured: seeded, with random weights, which cost what trained ones do."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec

LABELS = 14


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with one image.

    Args:
        name: of the network, with the size of the image.
        network: in evaluation mode; parameters keep ``requires_grad``, as users have them.
        image: "batch channel *space".
        layer: that class activation maps read.
    """

    name: str
    network: nn.Module
    image: Tensor
    layer: str

    @property
    def model(self) -> Model:
        """The network as Pellucid takes it."""
        return Model(self.network, (InputSpec(rank=self.image.ndim - 2, channels=self.image.shape[1]),))

    @property
    def label(self) -> int:
        """The predicted class."""
        with torch.no_grad():
            return int(self.network(self.image)[0].argmax())

    def copy(self) -> nn.Module:
        """A network of a peer's own: what it hooks or leaves there is not ours."""
        return copy.deepcopy(self.network)

    @property
    def words(self) -> dict[str, object]:
        """For the JSON."""
        return {"model": self.name, "size": list(self.image.shape), "precision": "float32", "layer": self.layer}


def densenet(shape: tuple[int, ...], device: str = "cpu") -> Subject:
    """MONAI's DenseNet121 with one channel and 14 classes, in as many dimensions as ``shape``."""
    from monai.networks.nets import DenseNet121  # which imports torchvision where it is: see rivals.py

    torch.manual_seed(0)
    network = DenseNet121(spatial_dims=len(shape), in_channels=1, out_channels=LABELS)
    size = " x ".join(str(n) for n in shape)
    return subject(f"MONAI DenseNet121, {size}", network, shape, "class_layers.relu", device)


def subject(name: str, network: nn.Module, shape: tuple[int, ...], layer: str, device: str = "cpu") -> Subject:
    """A network with an image of its own making, on a device."""
    settled(network)
    return Subject(name, network.eval().to(device), smooth_image(shape).to(device), layer)


def settled(network: nn.Module) -> None:
    """Statistics for batch normalization as training leaves them: not zero and one."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 -- the three ranks have no public base
            module.running_mean.copy_(0.05 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(0.5 + 0.5 * torch.rand(module.num_features, generator=generator))


def smooth_image(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Blobs with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand((1, 1, *(max(n // 16, 2) for n in shape)), generator=generator)
    mode = {2: "bicubic", 3: "trilinear"}[len(shape)]
    smooth = nn.functional.interpolate(low, size=shape, mode=mode, align_corners=False)
    return (smooth + 0.02 * torch.randn(smooth.shape, generator=generator)).contiguous()
