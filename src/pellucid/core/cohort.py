"""Many cases made ready for one model, with what is asked of them: never all of them in memory at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pellucid.core.card import Cost
from pellucid.core.errors import BadOption, BadRegion, ShapeMismatch, UnknownName
from pellucid.core.keeping import Keeper, Numbers
from pellucid.core.masking import free_bytes
from pellucid.core.model import Model
from pellucid.core.probe import Need, Probe, Scene, Spent
from pellucid.core.target import BoundTarget, ClassScore, Target

Items = Tensor | Sequence[Tensor]  # one entry for each case: stacked, or fetched when it is asked for
_AT_ONCE = 8  # cases through the network together: on a CPU more are not faster
_SHARE = 0.25  # of the free memory, for their activations
_THIRDS = (("upper", "middle", "lower"), ("left", "center", "right"))


@dataclass(frozen=True, eq=False)
class Parts:
    """A division of the network's grid into named parts.

    Args:
        labels: one map for all cases (first axis 1) or one for each, "*space"; 0 is outside, 1 the first name.
        names: in the order of the labels.

    Raises:
        BadRegion: no names, or a label without one.

    Example:
        >>> parts = blocks_of((6, 6), 3)
        >>> parts.names[0], int(parts.inside(0).sum())
        ('upper left', 4)
    """

    labels: Items
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        highest = max(int(one.max()) for one in self.labels)
        if not self.names or highest > len(self.names) or len(set(self.names)) < len(self.names):
            raise BadRegion(
                f"expected one name for each of {highest} labels, got {len(self.names)}, {len(set(self.names))} of "
                "them distinct",
                "name every label of the map",
            )

    def on(self, cases: Sequence[int]) -> Tensor:
        """The label maps of some cases of one size: "1 *space" where all cases share it, else "case *space"."""
        return _taken(self.labels, [0] if len(self.labels) == 1 else cases)

    def inside(self, index: int, cases: Sequence[int] | None = None) -> Tensor:
        """Voxels of one part: "any *space", true inside; None: of all cases, which are of one size."""
        return self.on(range(len(self.labels)) if cases is None else cases) == index + 1


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


def blocks_for(shapes: Sequence[tuple[int, ...]], count: int = 3) -> Parts:
    """The same for cases of several sizes, a grid each.

    Raises:
        BadOption: fewer than two, or a grid that has fewer voxels than blocks along an axis.
    """
    each = {shape: blocks_of(shape, count) for shape in dict.fromkeys(shapes)}
    names = next(iter(each.values())).names
    if any(parts.names != names for parts in each.values()):
        raise BadOption("some cases have fewer voxels than blocks along an axis", "ask for fewer blocks")
    return Parts(next(iter(each.values())).labels if len(each) == 1 else [each[s].labels[0] for s in shapes], names)


def _taken(items: Items, cases: Sequence[int]) -> Tensor:
    """Some entries, stacked."""
    if isinstance(items, Tensor):
        return items[torch.as_tensor(list(cases))]
    return torch.stack([items[i] for i in cases])


def _named(place: Sequence[int]) -> str:
    return " ".join(words[n] for words, n in zip(_THIRDS, place, strict=True))


@dataclass(frozen=True, eq=False)
class Cohort:
    """Many cases on the network's grid, with the score that is asked about.

    Args:
        inputs: by name, an entry for each case, "channel *space" (or "value" of a vector input) in network units;
            cases may differ in size.
        target: the same for every case, so it names its class.
        parts: regions that are moved or measured; the space of the primary input.
        labels: reference label of each case; None where not known.
        groups: site or scanner of each case; None where not known.
        columns: names of the values of each vector input.
        covariates: numbers of each case beside the inputs, by name; NaN where not known.
        names: pseudonyms.
        scene: fills, intensity scale, grids, seed.
        background: other cases (normal ones, say) that parts are taken from, by input; None: from one another.
        digests: content hash of each case; empty: nothing is kept between runs.
        keeper: of what is known of each case.

    Raises:
        ShapeMismatch: inputs or facts of different numbers of cases, or a background that lacks an input.

    Example:
        >>> from pellucid.core.target import ClassScore
        >>> cohort = Cohort({"image": torch.rand(4, 1, 6, 6)}, ClassScore(0), blocks_of((6, 6), 2))
        >>> cohort.size, len(cohort.parts.names)
        (4, 4)
    """

    inputs: Mapping[str, Items]
    target: Target
    parts: Parts
    labels: tuple[str | None, ...] = ()
    groups: tuple[str | None, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    covariates: Mapping[str, Tensor] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    scene: Scene = field(default_factory=Scene)
    background: Mapping[str, Items] | None = None
    digests: tuple[str, ...] = ()
    keeper: Keeper = field(default_factory=Keeper)

    def __post_init__(self) -> None:
        counts = {name: len(x) for name, x in self.inputs.items()}
        facts = {"labels": self.labels, "groups": self.groups, "names": self.names, "digests": self.digests}
        counts |= {name: len(values) for name, values in facts.items() if values}
        counts |= {name: len(values) for name, values in self.covariates.items()}
        if len(set(counts.values())) != 1:
            raise ShapeMismatch(f"expected one entry for each case, got {counts}", "give every case every input")
        for name, titles in self.columns.items():
            if name not in self.inputs or tuple(self.inputs[name][0].shape) != (len(titles),):
                raise ShapeMismatch(
                    f"columns names {len(titles)} values of input {name!r}, which holds others",
                    "give one name for each value of a vector input",
                )
        if self.background is not None and (
            set(self.background) != set(self.inputs) or len({len(x) for x in self.background.values()}) != 1
        ):
            raise ShapeMismatch(
                f"expected a background with the inputs {list(self.inputs)}, got {list(self.background)}",
                "give every background case every input",
            )

    @property
    def size(self) -> int:
        """Number of cases."""
        return len(next(iter(self.inputs.values())))

    @property
    def vectors(self) -> dict[str, tuple[str, int]]:
        """Values of vector inputs by name: the input, and the place in it."""
        found = {}
        for name, x in self.inputs.items():
            for place in range(len(x[0])) if x[0].ndim == 1 else ():
                title = self.columns[name][place] if name in self.columns else f"{name} {place + 1}"
                found[title] = (name, place)
        return found

    def shape(self, case: int) -> tuple[tuple[int, ...], ...]:
        """Of every input of a case; only cases of one shape go through the network together."""
        return tuple(tuple(x[case].shape) for x in self.inputs.values())

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
        labels, name = self.parts.labels, model.primary
        for case in range(self.size):
            shape = tuple(self.inputs[name][case].shape[1:])
            own = labels[0 if len(labels) == 1 else case] if len(labels) in (1, self.size) else None
            if own is None or tuple(own.shape) != shape:
                raise BadRegion(
                    f"expected regions on the network's grid {shape}, got "
                    f"{tuple(labels[0].shape) if own is None else tuple(own.shape)}",
                    "give one label map on that grid, or one for each case",
                )
        return name

    def opened(self, model: Model, needs: Sequence[Need] = (), target: Target | None = None) -> "Opening":
        """The cases before a model, to be asked some at a time.

        Args:
            model: that sees them.
            needs: of the shared pass.
            target: instead of the cohort's own.
        """
        return Opening(self, model, tuple(needs), target or self.target)


class Opening:
    """A cohort before a model: cases go through it in batches, and nothing of a batch stays but what is asked for.

    Args:
        cohort: the cases.
        model: that sees them.
        needs: of the shared pass.
        target: of all cases.
    """

    def __init__(self, cohort: Cohort, model: Model, needs: tuple[Need, ...], target: Target) -> None:
        self.cohort, self.model = cohort, model
        self._needs, self._asked = needs, target
        self._spent: list[Spent] = []
        self._bound: BoundTarget | None = None

    @property
    def bound(self) -> BoundTarget:
        """The target, as the first case that was asked binds it."""
        return self._bound or self._first()

    @property
    def unit(self) -> str:
        """Of the target."""
        return self.bound.unit

    @property
    def target(self) -> str:
        """Name of the target."""
        return self.bound.name

    @property
    def spent(self) -> tuple[int, int]:
        """Forwards and backwards so far, the unperturbed ones included."""
        total = sum((s.own + s.shared for s in self._spent), Cost())
        return total.forwards, total.backwards

    def _first(self) -> BoundTarget:
        return self.batch([0]).probe.target

    def batch(self, cases: Sequence[int], donors: bool = False) -> "Batch":
        """Some cases of one size, with the target bound at the unperturbed input.

        Args:
            cases: places in the cohort.
            donors: they are places among those that parts are taken from.

        Raises:
            BadOption: the target names no class, so that it would be another for each case.
        """
        inputs = {name: _taken(x, cases) for name, x in self._source(donors).items()}
        probe = Probe(self.model, inputs, self._asked, self._needs, self.cohort.scene)
        self._spent.append(probe.spent)
        if self._bound is None:
            asked = self._asked
            if isinstance(asked, ClassScore) and asked.label is None and probe.output.shape[1] > 1:
                raise BadOption(
                    "expected one target for the whole cohort, got the predicted class of each case",
                    "name the class: --target LABEL",
                )
            self._bound = probe.target
        return Batch(tuple(cases), probe, self.cohort)

    def batches(self, cases: Sequence[int] | None = None, donors: bool = False) -> Iterator["Batch"]:
        """Batches of neighbors of one size; None: of all cases, or of those that parts are taken from."""
        source = self._source(donors)
        shapes = [tuple(tuple(x[n].shape) for x in source.values()) for n in range(len(next(iter(source.values()))))]
        waiting = list(range(len(shapes)) if cases is None else cases)
        while waiting:
            run = next((n for n, i in enumerate(waiting) if shapes[i] != shapes[waiting[0]]), len(waiting))
            some = waiting[: min(run, self._at_once(source, waiting[0]) if run > 1 else 1)]
            yield self.batch(some, donors)
            waiting = waiting[len(some) :]

    def _source(self, donors: bool) -> Mapping[str, Items]:
        background = self.cohort.background
        return background if donors and background is not None else self.cohort.inputs

    def _at_once(self, source: Mapping[str, Items], case: int) -> int:
        """Cases that fit into memory together."""
        fixed = self.model.can.batch
        if fixed is not None:
            return fixed
        first = {name: x[case][None] for name, x in source.items()}
        each = max(1, self.model.activation_bytes(first))
        return max(1, min(_AT_ONCE, int(_SHARE * free_bytes(self.model.device) / each)))

    def each(
        self, stage: str, work: Callable[["Batch"], Tensor], context: Callable[[int], str] = lambda _: ""
    ) -> Tensor:
        """Numbers of each case, "case value" in float64; what an earlier run found is not made again.

        Args:
            stage: names the numbers.
            work: a batch to its numbers, "case value".
            context: of a case: what its numbers depend on beside itself and the method.
        """
        keeper, size = self.cohort.keeper, self.cohort.size
        # the target too: with reference labels a method may ask for another one than without
        asked = str(self._asked)
        keys = [keeper.key(stage, digest, asked + context(case)) for case, digest in enumerate(self.cohort.digests)]
        known = {case: keeper.get(key) for case, key in enumerate(keys)}
        rows: dict[int, Numbers] = {case: found for case, found in known.items() if found is not None}
        keeper.found[stage] = (len(rows), size)
        keeper.tell(stage, len(rows), size)
        for batch in self.batches([case for case in range(size) if case not in rows]):
            new = zip(batch.cases, work(batch).double().cpu().tolist(), strict=True)
            fresh: dict[int, Numbers] = {case: tuple(numbers) for case, numbers in new}
            keeper.put({keys[case]: numbers for case, numbers in fresh.items()} if keys else {})
            rows |= fresh
            keeper.tell(stage, len(rows), size)
        return torch.tensor([rows[case] for case in range(size)], dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some cases of one size before a model.

    Args:
        cases: places in the cohort.
        probe: that holds them.
        cohort: they are of.
    """

    cases: tuple[int, ...]
    probe: Probe
    cohort: Cohort

    @property
    def inputs(self) -> dict[str, Tensor]:
        """By name, "case channel *space", where the model is."""
        return self.probe.inputs

    @property
    def baseline(self) -> Tensor:
        """The target's value of each case."""
        return self.probe.baseline_score

    def inside(self, index: int) -> Tensor:
        """Voxels of one part: "any 1 *space", true inside, where the model is."""
        return self.cohort.parts.inside(index, self.cases)[:, None].to(self.probe.model.device)

    def donated(self, donors: Sequence[int]) -> dict[str, Tensor]:
        """The inputs of the cases that parts are taken from, one for each case of the batch."""
        source = self.cohort.background if self.cohort.background is not None else self.cohort.inputs
        return {name: _taken(x, donors).to(self.probe.inputs[name]) for name, x in source.items()}


def find_name(name: str, names: Sequence[str], what: str) -> int:
    """The place of a name, or an error that lists those there are.

    Raises:
        UnknownName: there is none.
    """
    if name not in names:
        raise UnknownName(f"no {what} named {name!r}", f"there are: {', '.join(names) or 'none'}")
    return list(names).index(name)
