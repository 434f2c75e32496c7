"""Networks, images and probes that engines are tried on."""

from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import nn

from pellucid.core.model import Abilities, Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore
from pellucid.demo.cases import MODELS, packaged
from pellucid.engines import choosing
from pellucid.explain.gradient import Saliency
from pellucid.io.models import load_model
from pellucid.workbench.job import Request, run_case

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
SHAPE = {2: (24, 30), 3: (10, 12, 14)}  # no two axes alike: a swapped axis shows


def small(rank: int) -> nn.Sequential:
    """A convolutional classifier with three classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rank)
        conv = CONV[rank]
        return nn.Sequential(
            conv(1, 8, 3, padding=1),
            nn.ReLU(),
            conv(8, 8, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(2),
            Mean(),
            nn.Linear(8, 3),
        ).eval()


class Mean(nn.Module):
    """Over space."""

    def forward(self, x):
        return x.mean(2)


class TwoImages(nn.Module):
    """Score of an interaction between two images; the second has two channels."""

    def __init__(self) -> None:
        super().__init__()
        self.pet, self.ct, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(2, 4, 3), nn.Linear(4, 3)

    def forward(self, pet, ct):
        return {"logits": self.fc((torch.tanh(self.pet(pet)) * torch.relu(self.ct(ct))).flatten(2).mean(2))}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def probe_of(net: nn.Module, rank: int, batch: int = 1, target: object = None, **more: Any) -> Probe:
    """A probe of noise."""
    model = Model(net, (InputSpec(rank=rank),), **more)
    return Probe(model, noise(batch, 1, *SHAPE[rank]), target or ClassScore(1))


def two_images() -> Probe:
    """Two inputs of different channels, and a dict for an output."""
    inputs = (InputSpec("pet"), InputSpec("ct", channels=2, order="rgb"))
    model = Model(TwoImages().eval(), inputs, OutputSpec(head="logits"), call="keyword")
    return Probe(model, {"pet": noise(1, 1, 24, 30), "ct": noise(1, 2, 24, 30, seed=1)}, ClassScore(1))


def dense() -> Probe:
    """MONAI's DenseNet121 with batch statistics that are not trivial."""
    from monai.networks.nets import DenseNet121

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = DenseNet121(spatial_dims=2, in_channels=1, out_channels=3)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
            m.running_var.uniform_(0.5, 1.0, generator=torch.Generator().manual_seed(2))
    return Probe(Model(net.eval()), noise(1, 1, 64, 64), ClassScore(1))


def demo_probe(name: str) -> Probe:
    """A demo network on its first packaged case."""
    made = next(c for c in packaged() if c.model == name)
    loaded = load_model(MODELS / name / "model.toml")
    targets = (made.target,) if made.target else ()
    request = Request(targets, (Saliency(),), crop=made.crop, override=True, checks=False)
    return run_case(made.case, loaded, request).panel.probes[0]


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """No engine of another test."""
    choosing._built.clear()
    yield
    choosing._built.clear()


@pytest.fixture
def package() -> Callable[[str], None]:
    """Skip where an optional package is absent; on CI that is a failure."""

    def needed(name: str) -> None:
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: its engine is not tested")

    return needed


@pytest.fixture(scope="session")
def subject() -> Callable[[str], Probe]:
    """A probe by name: ``small-2d``, ``small-3d``, ``two-images``, ``fixed-batch``, ``dense``, or a demo network."""
    made: dict[str, Callable[[], Probe]] = {
        "small-2d": lambda: probe_of(small(2), 2),
        "small-3d": lambda: probe_of(small(3), 3, batch=2),
        "two-images": two_images,
        "fixed-batch": lambda: probe_of(small(2), 2, can=Abilities(batch=3)),
        "dense": dense,
    }
    return cache(lambda name: made[name]() if name in made else demo_probe(name))
