"""Parts of a network or of its input that can be switched off, alone or together."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pellucid.core.card import Ask
from pellucid.core.cohort import Batch, Opening
from pellucid.core.errors import BadOption
from pellucid.core.heads import Attention, HeadRules, find_attentions
from pellucid.core.layers import Edit
from pellucid.core.model import Inputs, Model
from pellucid.core.probe import Need

How = Literal["zero", "mean", "resample"]
Sets = Sequence[tuple[int, ...]]
_AT_ONCE = 64  # items behind a layer: on a CPU more are not faster


@dataclass(frozen=True, eq=False)
class Switches(ABC):
    """What can be switched off.

    Args:
        how: what takes its place.
        donors: of each case, whose values it gets with ``resample``.
    """

    how: How
    donors: Sequence[int]

    @property
    @abstractmethod
    def needs(self) -> tuple[Need, ...]:
        """Of the shared pass."""

    @abstractmethod
    def read(self, batch: Batch) -> dict[str, Tensor]:
        """What the batch shows at each place where something can be replaced: "case *any"."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Of the parts."""

    @abstractmethod
    def scores(self, batch: Batch, stand_in: dict[str, Tensor], sets: Sets) -> Tensor:
        """The score with each set of parts replaced: "set case"; where nothing changes it is the score itself."""


class StandIn:
    """What takes the place of what was switched off: zero, the mean over the cases, or the values of another case.

    Args:
        switches: that read it.
        opening: the cohort; its mean is taken in one pass over the cases, and only the sum is held.

    Raises:
        BadOption: cases of several sizes have no mean, and cannot give to each other.
    """

    def __init__(self, switches: Switches, opening: Opening) -> None:
        self._switches, self._opening = switches, opening
        self._mean: dict[str, Tensor] | None = None

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """By place, shaped as what the batch shows."""
        shown = self._switches.read(batch)
        if self._switches.how == "zero":
            return {place: torch.zeros_like(a) for place, a in shown.items()}
        if self._switches.how == "mean":
            mean = self._mean = self._mean or self._over_cases()
            return {place: _like(mean[place][None], a).expand_as(a) for place, a in shown.items()}
        given = self._switches.read(self._opening.batch([self._switches.donors[i] for i in batch.cases], donors=True))
        return {place: _like(given[place], a) for place, a in shown.items()}

    def _over_cases(self) -> dict[str, Tensor]:
        total: dict[str, Tensor] = {}
        count = 0
        for batch in self._opening.batches(donors=True):
            for place, a in self._switches.read(batch).items():
                there = total.get(place)
                total[place] = a.double().sum(0) if there is None else there + _like(a, there[None]).double().sum(0)
            count += len(batch.cases)
        return {place: value / count for place, value in total.items()}


def _like(given: Tensor, shown: Tensor) -> Tensor:
    if given.shape[1:] != shown.shape[1:]:
        raise BadOption(
            f"cases differ in size ({tuple(given.shape[1:])} and {tuple(shown.shape[1:])} values), so that one has no "
            "value for the other",
            "use how=zero, or give the model card an input size",
        )
    return given.to(shown)


