"""Our side of a comparison of metrics: a score on a prepared subject, and what the network was shown for it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pellucid.core.errors import DeclarationError
from pellucid.core.explanation import Attribution
from pellucid.core.metric import Score
from pellucid.core.probe import Probe
from pellucid.verify.subjects import Prepared, Subject, prepare
from pellucid.workbench.registry import make_explainer, make_metric

_BRIGHT = 0.85  # of the voxels are darker than the region


@dataclass(frozen=True, eq=False)
class Scored:
    """What a metric gave.

    Args:
        score: of each item.
        map: that was scored, "batch 1 *space".
        seen: by the network besides the image itself, "draw batch channel *space"; what was asked twice is there once.
    """

    score: Score
    map: Tensor
    seen: Tensor


def exact(subject: Subject) -> Prepared:
    """A subject whose image loses nothing in float32, as one peer makes every input that.

    Raises:
        MissingExtra: the network is of a package that is not installed.
    """
    prepared = prepare(subject)
    return replace(prepared, x=prepared.x.float().double())


def region_of(prepared: Prepared) -> Tensor:
    """The bright structures of the first item's image, as an expert's region: "*space"."""
    values = prepared.x[0].mean(0)
    return values > torch.quantile(values.flatten(), _BRIGHT)


def two_valued(prepared: Prepared) -> Tensor:
    """A map of many ties: 1 where the image is brighter than its mean, else 0."""
    image = prepared.x.mean(1, keepdim=True)
    return (image > image.mean(tuple(range(1, image.ndim)), keepdim=True)).double()


def of_map(metric: str, maps: Tensor, prepared: Prepared, region: Tensor | None = None) -> Score:
    """Score a given map, without a method behind it.

    Args:
        metric: as the command takes it.
        maps: "batch 1 *space".
        prepared: subject.
        region: of the expert; None: none is told.
    """
    model = prepared.model
    probe = Probe(model, {model.primary: prepared.x}, prepared.target, (), prepared.scene)
    answer = Attribution({model.primary: maps}, probe.target.unit, signed=True)
    return make_metric(metric)(probe, answer, make_explainer("InputXGradient"), region)


def part_of(prepared: Prepared, x: Tensor) -> Prepared:
    """The same network on other images, each explained for what is predicted."""
    with torch.no_grad():
        return replace(prepared, x=x, labels=tuple(prepared.net(x).argmax(1).tolist()))


def views(prepared: Prepared) -> Prepared:
    """Four views of the first image, as a batch."""
    one = prepared.x[:1]
    return part_of(prepared, torch.cat([one, one.flip(2), one.flip(3), one.flip(2, 3)]))


def scored(metric: str, explainer: str, prepared: Prepared, region: Tensor | None = None) -> Scored:
    """Score a method's map, and watch which inputs the network sees besides the image itself.

    Args:
        metric: as the command takes it.
        explainer: likewise.
        prepared: subject.
        region: of the expert, where the metric compares with one; None: ``region_of``.
    """
    model, inputs, method = prepared.model, {prepared.model.primary: prepared.x}, make_explainer(explainer)
    model.layers(inputs)  # traced now, or the trace would be seen
    probe = Probe(model, inputs, prepared.target, method.needs(model, inputs), prepared.scene)
    answer = method(probe)
    if not isinstance(answer, Attribution):
        raise DeclarationError(f"expected a map from {method.name}, got {answer.kind}", "score a method that gives one")
    seen: list[Tensor] = []

    def watch(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0].detach().clone())

    handle = model.module.register_forward_pre_hook(watch)
    try:
        score = make_metric(metric)(probe, answer, method, region_of(prepared) if region is None else region)
    finally:
        handle.remove()
    parts = [part for x in seen for part in x.split(len(prepared.x)) if not torch.equal(part, prepared.x)]
    shown = torch.stack(parts) if parts else prepared.x.new_zeros(0, *prepared.x.shape)
    return Scored(score, answer.collapsed(model.primary)[:, None], shown)
