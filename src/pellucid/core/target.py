"""What is explained: one number of the model's output for each item of the batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import BadRegion, ShapeMismatch, UnknownLabel, UnknownName

Label = str | int


@dataclass(frozen=True)
class BoundTarget:
    """A target with class, region and component fixed at the unperturbed input.

    Args:
        name: for pictures and tables.
        score: model output (float32 at least) -> one scalar per item; linear in the output, in ``unit``.
        unit: ``logit``, ``probability`` or the unit of a regression.
        label: index of the explained class, where there is one.
    """

    name: str
    score: Callable[[Tensor], Tensor]
    unit: str
    label: int | None = None

    def __call__(self, output: Tensor) -> Float[Tensor, " batch"]:
        """One scalar per item, float32 at least: a mean over a region taken in bfloat16 has two digits."""
        return self.score(output if output.dtype == torch.float64 else output.float())


class Target(ABC):
    """What is explained; a segmentation is only another target."""

    @abstractmethod
    def bind(self, output: Tensor, labels: Sequence[str], regions: Mapping[str, Tensor], unit: str) -> BoundTarget:
        """Fix class, region and component at the unperturbed ``output``.

        Args:
            output: "batch class *space" of the model's head at the unperturbed input.
            labels: names of the classes, possibly empty.
            regions: masks "*space" on the network's grid, by name.
            unit: of the head: ``logit``, ``probability`` or a physical unit.
        """


@dataclass(frozen=True)
class ClassScore(Target):
    """The score of one class of a classifier (or one value of a regression).

    Args:
        label: name or index; None: the predicted class of each item.

    Example:
        >>> import torch
        >>> ClassScore(1).bind(torch.zeros(2, 3), (), {}, "logit")(torch.arange(6.0).view(2, 3))
        tensor([1., 4.])
    """

    label: Label | None = None

    def bind(self, output: Tensor, labels: Sequence[str], regions: Mapping[str, Tensor], unit: str) -> BoundTarget:
        """See ``Target.bind``."""
        if output.ndim != 2:
            raise ShapeMismatch(
                f"a class score needs an output (batch, class), got {tuple(output.shape)}",
                "use RegionScore for a segmentation",
            )
        if output.shape[1] == 1:
            return _single_logit(self.label, labels, unit)
        if self.label is None:
            chosen = output.argmax(1)
            name = " ".join(dict.fromkeys(_name(int(i), labels) for i in chosen))
            only = int(chosen[0]) if len(set(chosen.tolist())) == 1 else None
            return BoundTarget(
                name, lambda o, c=chosen: o.gather(1, _tiled(c, len(o)).view(-1, 1)).squeeze(1), unit, only
            )
        index = find_label(self.label, labels, output.shape[1])
        return BoundTarget(_name(index, labels), lambda o: o[:, index], unit, index)


@dataclass(frozen=True)
class Margin(Target):
    """The lead of one class over another: score(label) - score(other).

    Example:
        >>> import torch
        >>> Margin(0, 2).bind(torch.zeros(1, 3), (), {}, "logit")(torch.tensor([[5.0, 0.0, 2.0]]))
        tensor([3.])
    """

    label: Label
    other: Label

    def bind(self, output: Tensor, labels: Sequence[str], regions: Mapping[str, Tensor], unit: str) -> BoundTarget:
        """See ``Target.bind``."""
        first = ClassScore(self.label).bind(output, labels, regions, unit)
        second = ClassScore(self.other).bind(output, labels, regions, unit)
        return BoundTarget(f"{first.name} over {second.name}", lambda o: first(o) - second(o), unit, first.label)


@dataclass(frozen=True)
class RegionScore(Target):
    """The mean score of one class over a region of a segmentation.

    The region is fixed once: recomputing it at each perturbed pass makes occlusion explain the mask's border instead.

    Args:
        label: name or index of the class.
        region: name of a region of the case; None: where the model itself predicts the class at the unperturbed input.

    Example:
        >>> import torch
        >>> output = torch.stack([torch.zeros(4, 4), torch.eye(4) * 2 - 1])[None]
        >>> RegionScore(1).bind(output, (), {}, "logit")(output)
        tensor([1.])
    """

    label: Label
    region: str | None = None

    def bind(self, output: Tensor, labels: Sequence[str], regions: Mapping[str, Tensor], unit: str) -> BoundTarget:
        """See ``Target.bind``."""
        if output.ndim < 4:
            raise ShapeMismatch(
                f"a region score needs an output (batch, class, *space), got {tuple(output.shape)}",
                "use ClassScore for a classifier",
            )
        single = output.shape[1] == 1
        if single:
            index, name = 0, self._single_name(labels)
        else:
            index = find_label(self.label, labels, output.shape[1])
            name = _name(index, labels)
        mask = self._mask(output, index, regions, 0.5 if unit == "probability" else 0.0)
        count = mask.flatten(1).sum(1)
        if bool((count == 0).any()):
            raise BadRegion(
                f"the model predicts no voxel of {name!r} here, so there is no region to explain",
                "give a region with --region, or explain another label",
            )
        where = f"in {self.region}" if self.region else "where predicted"

        def score(o: Tensor) -> Tensor:
            tiled = _tiled(mask, len(o)).to(o)
            return (o[:, index] * tiled).flatten(1).sum(1) / _tiled(count, len(o)).to(o)

        return BoundTarget(f"{name} {where}", score, unit, index)

    def _single_name(self, labels: Sequence[str]) -> str:
        """The one class of a single-channel output; with two labels only the second can be explained."""
        count = 2 if len(labels) == 2 else 1
        index = find_label(self.label, labels, count)
        if index != count - 1:
            raise UnknownLabel(
                f"the output holds one channel, the score of {labels[1]!r}; {labels[0]!r} has none of its own",
                f"explain {labels[1]!r}",
            )
        return _name(index, labels)

    def _mask(self, output: Tensor, index: int, regions: Mapping[str, Tensor], even: float) -> Tensor:
        if self.region is None:
            predicted = output[:, 0] > even if output.shape[1] == 1 else output.argmax(1) == index
            return predicted.detach()
        if self.region not in regions:
            raise UnknownName(f"no region {self.region!r}", f"regions: {', '.join(regions) or 'none'}")
        mask = regions[self.region].to(output.device)
        if mask.shape != output.shape[2:]:
            raise BadRegion(
                f"expected the region {self.region!r} on the output's grid {tuple(output.shape[2:])}, "
                f"got {tuple(mask.shape)}",
                "resample the mask to the network's output",
            )
        return mask.expand(len(output), *mask.shape)


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


def _tiled(x: Tensor, count: int) -> Tensor:
    """Item-wise values repeated for a stream that holds ``count // batch`` versions of the batch, batch innermost."""
    return x if len(x) == count else x.repeat(count // len(x), *(1,) * (x.ndim - 1))