@dataclass(frozen=True, eq=False)
class Channels(Switches):
    """Channels of a layer.

    Args:
        layer: whose.
        chosen: which.
    """

    layer: str
    chosen: tuple[int, ...]

    @property
    def needs(self) -> tuple[Need, ...]:
        """See ``Switches``."""
        return ((Ask.ACTIVATION, self.layer),)

    def read(self, batch: Batch) -> dict[str, Tensor]:
        """See ``Switches``."""
        return {self.layer: batch.probe.activation(self.layer).detach()}

    def names(self) -> tuple[str, ...]:
        """See ``Switches``."""
        return tuple(f"channel {c}" for c in self.chosen)

    def scores(self, batch: Batch, stand_in: dict[str, Tensor], sets: Sets) -> Tensor:
        """See ``Switches``."""
        shown, instead = self.read(batch)[self.layer], stand_in[self.layer]
        changes = (shown != instead).flatten(2).any(2)
        found, step = [], max(1, _AT_ONCE // batch.probe.batch)
        for first in range(0, len(sets), step):
            some = [[self.chosen[part] for part in parts] for parts in sets[first : first + step]]
            scores = batch.probe.behind(self.layer, _replaced(some, instead), len(some)).view(len(some), -1)
            found += [_unless(scores[n], batch, changes[:, parts].any(1)) for n, parts in enumerate(some)]
        return torch.stack(found)


def _replaced(sets: Sequence[list[int]], instead: Tensor) -> Edit:
    """An edit that replaces another set of channels in each version of the batch."""

    def edit(output: Tensor) -> Tensor:
        versions = output.clone().view(len(sets), -1, *output.shape[1:])
        for version, channels in zip(versions, sets, strict=True):
            version[:, channels] = instead[:, channels].to(version)
        return versions.flatten(0, 1)

    return edit


@dataclass(frozen=True, eq=False)
class Blocks(Switches):
    """Whole outputs of layers.

    Args:
        layers: which.
    """

    layers: tuple[str, ...]

    @property
    def needs(self) -> tuple[Need, ...]:
        """See ``Switches``."""
        return tuple((Ask.ACTIVATION, layer) for layer in self.layers)

    def read(self, batch: Batch) -> dict[str, Tensor]:
        """See ``Switches``."""
        return {layer: batch.probe.activation(layer).detach() for layer in self.layers}

    def names(self) -> tuple[str, ...]:
        """See ``Switches``."""
        return self.layers

    def scores(self, batch: Batch, stand_in: dict[str, Tensor], sets: Sets) -> Tensor:
        """See ``Switches``."""
        shown, found = self.read(batch), []
        for parts in sets:
            layers = [self.layers[part] for part in parts]
            edits = {layer: _constant(stand_in[layer]) for layer in layers}
            if len(layers) == 1:
                score = batch.probe.behind(layers[0], edits[layers[0]], 1)
            else:
                score = batch.probe.run(edits=edits).score[0]
            changes = [(shown[layer] != stand_in[layer]).flatten(1).any(1) for layer in layers]
            found.append(_unless(score, batch, torch.stack(changes).any(0)))
        return torch.stack(found)


def _constant(value: Tensor) -> Edit:
    return lambda _: value.clone()


@dataclass(frozen=True, eq=False)
class WholeInputs(Switches):
    """Inputs of the model.

    Args:
        inputs: by name.
    """

    inputs: tuple[str, ...]

    @property
    def needs(self) -> tuple[Need, ...]:
        """See ``Switches``."""
        return ()

    def read(self, batch: Batch) -> dict[str, Tensor]:
        """See ``Switches``."""
        return batch.inputs

    def names(self) -> tuple[str, ...]:
        """See ``Switches``."""
        return self.inputs

    def scores(self, batch: Batch, stand_in: dict[str, Tensor], sets: Sets) -> Tensor:
        """See ``Switches``."""
        found = []
        for parts in sets:
            names = [self.inputs[part] for part in parts]
            score = batch.probe.score({**batch.inputs, **{name: stand_in[name] for name in names}})
            changes = [(batch.inputs[name] != stand_in[name]).flatten(1).any(1) for name in names]
            found.append(_unless(score, batch, torch.stack(changes).any(0)))
        return torch.stack(found)


@dataclass(frozen=True, eq=False)
class Heads(Switches):
    """Attention heads, each replaced before the output projection mixes it with the others.

    Args:
        attentions: whose.
        parts: (attention, head) of each part.
    """

    attentions: tuple[Attention, ...]
    parts: tuple[tuple[int, int], ...]

    @property
    def needs(self) -> tuple[Need, ...]:
        """See ``Switches``."""
        return ()

    def names(self) -> tuple[str, ...]:
        """See ``Switches``."""
        own = [a.name for a in self.attentions]
        titles = [n if own.count(n) == 1 else f"{n}#{own[: k + 1].count(n)}" for k, n in enumerate(own)]
        return tuple(f"{titles[place]} head {head}" for place, head in self.parts)

    def read(self, batch: Batch) -> dict[str, Tensor]:
        """See ``Switches``; "case window token head value" for each attention."""
        kept: dict[str, Tensor] = {}

        def keep(place: int) -> Callable[[Tensor], Tensor]:
            def swap(heads: Tensor) -> Tensor:
                kept[str(place)] = heads.detach().clone().unflatten(0, (batch.probe.batch, -1))
                return heads

            return swap

        batch.probe.run(rules=HeadRules({a: keep(place) for place, a in enumerate(self.attentions)}))
        return kept

    def scores(self, batch: Batch, stand_in: dict[str, Tensor], sets: Sets) -> Tensor:
        """See ``Switches``; the whole network runs for each set."""
        found = []
        for chosen in sets:
            wanted: dict[int, list[int]] = {}
            for place, head in (self.parts[part] for part in chosen):
                wanted.setdefault(place, []).append(head)
            swaps = {self.attentions[p]: _heads_replaced(stand_in[str(p)], heads) for p, heads in wanted.items()}
            found.append(batch.probe.run(rules=HeadRules(swaps)).score[0])
        return torch.stack(found)


def _heads_replaced(instead: Tensor, heads: list[int]) -> Callable[[Tensor], Tensor]:
    """A swap of some heads; ``instead``: "case window token head value"."""

    def swap(shown: Tensor) -> Tensor:
        changed = shown.clone()
        changed[:, :, heads] = instead.flatten(0, 1)[:, :, heads].to(changed)
        return changed

    return swap


def heads_of(
    model: Model, first: Inputs, layer: str | None
) -> tuple[tuple[Attention, ...], tuple[tuple[int, int], ...]]:
    """The attentions of a network, and each of their heads.

    Args:
        model: that has them.
        first: one item.
        layer: names joined by ``;``, or beginnings of names; None: all.

    Raises:
        BadOption: it has none, or none of these names.
    """
    every = find_attentions(model, first)
    if not every:
        raise BadOption("the network has no attention whose heads could be found", "use over=channels or over=blocks")
    wanted = tuple(n.strip() for n in layer.split(";")) if layer else ("",)
    found = tuple(a for a in every if a.name.startswith(wanted))
    if not found:
        names = ", ".join(dict.fromkeys(a.name for a in every))
        raise BadOption(f"no attention is named {layer!r}", f"there are: {names}")
    return found, tuple((place, head) for place, a in enumerate(found) for head in range(a.heads))


def _unless(scores: Tensor, batch: Batch, changes: Tensor) -> Tensor:
    """The scores; where nothing was replaced the unperturbed one, and not the rounding of another batch."""
    return torch.where(changes.to(scores.device), scores, batch.baseline)
