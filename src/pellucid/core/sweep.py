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
    """

    keeps: Callable[[], Iterable[Tensor]]
    infill: Infill


@dataclass(frozen=True, eq=False)
class Again:
    """An explanation made anew at another input.

    Args:
        inputs: by name, one version of the batch.
        answer: of the same explainer, for the same targets.
        score: of the target there, "batch".
        output: of the model there.
        activation: of the layers that any of the questions reads, by name.
    """

    inputs: Mapping[str, Tensor]
    answer: Answer
    score: Tensor
    output: Tensor
    activation: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Moved:
    """A question: the explanation at other inputs. Answer: what ``reduce`` made of each, in order.

    Args:
        inputs: makes the inputs anew at each call, each one version of the batch.
        reduce: takes what the metric needs of each; maps are not kept.
        layers: full names of layers that are read in the same pass.
    """

    inputs: Callable[[], Iterable[Mapping[str, Tensor]]]
    reduce: Callable[[Again], Any]
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Placed:
    """A question: the score at other inputs. Answer: "input batch", float64.

    Args:
        inputs: makes the inputs anew at each call, each one version of the batch.
    """

    inputs: Callable[[], Iterable[Mapping[str, Tensor]]]


Question = Hidden | Placed | Moved
Asking = Generator[tuple[Question, ...], list[Any], Score]
_Key = tuple[int, int]  # which metric, which of its open questions


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
        self._open: dict[_Key, Question] = {}
        self._outcomes: dict[int, Score | PellucidError] = {}
        for index in range(len(self._askings)):
            self._advance(index, None)

    @property
    def cost(self) -> Cost:
        """Passes that the questions now open will take, for one item: those that follow an answer are not in it."""
        fresh = {d for q in self._open.values() if isinstance(q, Hidden | Placed) for d, _ in self._items(q)}
        moved = {d for q in self._open.values() if isinstance(q, Moved) for d, _ in self._items(q)}
        again = shared_cost(self._explainer.card.asks) + self._explainer.cost(self._probe) if moved else Cost()
        return Cost(len(fresh - self._known.keys())) + again * len(moved)

    def run(self) -> list[Score | PellucidError]:
        """Answer until every metric has its score; a metric's refusal stands in the place of its score."""
        while self._open:
            asked, self._open = self._open, {}
            answers: dict[_Key, Any] = {}
            scored = {k: q for k, q in asked.items() if isinstance(q, Hidden | Placed)}
            for fill in dict.fromkeys(map(_fill, scored.values())):
                group = {k: q for k, q in scored.items() if _fill(q) == fill}
                answers |= self._attempt(group, lambda g, fill=fill: self._scores(g, fill))
            moved = {k: q for k, q in asked.items() if isinstance(q, Moved)}
            answers |= self._attempt(moved, self._reduced)
            for index in dict.fromkeys(index for index, _ in asked):
                self._advance(index, [answers[k] for k in asked if k[0] == index])
        return [self._outcomes[i] for i in range(len(self._askings))]

    def _attempt(self, group: dict[_Key, Any], answer: Callable[[dict[_Key, Any]], dict[_Key, Any]]) -> dict[_Key, Any]:
        """The answers, or for each question the error that came instead."""
        try:
            return answer(group)
        except PellucidError as error:
            return dict.fromkeys(group, error)

    def _advance(self, index: int, answers: list[Any] | None) -> None:
        asking = self._askings[index]
        wrong = next((a for a in answers or () if isinstance(a, PellucidError)), None)
        try:
            questions = asking.send(answers) if wrong is None else asking.throw(wrong)  # type: ignore[arg-type]
            self._open |= {(index, place): q for place, q in enumerate(questions)}
        except StopIteration as end:
            self._outcomes[index] = end.value
        except PellucidError as error:
            self._outcomes[index] = error

    def _items(self, question: Question) -> Iterator[tuple[_Digest, Any]]:
        """What a question wants to know, each with what tells it from others."""
        if isinstance(question, Hidden):
            for keep in question.keeps():
                yield _digest(question.infill.words, {"": keep}), keep
            return
        for x in question.inputs():
            yield _digest("", x), x

    def _scores(self, group: Mapping[_Key, Hidden | Placed], fill: Infill | None) -> dict[_Key, Tensor]:
        order: dict[_Key, list[_Digest]] = {k: [] for k in group}
        waiting: dict[_Digest, None] = {}

        def fresh() -> Iterator[Any]:
            for key, question in group.items():
                for digest, item in self._items(question):
                    order[key].append(digest)
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
        return {k: torch.stack([self._known[d] for d in ds]) if ds else none for k, ds in order.items()}

    def _reduced(self, group: Mapping[_Key, Moved]) -> dict[_Key, list[Any]]:
        """Each input is explained once, and every metric takes from it what it needs."""
        wanted: dict[_Digest, list[tuple[_Key, int]]] = {}
        for key, question in group.items():
            for place, (digest, _) in enumerate(self._items(question)):
                wanted.setdefault(digest, []).append((key, place))
        found: dict[_Key, dict[int, Any]] = {k: {} for k in group}
        for digest, x in chain.from_iterable(self._items(q) for q in group.values()):
            places = wanted.pop(digest, None)
            if places is None:
                continue
            layers = dict.fromkeys(layer for key, _ in places for layer in group[key].layers)
            probe = self._probe.elsewhere(x, [(Ask.ACTIVATION, layer) for layer in layers])
            answer, read = answered(self._explainer, probe), {layer: probe.activation(layer) for layer in layers}
            again = Again(x, answer, probe.baseline_score, probe.output, read)
            self._probe.spent.own += probe.spent.shared + probe.spent.own
            for key, place in places:
                found[key][place] = group[key].reduce(again)
        return {k: [by_place[i] for i in range(len(by_place))] for k, by_place in found.items()}


def _fill(question: Hidden | Placed) -> Infill | None:
    return question.infill if isinstance(question, Hidden) else None


def _digest(words: str, tensors: Mapping[str, Tensor]) -> _Digest:
    total = hashlib.blake2b(words.encode(), digest_size=16)
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
