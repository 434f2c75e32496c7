"""One sweep for many metrics: what they ask of the model is merged, asked once and shared out.

A metric is written as a generator: it yields questions (``Hidden``, ``Placed``, ``Moved``), all that it can ask at once
in one tuple, and gets a list of answers, whether it is alone or together with others. Masks that two metrics share, of
one fill and one target, are evaluated once, by content; an input that several metrics perturb alike is explained once.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from pellucid.core.card import Ask, Cost, shared_cost
from pellucid.core.errors import PellucidError
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.infill import Infill
from pellucid.core.masking import Stream
from pellucid.core.metric import Metric, Score
from pellucid.core.perwindow import answered
from pellucid.core.probe import Probe

_Digest = bytes


@dataclass(frozen=True, eq=False)
class Hidden:
    """A question: the score with parts of the image hidden. Answer: "mask batch", float64.

    Args:
        keeps: makes the masks anew at each call, each "1 *space" or "batch *space", 1 shows and 0 hides.
        infill: what hidden voxels show.
        then: how many masks may be asked for after the answer, at most.
    """

    keeps: Callable[[], Iterable[Tensor]]
    infill: Infill
    then: int = 0


@dataclass(frozen=True, eq=False)
class Again:
    """An explanation made anew at another input.

    Args:
        inputs: by name, one version of the batch.
        answer: of the same explainer, for the same targets.
        score: of the target there, "batch".
        output: of the model there.
        activation: of the layers that any of the questions reads, by name.
        before: the same layers at the unperturbed input.
    """

    inputs: Mapping[str, Tensor]
    answer: Answer
    score: Tensor
    output: Tensor
    activation: Mapping[str, Tensor]
    before: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Moved:
    """A question: the explanation at other inputs. Answer: what ``reduce`` made of each, in order.

    Args:
        inputs: makes the inputs anew at each call, each one version of the batch.
        reduce: takes what the metric needs of each; maps are not kept.
        layers: full names of layers that are read in the same pass.
        keys: a name for each input, the same only where the input is: spares making and hashing it to find what
            metrics share. None: inputs are told apart by content.
    """

    inputs: Callable[[], Iterable[Mapping[str, Tensor]]]
    reduce: Callable[[Again], Any]
    layers: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Placed:
    """A question: the score at other inputs. Answer: "input batch", float64.

    Args:
        inputs: makes the inputs anew at each call, each one version of the batch.
        keys: as in ``Moved``.
    """

    inputs: Callable[[], Iterable[Mapping[str, Tensor]]]
    keys: tuple[str, ...] = ()


Question = Hidden | Placed | Moved
Asking = Generator[tuple[Question, ...], list[Any], Score]
_Key = tuple[int, int]  # which metric, which of its open questions


class _Open:
    """A question that waits, with what tells its items from others: found when it is first looked at."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self._digests: list[_Digest] | None = None

    @property
    def infill(self) -> Infill | None:
        """What hidden voxels show; None where nothing is hidden."""
        return self.question.infill if isinstance(self.question, Hidden) else None

    @property
    def layers(self) -> tuple[str, ...]:
        """Read where something is explained."""
        return self.question.layers if isinstance(self.question, Moved) else ()

    def taken(self, again: Again) -> Any:
        """What the metric keeps of an explanation."""
        return self.question.reduce(again) if isinstance(self.question, Moved) else None

    @property
    def digests(self) -> list[_Digest]:
        """One for each item; items are made only where they have no keys."""
        if self._digests is None and not isinstance(self.question, Hidden) and self.question.keys:
            self._digests = [_digest("named", {}, key) for key in self.question.keys]
        if self._digests is None:
            self._digests = [digest for digest, _ in self.items()]
        return self._digests

    def items(self) -> Iterator[tuple[_Digest, Any]]:
        """What the question wants to know, made anew; hashed the first time only."""
        question = self.question
        made: Iterable[Any] = question.keeps() if isinstance(question, Hidden) else question.inputs()
        if self._digests is not None or (not isinstance(question, Hidden) and question.keys):
            yield from zip(self.digests, made, strict=True)
            return
        found: list[_Digest] = []
        for item in made:
            named = isinstance(question, Hidden)
            found.append(_digest(question.infill.words, {"": item}) if named else _digest("", item))
            yield found[-1], item
        self._digests = found


