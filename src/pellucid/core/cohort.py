"""Many cases on one grid, made ready for one model, with what is asked of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from pellucid.core.card import Cost
from pellucid.core.errors import BadOption, BadRegion, ShapeMismatch, UnknownName
from pellucid.core.model import Model
from pellucid.core.probe import Need, Probe, Scene
from pellucid.core.target import ClassScore, Target

_AT_ONCE = 16  # cases through the network together: on a CPU more are not faster
_THIRDS = (("upper", "middle", "lower"), ("left", "center", "right"))


@dataclass(frozen=True, eq=False)
class Parts:
    """A division of the network's grid into named parts.

    Args:
        labels: one map for all cases (first axis 1) or one for each; 0 is outside, 1 the first name.
        names: in the order of the labels.

    Raises:
        BadRegion: no names, or a label without one.

    Example:
        >>> parts = blocks_of((6, 6), 3)
        >>> parts.names[0], int(parts.inside(0).sum())
        ('upper left', 4)
    """

    labels: Int[Tensor, "any *space"]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        highest = int(self.labels.max())
        if not self.names or highest > len(self.names) or len(set(self.names)) < len(self.names):
            raise BadRegion(
                f"expected one name for each of {highest} labels, got {len(self.names)}, {len(set(self.names))} of "
                "them distinct",
                "name every label of the map",
            )

    def inside(self, index: int) -> Tensor:
        """Voxels of one part: "any *space", true inside."""
        return self.labels == index + 1


def blocks_of(shape: Sequence[int], count: int = 3) -> Parts:
    """The grid cut into ``count`` blocks along each axis (fewer where it has fewer voxels).

    Raises:
        BadOption: fewer than two.
    """
    if count < 2:
        raise BadOption(f"expected at least 2 blocks along each axis, got {count}", "one block is the whole image")
    labels = torch.zeros(1, *shape, dtype=torch.long)
    pieces = [min(count, n) for n in shape]
    for axis, (n, k) in enumerate(zip(shape, pieces, strict=True)):
        line = (torch.arange(n) * k) // n
        labels = labels * k + line.view(1, *(-1 if a == axis else 1 for a in range(len(shape))))
    places = torch.cartesian_prod(*(torch.arange(k) for k in pieces)).tolist()
    thirds = pieces == [3, 3]
    names = [_named(place) if thirds else "block " + "-".join(str(v + 1) for v in place) for place in places]
    return Parts(labels + 1, tuple(names))


def _named(place: Sequence[int]) -> str:
    return " ".join(words[n] for words, n in zip(_THIRDS, place, strict=True))


@dataclass(frozen=True, eq=False)
class Cohort:
    """Many cases on the network's grid, with the score that is asked about.

    Args:
        inputs: by name, "case channel *space" (or "case value" of a vector input) in network units.
        target: the same for every case, so it names its class.
        parts: regions that are moved or measured; the space of the primary input.
        labels: reference label of each case; None where not known.
        groups: site or scanner of each case; None where not known.
        columns: names of the values of each vector input.
        covariates: numbers of each case beside the inputs, by name; NaN where not known.
        names: pseudonyms.
        scene: fills, intensity scale, grids, seed.

    Raises:
        ShapeMismatch: inputs or facts of different numbers of cases.

    Example:
        >>> from pellucid.core.target import ClassScore
        >>> cohort = Cohort({"image": torch.rand(4, 1, 6, 6)}, ClassScore(0), blocks_of((6, 6), 2))
        >>> cohort.size, len(cohort.parts.names)
        (4, 4)
    """

    inputs: Mapping[str, Tensor]
    target: Target
    parts: Parts
    labels: tuple[str | None, ...] = ()
    groups: tuple[str | None, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    covariates: Mapping[str, Tensor] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    scene: Scene = field(default_factory=Scene)

    def __post_init__(self) -> None:
        counts = {name: len(x) for name, x in self.inputs.items()}
        facts = {"labels": self.labels, "groups": self.groups, "names": self.names}
        counts |= {name: len(values) for name, values in facts.items() if values}
        counts |= {name: len(values) for name, values in self.covariates.items()}
        if len(set(counts.values())) != 1:
            raise ShapeMismatch(f"expected one entry for each case, got {counts}", "give every case every input")
        for name, titles in self.columns.items():
            if name not in self.inputs or tuple(self.inputs[name].shape[1:]) != (len(titles),):
                raise ShapeMismatch(
                    f"columns names {len(titles)} values of input {name!r}, which holds others",
                    "give one name for each value of a vector input",
                )

    @property
    def size(self) -> int:
        """Number of cases."""
        return len(next(iter(self.inputs.values())))

    def require(self, least: int, method: str) -> None:
        """Refuse a cohort that is too small for a method.

        Raises:
            BadOption: fewer cases than ``least``.
        """
        if self.size < least:
            raise BadOption(
                f"{method} compares cases and needs at least {least}, got {self.size}",
                "give a folder or a CSV of cases; for one case use pellucid explain",
            )

    def image_of(self, model: Model) -> str:
        """The input that ``parts`` divides.

        Raises:
            BadRegion: the parts are of another shape.
        """
        shape = tuple(self.inputs[model.primary].shape[2:])
        if tuple(self.parts.labels.shape[1:]) != shape or len(self.parts.labels) not in (1, self.size):
            raise BadRegion(
                f"expected regions on the network's grid {shape}, got {tuple(self.parts.labels.shape)}",
                "give one label map on that grid, or one for each case",
            )
        return model.primary

    def opened(self, model: Model, needs: Sequence[Need] = (), target: Target | None = None) -> "Opening":
        """The cases in chunks, each with its target bound at the unperturbed input.

        Args:
            model: that sees them.
            needs: of the shared pass.
            target: instead of the cohort's own.

        Raises:
            BadOption: the target names no class, so that it would be another for each case.
        """
        fixed = model.can.batch
        step = fixed if fixed is not None else _AT_ONCE
        probes = [
            Probe(model, {k: v[n : n + step] for k, v in self.inputs.items()}, target or self.target, needs, self.scene)
            for n in range(0, self.size, step)
        ]
        asked = target or self.target
        if isinstance(asked, ClassScore) and asked.label is None and probes[0].output.shape[1] > 1:
            raise BadOption(
                "expected one target for the whole cohort, got the predicted class of each case",
                "name the class: --target LABEL",
            )
        return Opening(tuple(probes), step)


@dataclass(frozen=True, eq=False)
class Opening:
    """A cohort's probes, one for each chunk of cases.

    Args:
        probes: in the order of the cases.
        step: cases in each but the last.
    """

    probes: tuple[Probe, ...]
    step: int

    @property
    def unit(self) -> str:
        """Of the target."""
        return self.probes[0].target.unit

    @property
    def target(self) -> str:
        """Name of the target."""
        return self.probes[0].target.name

    @property
    def spent(self) -> tuple[int, int]:
        """Forwards and backwards so far, the unperturbed ones included."""
        total = sum((p.spent.own + p.spent.shared for p in self.probes), Cost())
        return total.forwards, total.backwards

    @property
    def baseline(self) -> Tensor:
        """The target's value of each case."""
        return torch.cat([p.baseline_score for p in self.probes]).double().cpu()

    def scores(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The target's value of each case at other inputs, stacked as the cohort's own."""
        return self.gathered(lambda probe, here: probe.score({k: v[here] for k, v in inputs.items()}))

    def gathered(self, ask: Callable[[Probe, slice], Tensor]) -> Tensor:
        """What ``ask`` gives for each chunk (probe, its cases), one value per case, in float64 on the CPU."""
        return torch.cat([ask(probe, here).double().cpu() for probe, here in self.chunks()])

    def chunks(self) -> Iterator[tuple[Probe, slice]]:
        """Each probe with the cases it holds."""
        for n, probe in enumerate(self.probes):
            yield probe, slice(n * self.step, n * self.step + probe.batch)


def find_name(name: str, names: Sequence[str], what: str) -> int:
    """The place of a name, or an error that lists those there are.

    Raises:
        UnknownName: there is none.
    """
    if name not in names:
        raise UnknownName(f"no {what} named {name!r}", f"there are: {', '.join(names) or 'none'}")
    return list(names).index(name)
