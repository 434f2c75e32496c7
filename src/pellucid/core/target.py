"""What is explained: one number of the model's output for each item of the batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.errors import BadOption, BadRegion, ShapeMismatch, UnknownLabel, UnknownName
from pellucid.core.model import OutputSpec
from pellucid.core.parts import border, component

Label = str | int
Part = Literal["all", "component", "border", "missed"]
Scale = Literal["head", "score"]


@dataclass(frozen=True)
class BoundTarget:
    """A target with class, region and component fixed at the unperturbed input.

    Args:
        name: for pictures and tables.
        score: model output (float32 at least) -> one scalar per item, in ``unit``; linear in the output on the head.
        unit: ``logit``, ``probability``, ``model score`` or the unit of a regression.
        label: index of the explained class, where there is one.
        head: the same on the head, which an operating point is compared with; None: ``score`` is.
        reads: "batch *space", the only places of the output that ``score`` looks at; None: it may look at all.
    """

    name: str
    score: Callable[[Tensor], Tensor]
    unit: str
    label: int | None = None
    head: Callable[[Tensor], Tensor] | None = None
    reads: Tensor | None = None

    def __call__(self, output: Tensor) -> Float[Tensor, " batch"]:
        """One scalar per item, float32 at least: a mean over a region taken in bfloat16 has two digits."""
        return self.score(output if output.dtype == torch.float64 else output.float())


class Target(ABC):
    """What is explained; a segmentation is only another target."""

    @abstractmethod
    def bind(self, output: Tensor, spec: OutputSpec, regions: Mapping[str, Tensor]) -> BoundTarget:
        """Fix class, region and component at the unperturbed ``output``.

        Args:
            output: "batch class *space" of the model's head at the unperturbed input.
            spec: labels, unit and activation of the head.
            regions: masks "*space" on the network's grid, by name.
        """


@dataclass(frozen=True)
class ClassScore(Target):
    """The score of one class of a classifier (or one value of a regression).

    Args:
        label: name or index; None: the predicted class of each item.
        scale: the head's own values (``head``: logits), or model scores in [0, 1] (``score``), where a saturated score
            has hardly a gradient and evidence for the other classes counts as evidence against.

    Example:
        >>> import torch
        >>> ClassScore(1).bind(torch.zeros(2, 3), OutputSpec(), {})(torch.arange(6.0).view(2, 3))
        tensor([1., 4.])
        >>> ClassScore(1, scale="score").bind(torch.zeros(1, 2), OutputSpec(), {})(torch.zeros(1, 2))
        tensor([0.5000])
    """

    label: Label | None = None
    scale: Scale = "head"

    def bind(self, output: Tensor, spec: OutputSpec, regions: Mapping[str, Tensor]) -> BoundTarget:
        """See ``Target.bind``."""
        if output.ndim != 2:
            raise ShapeMismatch(
                f"a class score needs an output (batch, class), got {tuple(output.shape)}",
                "use RegionScore for a segmentation",
            )
        if self.scale == "score":
            return _as_score(self, output, spec)
        labels, unit = spec.labels, spec.unit
        if output.shape[1] == 1:
            return _single_logit(self.label, labels, unit)
        if self.label is None:
            chosen = output.argmax(1)
            name = " ".join(dict.fromkeys(_name(int(i), labels) for i in chosen))
            only = int(chosen[0]) if len(set(chosen.tolist())) == 1 else None
            return BoundTarget(
                name, lambda o, c=chosen: o.gather(1, tiled(c, len(o)).view(-1, 1)).squeeze(1), unit, only
            )
        index = find_label(self.label, labels, output.shape[1])
        return BoundTarget(_name(index, labels), lambda o: o[:, index], unit, index)


@dataclass(frozen=True)
class Margin(Target):
    """The lead of one class over another: score(label) - score(other).

    Example:
        >>> import torch
        >>> Margin(0, 2).bind(torch.zeros(1, 3), OutputSpec(), {})(torch.tensor([[5.0, 0.0, 2.0]]))
        tensor([3.])
    """

    label: Label
    other: Label

    def bind(self, output: Tensor, spec: OutputSpec, regions: Mapping[str, Tensor]) -> BoundTarget:
        """See ``Target.bind``."""
        first = ClassScore(self.label).bind(output, spec, regions)
        second = ClassScore(self.other).bind(output, spec, regions)
        return BoundTarget(f"{first.name} over {second.name}", lambda o: first(o) - second(o), spec.unit, first.label)


@dataclass(frozen=True)
class RegionScore(Target):
    """The mean score of one class over a region of a segmentation.

    The region is fixed once: recomputing it at each perturbed pass makes occlusion explain the mask's border instead.

    Args:
        label: name or index of the class.
        region: name of a region of the case; None: where the model itself predicts the class at the unperturbed input.
        part: of the region: ``all``; one connected ``component`` (voxels that touch, also at corners); its ``border``
            (the outermost voxel layer); or what the model ``missed`` of it (a region of the case is needed).
        component: which one, from 1, the largest first.
        scale: see ``ClassScore``.

    Example:
        >>> import torch
        >>> output = torch.stack([torch.zeros(4, 4), torch.eye(4) * 2 - 1])[None]
        >>> RegionScore(1).bind(output, OutputSpec(), {})(output)
        tensor([1.])
    """

    label: Label
    region: str | None = None
    part: Part = "all"
    component: int = 1
    scale: Scale = "head"

    def __post_init__(self) -> None:
        if self.part == "missed" and self.region is None:
            raise BadOption("what was missed needs a region to have been found", "name one: LABEL@REGION/missed")
        if self.component < 1:
            raise BadOption(f"components are counted from 1, got {self.component}", "1 is the largest")

    def bind(self, output: Tensor, spec: OutputSpec, regions: Mapping[str, Tensor]) -> BoundTarget:
        """See ``Target.bind``."""
        if output.ndim < 4:
            raise ShapeMismatch(
                f"a region score needs an output (batch, class, *space), got {tuple(output.shape)}",
                "use ClassScore for a classifier",
            )
        single = output.shape[1] == 1
        index = _single_index(self.label, spec.labels) if single else 0
        name = _name(index, spec.labels)
        if not single:
            index = find_label(self.label, spec.labels, output.shape[1])
            name = _name(index, spec.labels)
        predicted = spec.predicted(output)[:, 0 if single else index]
        mask = self._part(self._mask(predicted, regions), predicted, name)
        channel = index if not single or self.scale == "score" else 0
        count = mask.flatten(1).sum(1)

        def score(o: Tensor) -> Tensor:
            inside = tiled(mask, len(o)).to(o)
            return (o[:, channel] * inside).flatten(1).sum(1) / tiled(count, len(o)).to(o)

        bound = BoundTarget(f"{name} {self._where()}", score, spec.unit, 0 if single else index, reads=mask)
        if self.scale == "head":
            return bound
        head = replace(self, scale="head").bind(output, spec, regions)
        return replace(bound, score=_after(spec.scores, score), unit=_SCORE, head=head.score)

    def _where(self) -> str:
        """The region in words."""
        part = {"all": "", "border": "border ", "missed": "", "component": f"component {self.component} "}[self.part]
        if self.region is None:
            return f"{part}where predicted"
        return f"missed of {self.region}" if self.part == "missed" else f"{part}in {self.region}"

    def _mask(self, predicted: Tensor, regions: Mapping[str, Tensor]) -> Bool[Tensor, "batch *space"]:
        """The whole region, per item."""
        if self.region is None:
            return predicted
        if self.region not in regions:
            raise UnknownName(f"no region {self.region!r}", f"regions: {', '.join(regions) or 'none'}")
        mask = regions[self.region].to(predicted.device)
        if mask.shape != predicted.shape[1:]:
            raise BadRegion(
                f"expected the region {self.region!r} on the output's grid {tuple(predicted.shape[1:])}, "
                f"got {tuple(mask.shape)}",
                "resample the mask to the network's output",
            )
        return mask.expand(len(predicted), *mask.shape)

    def _part(self, mask: Tensor, predicted: Tensor, name: str) -> Bool[Tensor, "batch *space"]:
        """The part asked for; never empty."""
        if self.region is None and not bool(mask.flatten(1).any(1).all()):
            raise BadRegion(
                f"the model predicts no voxel of {name!r} here, so there is no region to explain",
                "give a region with --region, or explain another label",
            )
        if self.part == "component":
            return component(mask, self.component)
        if self.part == "all":
            return mask
        part = border(mask) if self.part == "border" else mask & ~predicted
        if not bool(part.flatten(1).any(1).all()):
            none = "the model missed no voxel of" if self.part == "missed" else "there is no border in the image of"
            raise BadRegion(f"{none} {self.region or name!r}", f"explain all of it: leave out /{self.part}")
        return part


def find_label(label: Label, labels: Sequence[str], count: int) -> int:
    """The index of a class by name or number.

    Raises:
        UnknownLabel: the model has no such class; the message lists those it has.
    """
    known = ", ".join(f"{i} {name}" for i, name in enumerate(labels)) or f"0 to {count - 1}"
    if isinstance(label, str) and label in labels:
        return labels.index(label)  # before it is read as a number: grades are called 1, 2, 3
    if isinstance(label, str) and not label.lstrip("-").isdecimal():
        raise UnknownLabel(f"the model has no label {label!r}", f"labels: {known}")
    index = int(label)
    if not 0 <= index < count:
        raise UnknownLabel(f"label {index} is out of range for {count} classes", f"labels: {known}")
    return index


_SCORE = "model score"


def _as_score(target: ClassScore, output: Tensor, spec: OutputSpec) -> BoundTarget:
    """A class score on the scale of model scores, fixed on the head."""
    head = replace(target, scale="head").bind(output, spec, {})
    if output.shape[1] > 1:
        return replace(head, score=_after(spec.scores, head.score), unit=_SCORE, head=head.score)
    index = head.label if len(spec.labels) == 2 else 0
    return replace(head, score=_after(spec.scores, lambda o: o[:, index]), unit=_SCORE, head=head.score)


def _after(first: Callable[[Tensor], Tensor], then: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda o: then(first(o))


def _single_index(label: Label, labels: Sequence[str]) -> int:
    """The one class of a single-channel output; with two labels only the second can be explained."""
    count = 2 if len(labels) == 2 else 1
    index = find_label(label, labels, count)
    if index != count - 1:
        raise UnknownLabel(
            f"the output holds one channel, the score of {labels[1]!r}; {labels[0]!r} has none of its own",
            f"explain {labels[1]!r}",
        )
    return index


def _single_logit(label: Label | None, labels: Sequence[str], unit: str) -> BoundTarget:
    """A head with one output for two classes: the score of the negative class is minus the logit."""
    count = 2 if len(labels) == 2 else 1
    index = count - 1 if label is None else find_label(label, labels, count)
    if index == count - 1:
        return BoundTarget(_name(index, labels), lambda o: o[:, 0], unit, index)
    flip: Callable[[Tensor], Tensor] = (lambda o: 1 - o[:, 0]) if unit == "probability" else (lambda o: -o[:, 0])
    return BoundTarget(_name(index, labels), flip, unit, index)


def _name(index: int, labels: Sequence[str]) -> str:
    return labels[index] if index < len(labels) else f"class {index}"


def tiled(x: Tensor, count: int) -> Tensor:
    """Item-wise values repeated for a stream that holds ``count // batch`` versions of the batch, batch innermost."""
    return x if len(x) == count else x.repeat(count // len(x), *(1,) * (x.ndim - 1))
