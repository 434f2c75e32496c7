"""What is explained on both sides: a network, a real image, a target and a layer."""

from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from math import prod

import torch
from torch import Tensor, nn

from pellucid.core.errors import MissingExtra
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Scene
from pellucid.core.target import ClassScore, RegionScore, Target
from pellucid.verify import images
from pellucid.verify.peers import networks

_PAIR, PATCHES = "retina x 2", "retina patches"


@dataclass(frozen=True)
class Subject:
    """One thing to explain.

    Args:
        network: by name, see ``peers.networks``.
        image: ``retina``, ``retina x 2``, ``retina patches`` (a cohort), ``film`` or ``brain``.
        shape: of the image.
        layer: read by class activation maps; empty: none.
        region: whether the output is a segmentation and the target a region.
        head: the fully connected layer behind a pooled layer, where there is one.
    """

    network: str
    image: str
    shape: tuple[int, ...]
    layer: str = "act2"
    region: bool = False
    head: str = "head"

    @property
    def name(self) -> str:
        """Unique."""
        return f"{self.network} {self.image} {self.layer}"

    @property
    def cells(self) -> int:
        """Of the last layer of a small network, which halves the image; voxels of the image for a linear one."""
        halved = self.shape if self.network == "linear-2d" else tuple((n + 1) // 2 for n in self.shape)
        return prod(halved)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A subject with its tensors.

    Args:
        subject: as declared.
        net: as it is built, in float64.
        x: the image, "batch channel *space".
        labels: explained, one for each item.
        mask: the region of a segmentation, "*space".
        label: of the segmentation.
    """

    subject: Subject
    net: nn.Module
    x: Tensor
    labels: tuple[int, ...]
    mask: Tensor | None = None
    label: int = 1

    @cached_property
    def model(self) -> Model:
        """For our side."""
        spec = InputSpec(rank=self.x.ndim - 2, channels=self.x.shape[1], order="rgb")
        return Model(self.net, (spec,), OutputSpec("segmentation" if self.mask is not None else "classification"))

    @property
    def target(self) -> Target:
        """For our side; a batch is explained item by item for what is predicted."""
        if self.mask is not None:
            return RegionScore(self.label, "box")
        return ClassScore(self.labels[0]) if len(self.labels) == 1 else ClassScore()

    @property
    def scene(self) -> Scene:
        """For our side."""
        return Scene(regions={} if self.mask is None else {"box": self.mask}, seed=0)

    @property
    def peer_layer(self) -> str:
        """The layer's name as a peer sees it: a segmentation is wrapped into a classifier of one value."""
        return f"net.{self.subject.layer}" if self.mask is not None else self.subject.layer

    def peer_net(self) -> nn.Module:
        """A fresh network as a peer sees it, without in-place layers; the score is ``labels`` of its output."""
        fresh = networks.build(self.subject.network, self.x.shape[1], self.subject.cells)
        fresh.load_state_dict(self.net.state_dict())
        if self.mask is not None:
            fresh = networks.Regional(fresh, self.label, self.mask)
        return networks.plain(fresh)


def prepare(subject: Subject) -> Prepared:
    """Build the network, cut the image and choose what is explained.

    Raises:
        MissingExtra: the network is one of MONAI's, and MONAI is not installed.
    """
    shape = subject.shape
    if subject.network in networks.OF_MONAI and find_spec("monai") is None:
        raise MissingExtra(f"the network {subject.network} is MONAI's, which is not installed", "pip install monai")
    made = {_PAIR: images.pair, PATCHES: images.patches}.get(subject.image)
    x = made(shape) if made else images.picture(subject.image, shape)
    net = networks.build(subject.network, x.shape[1], subject.cells)
    with torch.no_grad():
        if subject.region:
            mask = torch.zeros(shape, dtype=torch.bool)
            mask[tuple(slice(n // 4, n // 2) for n in shape)] = True
            return Prepared(subject, net, x, (0,) * len(x), mask)
        if len(x) > 1:  # each item another class
            net.get_parameter(f"{subject.head}.bias").sub_(net(x).mean(0))
        if subject.image == PATCHES:  # one class for the whole cohort
            return Prepared(subject, net, x, (0,) * len(x))
        return Prepared(subject, net, x, tuple(net(x).argmax(1).tolist()))
