"""Score a given map, without a method behind it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from torch import Tensor

from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore
from pellucid.explain.gradient import Saliency


@dataclass(frozen=True)
class Stand(Explainer, abstract=""):
    """Stands in for a method: answers with a function of the probe. Not declared, so that no registry learns of it."""

    answer: Callable[[Probe], Tensor]
    card: ClassVar = Saliency.card

    def __call__(self, probe: Probe) -> Attribution:
        return given(self.answer(probe))


def given(maps: Tensor) -> Attribution:
    """A map of the input ``image``, one channel where it has none."""
    return Attribution(maps={"image": maps}, unit="logit", signed=True, cell=(1.0,) * (maps.ndim - 2))


def wrap(net: Any, rank: int, channels: int = 1) -> Model:
    return Model(net, (InputSpec(rank=rank, channels=channels, order="rgb"),), OutputSpec())


@pytest.fixture(scope="session")
def nets(reference) -> Any:
    """The networks to compare on."""
    return reference("networks")


@pytest.fixture(scope="session")
def model_of() -> Callable[..., Model]:
    """A network as a Model: ``model_of(net, rank, channels)``."""
    return wrap


@pytest.fixture(scope="session")
def scored() -> Callable[..., Any]:
    """``scored(metric, model, x, maps, region, scene, target)``: maps are "batch channel *space"."""

    def run(metric, model, x, maps, region=None, scene=None, target=None):
        probe = Probe(model, x, ClassScore(0) if target is None else target, (), scene)
        return metric(probe, given(maps), Saliency(), region)

    return run


@pytest.fixture(scope="session")
def stand() -> type[Stand]:
    """A stand-in method from a function of the probe."""
    return Stand
