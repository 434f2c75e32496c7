"""Ablation: what the score loses when a channel, a block of the network or a whole input is switched off."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Family, Level
from pellucid.core.cohort import Cohort
from pellucid.core.errors import BadOption
from pellucid.core.explainer import CohortExplainer
from pellucid.core.explanation import Effects
from pellucid.core.layers import Edit
from pellucid.core.model import Model
from pellucid.core.probe import Probe
from pellucid.explain.cohort import INTERVAL, effect, ranked

How = Literal["zero", "mean", "resample"]
_AT_ONCE = 32  # versions of a chunk behind the layer
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

    over: Annotated[Literal["channels", "blocks", "inputs"], "what is switched off"] = "channels"
    how: Annotated[How, "replaced by zero, by the cohort's mean, or by another case (resample)"] = "zero"
    layer: Annotated[str | None, "whose channels; of blocks: names joined by ;. None: found by a trace"] = None
    channels: Annotated[int | None, "so many channels, those that vary most over the cohort; None: all"] = 32

    card: ClassVar[Card] = Card(
        family=Family.PERTURBATION,
        shows="how far the score falls over a cohort when a channel, a block or an input is switched off",
        caution="redundant parts look unneeded; what is put in their place may be unlike anything the network has seen",
        equation=r"\frac{1}{N}\sum_n \big[S(x_n) - S(x_n;\; a_j \leftarrow \tilde a_j)\big]",
        source="meyes2019ablation",
        cost_note="one forward per case, and for each part one of what lies behind it",
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
        order = torch.from_numpy(np.random.default_rng(cases.scene.seed).permutation(cases.size))
        study = {"channels": self._channels, "blocks": self._blocks, "inputs": self._inputs}[self.over]
        falls, spent, unit, said = study(model, cases, order)
        rows = [
            effect(name, fall, cases.scene.seed, {"mean magnitude": float(fall.abs().mean())})
            for name, fall in falls.items()
        ]
        return Effects(
            rows=ranked(rows),
            measure="mean fall of the score",
            unit=unit,
            interval=INTERVAL,
            tables={"by case": {name: tuple(float(v) for v in fall) for name, fall in falls.items()}},
            said=said,
            warnings=(_COVER, _ZERO if self.how == "zero" else _LEVELS_OUT),
            spent=spent,
        )

    def _channels(self, model: Model, cases: Cohort, order: Tensor) -> "_Found":
        layer = _first_case(model, cases, self.layer)
        opening = cases.opened(model, [(Ask.ACTIVATION, layer)])
        a = torch.cat([p.activation(layer) for p in opening.probes]).detach()
        varies = a.transpose(0, 1).flatten(1).double().var(1)
        chosen = varies.argsort(descending=True, stable=True)[: self.channels]
        stand_in = _stand_in(a, self.how, order)
        falls = {f"channel {int(c)}": torch.zeros(cases.size, dtype=torch.float64) for c in chosen}
        for probe, here in opening.chunks():
            for some in chosen.split(_AT_ONCE):
                edit = _channels_replaced(some, stand_in[here])
                scores = probe.behind(layer, edit, len(some)).view(len(some), -1)
                for c, score in zip(some.tolist(), scores, strict=True):
                    changed = (a[here, c] != stand_in[here, c]).flatten(1).any(1)
                    falls[f"channel {c}"][here] = _fall(probe, score, changed)
        left = a.shape[1] - len(chosen)
        said = f"layer {layer}, {len(chosen)} of {a.shape[1]} channels, replaced by {_words(self.how)}"
        note = f"{left} channels that vary least over the cohort were left out" if left else ""
        return falls, opening.spent, opening.unit, tuple(filter(None, (said, note)))

    def _blocks(self, model: Model, cases: Cohort, order: Tensor) -> "_Found":
        first = {name: x[:1].to(model.device) for name, x in cases.inputs.items()}
        known = model.layers(first)
        names = [n.strip() for n in self.layer.split(";")] if self.layer else _whole_blocks([s.name for s in known])
        names = [model.find(name, first).name for name in names]
        if not names:
            raise BadOption("the network has no blocks beside its last layer", "name layers: layer=first;second")
        opening = cases.opened(model, [(Ask.ACTIVATION, name) for name in names])
        falls = {}
        for name in names:
            a = torch.cat([p.activation(name) for p in opening.probes]).detach()
            stand_in = _stand_in(a, self.how, order)
            fall = torch.zeros(cases.size, dtype=torch.float64)
            for probe, here in opening.chunks():
                changed = (a[here] != stand_in[here]).flatten(1).any(1)
                fall[here] = _fall(probe, probe.behind(name, lambda _, v=stand_in[here]: v.clone(), 1), changed)
            falls[name] = fall
        said = f"the whole output of each of {len(names)} blocks, replaced by {_words(self.how)}"
        return falls, opening.spent, opening.unit, (said,)

    def _inputs(self, model: Model, cases: Cohort, order: Tensor) -> "_Found":
        opening = cases.opened(model)
        falls = {}
        for name, x in cases.inputs.items():
            stand_in = _stand_in(x, self.how, order)
            changed = (x != stand_in).flatten(1).any(1)
            scores = opening.scores({**cases.inputs, name: stand_in})
            falls[name] = torch.where(changed, opening.baseline - scores, 0.0)
        return falls, opening.spent, opening.unit, (f"each input as a whole, replaced by {_words(self.how)}",)


_Found = tuple[dict[str, Tensor], tuple[int, int], str, tuple[str, ...]]


def _first_case(model: Model, cases: Cohort, layer: str | None) -> str:
    return model.resolve(layer, {name: x[:1].to(model.device) for name, x in cases.inputs.items()})


def _whole_blocks(names: list[str]) -> list[str]:
    """The parts the module itself is made of, without the last, whose output is the answer."""
    return [name for name in names[:-1] if not set(name) & set(".#[")]


def _words(how: How) -> str:
    return {"zero": "zero", "mean": "the mean over the cohort", "resample": "that of another case"}[how]


def _stand_in(a: Tensor, how: How, order: Tensor) -> Tensor:
    """What takes the place of "case *any", for each case."""
    if how == "zero":
        return torch.zeros_like(a)
    return a.mean(0, keepdim=True).expand_as(a) if how == "mean" else a[order.to(a.device)]


def _channels_replaced(channels: Tensor, stand_in: Tensor) -> Edit:
    """An edit that replaces another one of ``channels`` in each version of the batch."""

    def edit(output: Tensor) -> Tensor:
        versions = output.clone().view(len(channels), -1, *output.shape[1:])
        for version, channel in enumerate(channels.tolist()):
            versions[version, :, channel] = stand_in[:, channel].to(versions)
        return versions.flatten(0, 1)

    return edit


def _fall(probe: Probe, scores: Tensor, changed: Tensor) -> Tensor:
    """The fall of the score; where nothing was replaced it is 0, and not the rounding of another batch."""
    fall = (probe.baseline_score - scores).double()
    return torch.where(changed.to(fall.device), fall, 0.0).cpu()
