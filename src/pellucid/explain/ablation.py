"""Ablation: what the score loses when a channel, an attention head, a block or an input is switched off."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Family, Level
from pellucid.core.cohort import Batch, Cohort
from pellucid.core.errors import BadOption
from pellucid.core.explainer import CohortExplainer
from pellucid.core.explanation import Effects
from pellucid.core.model import Model
from pellucid.explain.cohort import INTERVAL, donors, effect, interval, permutations, ranked
from pellucid.explain.switching import (
    Blocks,
    Channels,
    Heads,
    How,
    Sets,
    StandIn,
    Switches,
    WholeInputs,
    heads_of,
)

_TOGETHER = "the curve switches parts off together, one after the other in the order of the rows"
_COVER = "what one part loses another may make up for: parts that say the same look unneeded, one at a time"
_LEVELS_OUT = (
    "falls and rises level out over the cases where what lies behind the part is nearly linear: read the mean magnitude"
)
_ZERO = "zero is a value that some parts never take: compare with how=mean or how=resample"


@dataclass(frozen=True)
class AblationStudy(CohortExplainer):
    """How far the score falls over a cohort when a part of the network, or an input, is switched off.

    ``mean_n [S(x_n) - S(x_n with part j replaced)]``: by zero, by its mean over the cohort, or by that of another case.
    Positive: the part speaks for the target. Parts are ablated one at a time, so redundancy hides them; the weights
    are not trained again. Only what comes behind the layer is computed.

    Returns:
        Effects in the target's unit with a paired bootstrap interval over cases.

    Raises:
        BadOption: one case, fewer than one channel, or no block to ablate.
        UnknownLayer: no such layer.

    Source:
        meyes2019ablation.

    Example:
        >>> from pellucid.core.cohort import blocks_of
        >>> from pellucid.core.target import ClassScore
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2), torch.nn.Flatten(), torch.nn.Linear(36, 2))
        >>> cases = Cohort({"image": torch.rand(6, 1, 8, 8)}, ClassScore(1), blocks_of((8, 8)))
        >>> answer = AblationStudy()(Model(net), cases)
        >>> len(answer.rows), answer.unit
        (4, 'logit')
    """

    over: Annotated[Literal["channels", "heads", "blocks", "inputs"], "what is switched off"] = "channels"
    how: Annotated[How, "replaced by zero, by the cohort's mean, or by another case (resample)"] = "zero"
    layer: Annotated[str | None, "whose channels; of blocks, heads: names joined by ;. None: found by a trace"] = None
    channels: Annotated[int | None, "so many channels, those that vary most over the cohort; None: all"] = 32
    cumulative: Annotated[bool, "also switch parts off together, in the order of their falls: a curve"] = False

    background: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        family=Family.PERTURBATION,
        shows="how far the score falls over a cohort when a channel, an attention head, a block or an input is off",
        caution="redundant parts look unneeded; what is put in their place may be unlike anything the network has seen",
        equation=r"\frac{1}{N}\sum_n \big[S(x_n) - S(x_n;\; a_j \leftarrow \tilde a_j)\big]",
        source="meyes2019ablation",
        cost_note="two or three forwards per case, and for each part one of what lies behind it (heads: a whole one)",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        stochastic=True,
        scope="global",
        level=Level.FEATURE_MAP,
        attribution=False,
    )

    def __post_init__(self) -> None:
        if self.channels is not None and self.channels < 1:
            raise BadOption(f"expected at least one channel, got {self.channels}", "give a positive number, or none")

    def __call__(self, model: Model, cases: Cohort) -> Effects:
        """See ``CohortExplainer``."""
        cases.require(2, self.name)
        if cases.background is not None and self.how == "zero":
            raise BadOption("how=zero takes nothing from a background", "use how=mean or how=resample, or leave it out")
        drawn = permutations(cases, 1, within_groups=False)[0] if self.how == "resample" else np.arange(cases.size)
        order = [int(n) for n in drawn]
        switches, opened, said = self._switches(model, cases, order)
        opening = cases.opened(model, switches.needs)
        stand_in, names = StandIn(switches, opening), switches.names()
        context = _depends(self.how, cases, order, names)
        alone = opening.each("alone", _off(switches, stand_in, [(k,) for k in range(len(names))]), context)
        falls = (alone[:, :1] - alone[:, 1:]).T
        rows = ranked(
            [
                effect(name, fall, cases.scene.seed, {"mean magnitude": float(fall.abs().mean())})
                for name, fall in zip(names, falls, strict=True)
            ]
        )
        tables = {"by case": {name: tuple(fall.tolist()) for name, fall in zip(names, falls, strict=True)}}
        if self.cumulative:
            ordered = [names.index(row.name) for row in rows]
            sets = [tuple(ordered[: n + 1]) for n in range(len(ordered))]
            together = opening.each("together", _off(switches, stand_in, sets), lambda c: f"{context(c)} {ordered}")
            tables["curve of the score"] = _curve(together, [row.name for row in rows], cases.scene.seed)
        return Effects(
            rows=rows,
            measure="mean fall of the score",
            unit=opening.unit,
            interval=INTERVAL,
            tables=tables,
            said=(*said, *((_TOGETHER,) if self.cumulative else ())),
            warnings=(_COVER, _ZERO if self.how == "zero" else _LEVELS_OUT),
            spent=(opening.spent[0] + opened[0], opening.spent[1] + opened[1]),
        )

    def _switches(
        self, model: Model, cases: Cohort, order: list[int]
    ) -> tuple[Switches, tuple[int, int], tuple[str, ...]]:
        """What is switched off, the passes it took to find it, and in words."""
        first = {name: x[0][None].to(model.device) for name, x in cases.inputs.items()}
        instead = f"replaced by {_words(self.how, cases)}"
        if self.over == "inputs":
            names = tuple(cases.inputs)
            return WholeInputs(self.how, order, names), (0, 0), (f"each input as a whole, {instead}",)
        if self.over == "heads":
            attentions, parts = heads_of(model, first, self.layer)
            said = f"{len(parts)} heads of {len(attentions)} attentions, {instead} before the output projection"
            return Heads(self.how, order, attentions, parts), (1, 0), (said,)
        if self.over == "blocks":
            known = [s.name for s in model.layers(first)]
            names = [n.strip() for n in self.layer.split(";")] if self.layer else _whole_blocks(known)
            if not names:
                raise BadOption("the network has no blocks beside its last layer", "name layers: layer=first;second")
            layers = tuple(model.find(name, first).name for name in names)
            return Blocks(self.how, order, layers), (0, 0), (f"the whole output of {len(layers)} blocks, {instead}",)
        layer = model.resolve(self.layer, first)
        varies, spent = _variances(model, cases, layer)
        chosen = varies.argsort(descending=True, stable=True)[: self.channels].tolist()
        left = len(varies) - len(chosen)
        note = (f"{left} channels that vary least over the cohort were left out",) if left else ()
        said = f"layer {layer}, {len(chosen)} of {len(varies)} channels, {instead}"
        return Channels(self.how, order, layer, tuple(chosen)), spent, (said, *note)


def _variances(model: Model, cases: Cohort, layer: str) -> tuple[Tensor, tuple[int, int]]:
    """How much each channel varies over cases and places, and the passes that this took."""
    opening, count = cases.opened(model, [(Ask.ACTIVATION, layer)]), 0
    moments = None
    for batch in opening.batches():
        a = batch.probe.activation(layer).detach().double().transpose(0, 1).flatten(1).cpu()
        own = torch.stack([a.sum(1), (a**2).sum(1)])
        moments, count = own if moments is None else moments + own, count + a.shape[1]
    total, square = (m / count for m in moments) if moments is not None else (torch.zeros(1), torch.zeros(1))
    return (square - total**2).clamp_min(0), opening.spent


def _off(switches: Switches, stand_in: StandIn, sets: Sets) -> Callable[[Batch], Tensor]:
    """A batch to the score of each case: as it is, then with each set of parts switched off."""

    def scores(batch: Batch) -> Tensor:
        off = switches.scores(batch, stand_in(batch), sets)
        return torch.cat([batch.baseline[None], off]).T

    return scores


def _depends(how: How, cases: Cohort, order: Sequence[int], names: tuple[str, ...]) -> Callable[[int], str]:
    """What the numbers of a case depend on beside itself."""
    given = donors(cases, [np.asarray(order)]) if how == "resample" else None
    whole = hashlib.sha256("".join(cases.digests).encode()).hexdigest() if how == "mean" else ""

    def of(case: int) -> str:
        return f"{names} {whole or (given(case) if given else '')}"

    return of


def _curve(together: Tensor, names: Sequence[str], seed: int) -> dict[str, tuple[float | str | None, ...]]:
    """The mean score, whole and with more and more parts switched off, with its interval."""
    ends = [interval(scores, seed) for scores in together.T]
    return {
        "switched off": tuple(range(len(names) + 1)),
        "last": ("none", *names),
        "mean": tuple(together.mean(0).tolist()),
        "low": tuple(low for low, _ in ends),
        "high": tuple(high for _, high in ends),
    }


def _whole_blocks(names: list[str]) -> list[str]:
    """The parts the module itself is made of, without the last, whose output is the answer."""
    return [name for name in names[:-1] if not set(name) & set(".#[")]


def _words(how: How, cases: Cohort) -> str:
    among = "" if cases.background is None else f" of {len(next(iter(cases.background.values())))} background cases"
    mean, other = (
        ("the mean" + among, "that of one" + among) if among else ("the mean over the cases", "that of another")
    )
    return {"zero": "zero", "mean": mean, "resample": other}[how]