class Sweep:
    """Some metrics' questions about one explanation, merged.

    Args:
        probe: of the case, aimed at the explained target; what was asked of it before is remembered.
        explainer: what made the explanation, for ``Moved``.
        askings: generators of metrics, not yet begun.
    """

    def __init__(self, probe: Probe, explainer: Explainer, askings: Sequence[Asking]) -> None:
        self._probe, self._explainer, self._askings = probe, explainer, list(askings)
        engine = probe.engine.name if probe.engine else ""
        self._known: dict[_Digest, Tensor] = probe.once(f"scores of {probe.aim} {engine}", dict)
        self._before: dict[str, Tensor] = {}
        self._open: dict[_Key, _Open] = {}
        self._outcomes: dict[int, Score | PellucidError] = {}
        for index in range(len(self._askings)):
            self._advance(index, None)

    @property
    def cost(self) -> Cost:
        """Passes still to be made for one item: exact for what is open, at most for what may follow an answer."""
        asked, moved = self._of(Hidden, Placed), self._of(Moved)
        fresh = {d for o in asked for d in o.digests} - self._known.keys()
        then = sum(o.question.then for o in asked if isinstance(o.question, Hidden))
        elsewhere = {d for o in moved for d in o.digests}
        asks = self._explainer.card.asks | {Ask.OUTPUT}  # the score there is told, whatever the method asks
        again = shared_cost(asks) + self._explainer.cost(self._probe) if moved else Cost()
        here = int(bool(self._unread(chain.from_iterable(o.layers for o in moved))))
        return Cost(len(fresh) + then + here) + again * len(elsewhere)

    def _of(self, *kinds: type[Question]) -> list[_Open]:
        return [o for o in self._open.values() if isinstance(o.question, kinds)]

    def run(self) -> list[Score | PellucidError]:
        """Answer until every metric has its score; a metric's refusal stands in the place of its score."""
        while self._open:
            asked, self._open = self._open, {}
            answers: dict[_Key, Any] = {}
            scored = {k: o for k, o in asked.items() if not isinstance(o.question, Moved)}
            for fill in dict.fromkeys(o.infill for o in scored.values()):
                group = {k: o for k, o in scored.items() if o.infill == fill}
                answers |= self._attempt(group, lambda g, fill=fill: self._scores(g, fill))
            moved = {k: o for k, o in asked.items() if isinstance(o.question, Moved)}
            answers |= self._attempt(moved, self._reduced)
            for index in dict.fromkeys(index for index, _ in asked):
                self._advance(index, [answers[k] for k in asked if k[0] == index])
        return [self._outcomes[i] for i in range(len(self._askings))]

    def _attempt(
        self, group: dict[_Key, _Open], answer: Callable[[dict[_Key, _Open]], dict[_Key, Any]]
    ) -> dict[_Key, Any]:
        """The answers; where they fail together each on its own, as without the others: the answer or its error."""
        try:
            return answer(group)
        except PellucidError as error:
            if len(group) == 1:
                return dict.fromkeys(group, error)
        return {k: a for key, each in group.items() for k, a in self._attempt({key: each}, answer).items()}

    def _advance(self, index: int, answers: list[Any] | None) -> None:
        asking = self._askings[index]
        wrong = next((a for a in answers or () if isinstance(a, PellucidError)), None)
        try:
            questions = asking.send(answers) if wrong is None else asking.throw(wrong)  # type: ignore[arg-type]
            self._open |= {(index, place): _Open(q) for place, q in enumerate(questions)}
        except StopIteration as end:
            self._outcomes[index] = end.value
        except PellucidError as error:
            self._outcomes[index] = error

    def _scores(self, group: Mapping[_Key, _Open], fill: Infill | None) -> dict[_Key, Tensor]:
        waiting: dict[_Digest, None] = {}

        def fresh() -> Iterator[Any]:
            for each in group.values():
                for digest, item in each.items():
                    if digest not in self._known and digest not in waiting:
                        waiting[digest] = None
                        yield item

        stream = Stream(self._probe, fill)
        rows = stream.placed(fresh()) if fill is None else stream.scores(fresh())
        for row in rows:
            digest = next(iter(waiting))
            del waiting[digest]
            self._known[digest] = row.double().cpu()
        none = torch.zeros(0, self._probe.batch, dtype=torch.float64)
        return {k: torch.stack([self._known[d] for d in o.digests]) if o.digests else none for k, o in group.items()}

    def _reduced(self, group: Mapping[_Key, _Open]) -> dict[_Key, list[Any]]:
        """Each input is explained once, and every metric takes from it what it needs."""
        wanted: dict[_Digest, list[tuple[_Key, int]]] = {}
        for key, each in group.items():
            for place, digest in enumerate(each.digests):
                wanted.setdefault(digest, []).append((key, place))
        self._read(chain.from_iterable(o.layers for o in group.values()))
        found: dict[_Key, dict[int, Any]] = {k: {} for k in group}
        for each in group.values():
            if wanted.keys().isdisjoint(each.digests):
                continue
            for digest, x in each.items():
                places = wanted.pop(digest, None)
                if places is None:
                    continue
                again = self._explained(x, dict.fromkeys(n for key, _ in places for n in group[key].layers))
                for key, place in places:
                    found[key][place] = group[key].taken(again)
        return {k: [by_place[i] for i in range(len(by_place))] for k, by_place in found.items()}

    def _explained(self, x: Mapping[str, Tensor], layers: Iterable[str]) -> Again:
        probe = self._probe.elsewhere(x, [(Ask.ACTIVATION, layer) for layer in layers])
        answer, read = answered(self._explainer, probe), {layer: probe.activation(layer) for layer in layers}
        again = Again(x, answer, probe.baseline_score, probe.output, read, self._before)
        self._probe.spent.own += probe.spent.shared + probe.spent.own
        return again

    def _unread(self, layers: Iterable[str]) -> tuple[str, ...]:
        """Those not known at the unperturbed input, and not read by the shared pass."""
        known = self._before
        return tuple(dict.fromkeys(n for n in layers if n not in known and not self._probe.asked(Ask.ACTIVATION, n)))

    def _read(self, layers: Iterable[str]) -> None:
        """Layers at the unperturbed input, all in one pass."""
        named = tuple(layers)
        unread = self._unread(named)
        if unread:
            self._before |= self._probe.run(layers=unread).activation
        self._before |= {n: self._probe.activation(n) for n in named if n not in self._before}


def _digest(words: str, tensors: Mapping[str, Tensor], key: str = "") -> _Digest:
    total = hashlib.blake2b(f"{words} {key}".encode(), digest_size=16)
    for name, t in tensors.items():
        total.update(f"{name}{tuple(t.shape)}".encode())
        plain = t.detach().cpu().contiguous()
        bits = bool(((plain == 0) | (plain == 1)).all())
        total.update(np.packbits(plain.numpy() != 0).tobytes() if bits else plain.numpy().tobytes())
    return total.digest()


class SweptMetric(Metric, ABC, abstract=""):
    """A metric that asks in a sweep; alone it is a sweep of one."""

    @abstractmethod
    def asking(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Asking:
        """Yield questions, get their answers, return the score.

        Args:
            probe: of the case, aimed at the explained target.
            answer: on the network's grid.
            explainer: what made it.
            region: mask on the network's grid; None where there is none.
        """

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        outcome = Sweep(probe, explainer, [self.asking(probe, answer, explainer, region)]).run()[0]
        if isinstance(outcome, PellucidError):
            raise outcome
        return outcome
