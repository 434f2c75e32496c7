"""Subjects to explain: a model, its inputs, a target, and the same score as a plain function of tensors."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore, Margin, RegionScore, Target

SHAPE = {2: (8, 10), 3: (4, 6, 8)}  # no two axes alike: a swapped axis shows


@dataclass(frozen=True, eq=False)
class Subject:
    """What a test explains, and what the second implementation is told of it.

    Args:
        score: named inputs of any batch size -> one value per item, without Pellucid.
        layer: whose map is drawn; with ``front`` (inputs -> its output) and ``tail`` (its output -> score).
    """

    model: Model
    inputs: dict[str, Tensor]
    target: Target
    score: Callable[[dict[str, Tensor]], Tensor]
    scene: Scene = field(default_factory=Scene)
    layer: str | None = None
    front: Callable[[dict[str, Tensor]], Tensor] | None = None
    tail: Callable[[Tensor], Tensor] | None = None

    def item(self, i: int) -> dict[str, Tensor]:
        """One item of the batch."""
        return {name: x[i : i + 1] for name, x in self.inputs.items()}


def wrap(net, rank, output=None, names=("image",), channels=(2,), **more) -> Model:
    """A network as a Model; rank 0 marks a vector."""
    ranks = rank if isinstance(rank, tuple) else (rank,) * len(names)
    specs = tuple(InputSpec(n, rank=r, channels=c, order="rgb") for n, r, c in zip(names, ranks, channels, strict=True))
    return Model(net, specs, output or OutputSpec(), **more)


def run(explainer, model, x, target=None, scene=None, precision="float32") -> Any:
    """The answer of a method on a fresh probe."""
    inputs = {model.primary: x} if isinstance(x, Tensor) else x
    target = ClassScore(1) if target is None else target
    return explainer(Probe(model, inputs, target, explainer.needs(model, inputs), scene, precision))


def _split(nets, net, rank, target, pick, output=None, scene=None) -> Subject:
    """A subject of ``Split`` form; ``pick`` reads the score off the output."""
    x = {"image": nets.noise(2, 2, *SHAPE[rank])}
    return Subject(
        wrap(net, rank, output),
        x,
        target,
        lambda i: pick(net(i["image"])),
        scene or Scene(),
        "front",
        lambda i: net.front(i["image"]),
        lambda a: pick(net.tail(a)),
    )


def _segmentation(nets, rank) -> Subject:
    box = torch.zeros(SHAPE[rank], dtype=torch.bool)
    box[(slice(1, 4), slice(2, 6), slice(3, 7))[:rank]] = True

    def pick(output):
        return output[:, 1][:, box].mean(1)

    target, scene = RegionScore(1, "box"), Scene(regions={"box": box})
    return _split(nets, nets.segmenter(rank), rank, target, pick, OutputSpec("segmentation"), scene)


def _single(nets, rank, label, sign) -> Subject:
    output = OutputSpec(labels=("normal", "sick"), activation="sigmoid")
    return _split(nets, nets.classifier(rank, 1), rank, ClassScore(label), lambda o: sign * o[:, 0], output)


def _reused(nets, rank, call) -> Subject:
    net = nets.seeded(lambda: nets.Reused(rank))
    front, tail = (net.middle, net.after_middle) if call == 1 else (net.front, net.tail)
    return Subject(
        wrap(net, rank),
        {"image": nets.noise(2, 2, *SHAPE[rank])},
        ClassScore(1),
        lambda i: net(i["image"])[:, 1],
        layer=f"relu#{call}",
        front=lambda i: front(i["image"]),
        tail=lambda a: tail(a)[:, 1],
    )


def _in_place(nets, rank) -> Subject:
    net = nets.seeded(lambda: nets.InPlaceBehind(rank))
    x = {"image": nets.noise(2, 2, *SHAPE[rank])}
    return Subject(
        wrap(net, rank),
        x,
        ClassScore(1),
        lambda i: net.tail(net.conv(i["image"]))[:, 1],
        layer="conv",
        front=lambda i: net.conv(i["image"]),
        tail=lambda a: net.tail(a)[:, 1],
    )


def _tuple(nets, rank) -> Subject:
    net = nets.seeded(lambda: nets.TupleLayer(rank))
    x = nets.noise(1, 2, *SHAPE[rank])  # one item: the other element of the pair is held at this item's value
    beside = net.encoder.two(x).detach()
    return Subject(
        wrap(net, rank),
        {"image": x},
        ClassScore(1),
        lambda i: net(i["image"])[:, 1],
        layer="encoder[0]",
        front=lambda i: net.encoder.one(i["image"]),
        tail=lambda a: net.tail(a, beside)[:, 1],
    )


def _dict_head(nets, rank) -> Subject:
    inner = nets.classifier(rank)
    subject = _split(nets, inner, rank, ClassScore(1), lambda o: o[:, 1])
    net = nets.seeded(lambda: nets.DictHead(inner))
    model = wrap(net, rank, OutputSpec(head="out"))
    return Subject(
        model, subject.inputs, ClassScore(1), subject.score, Scene(), "inner.front", subject.front, subject.tail
    )


def _two_images(nets, rank) -> Subject:
    net = nets.seeded(lambda: nets.TwoImages(rank))
    inputs = {"pet": nets.noise(2, 1, *SHAPE[rank]), "ct": nets.noise(2, 2, *SHAPE[rank], seed=2)}
    model = wrap(net, rank, names=("pet", "ct"), channels=(1, 2))
    return Subject(model, inputs, ClassScore(1), lambda i: net(i["pet"], i["ct"])[:, 1])


def _image_and_vector(nets, rank) -> Subject:
    net = nets.seeded(lambda: nets.ImageAndVector(rank))
    inputs = {"image": nets.noise(2, 2, *SHAPE[rank]), "covariates": nets.noise(2, 5, seed=2)}
    model = wrap(net, (rank, 0), names=("image", "covariates"), channels=(2, 5))
    return Subject(model, inputs, ClassScore(1), lambda i: net(i["image"], i["covariates"])[:, 1])


KINDS: dict[str, Callable[[Any, int], Subject]] = {
    "classification": lambda n, r: _split(n, n.classifier(r), r, ClassScore(1), lambda o: o[:, 1]),
    "margin": lambda n, r: _split(n, n.classifier(r), r, Margin(2, 0), lambda o: o[:, 2] - o[:, 0]),
    "segmentation": _segmentation,
    "regression": lambda n, r: _split(
        n, n.classifier(r, 1), r, ClassScore(), lambda o: o[:, 0], OutputSpec("regression", (), "none", "years")
    ),
    "single-logit-positive": lambda n, r: _single(n, r, "sick", 1),
    "single-logit-negative": lambda n, r: _single(n, r, "normal", -1),
    "reused-first": lambda n, r: _reused(n, r, 1),
    "reused-second": lambda n, r: _reused(n, r, 2),
    "in-place-behind": _in_place,
    "tuple-layer": _tuple,
    "dict-head": _dict_head,
    "two-images": _two_images,
    "image-and-vector": _image_and_vector,
}


@pytest.fixture(scope="session")
def nets(reference) -> Any:
    """The networks to compare on."""
    return reference("networks")


@pytest.fixture(scope="session")
def subject(nets) -> Callable[[str, int], Subject]:
    """A subject by kind and rank."""
    return lambda kind, rank: KINDS[kind](nets, rank)


@pytest.fixture(scope="session")
def explained() -> Callable[..., Any]:
    """Run a method: ``explained(explainer, model, x, target, scene, precision)``."""
    return run


@pytest.fixture(scope="session")
def model_of() -> Callable[..., Model]:
    """A network as a Model: ``model_of(net, rank, output, names, channels)``."""
    return wrap
