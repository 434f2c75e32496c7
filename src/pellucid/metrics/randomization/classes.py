"""Whether a map depends on which class is asked about."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pellucid.core.card import Ask, Cost, MetricCard, Property, shared_cost
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer, Attribution
from pellucid.core.metric import Metric, Score
from pellucid.core.model import OutputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import BoundTarget, ClassScore, Margin, Target, find_label, tiled
from pellucid.metrics.maps import NO_MAP, on_grid
from pellucid.metrics.randomization.alike import Similarity
from pellucid.metrics.randomization.beside import Beside, made_again
from pellucid.metrics.randomization.edges import likeness_to_edges

_MEASURED = "a measured value has no other class"
_SINGLE = "the model has a single output: the other class's score is minus this one, and has the same map"
_NO_CLASS = "the target is of no class of the model, so none can be exchanged"
_NO_OTHER = "the model has no class beside those that the target compares"


@dataclass(frozen=True)
class RandomLogit(Metric):
    """Whether the map changes when another class is explained instead, all else being the same.

    Similarity of the map and that of another class's score: a seeded one (named in the detail), or the mean over all
    others. The classes change places in the target itself, so a segmentation asks for the other label over the same
    voxels. A map that stays (near 1) does not say why this class. Maps of two rival classes are often each other's
    negative: near -1 they are one picture in two colors (``of the magnitudes`` in the detail).

    Returns:
        Similarity, lower is better; undefined where there is no other class, for a constant map, or a measured value.

    Source:
        sixt2020explanations, as rank correlation or SSIM on the map's own grid, never on a flattened map.

    Example:
        >>> RandomLogit(others="all").settings()["similarity"]
        'spearman'
    """

    others: Annotated[Literal["one", "all"], "classes to compare with: a random one, or all"] = "one"
    similarity: Annotated[Similarity, "of maps: rank correlation, or structural similarity"] = "spearman"

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.RANDOMIZATION,
        shows="how much of the map stays when another class is explained",
        caution="maps of rival classes may be each other's negative: the same picture in two colors",
        equation=r"\rho(A_y,\, A_{y'})",
        source="sixt2020explanations",
        cost_note="one more explanation, or one per other class",
        direction="lower",
        interval="-1 to 1",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``."""
        others = 1 if self.others == "one" else max(probe.output.shape[1] - 1, 0)
        return (shared_cost(explainer.card.asks) + explainer.cost(probe)) * others

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        maps, classes = on_grid(answer, probe), _classes(probe)
        if maps is None or isinstance(classes, str) or not isinstance(answer, Attribution):
            return Score.undefined(self, probe.batch, NO_MAP if maps is None else str(classes))
        mine, rivals = classes
        if self.others == "one":
            draw = torch.Generator().manual_seed(probe.scene.seed)
            rivals = rivals[:, [int(torch.randint(rivals.shape[1], (1,), generator=draw))]]
        beside, needs = Beside(maps, self.similarity, answer.signed), explainer.needs(probe.model, probe.inputs)
        if beside.hopeless:
            return Score.undefined(self, probe.batch, beside.measure.words)
        for column in rivals.T:
            target = _Exchanged(probe.target, mine, column)
            there = Probe(probe.model, probe.inputs, target, needs, probe.scene, probe.precision)
            beside.add(made_again(explainer, there, probe))
        values = beside.alike.nanmean(0)
        detail = {
            "other": [[_named(probe.model.output.labels, int(one)) for one in row] for row in rivals],
            "similarity": beside.alike.T.tolist(),
            "magnitudes": beside.magnitudes.T.tolist(),
            "of the magnitudes": beside.magnitudes.nanmean(0).tolist(),
            **beside.detail(probe.scene.seed),
            "similar to edges": likeness_to_edges(beside.measure, maps, probe),
        }
        return Score(self.name, values, beside.reasons(values), self.settings(), detail)


@final
@dataclass(frozen=True, eq=False)
class _Exchanged(Target):
    """A target with two classes in each other's place, item by item: bound where the first one was.

    Args:
        bound: the explained target; its region stays.
        mine: the explained class of each item.
        other: that takes its place.
    """

    bound: BoundTarget
    mine: Int[Tensor, " batch"]
    other: Int[Tensor, " batch"]

    def bind(self, output: Tensor, spec: OutputSpec, regions: Mapping[str, Tensor]) -> BoundTarget:
        """See ``Target.bind``."""
        items = torch.arange(len(self.mine))
        places = torch.arange(output.shape[1]).repeat(len(self.mine), 1)
        places[items, self.mine], places[items, self.other] = self.other, self.mine
        places, bound = places.to(output.device), self.bound
        one = int(self.other[0]) if bool((self.other == self.other[0]).all()) else None
        name = " ".join(dict.fromkeys(_named(spec.labels, int(k)) for k in self.other))
        return replace(
            bound,
            name=f"{name} in the place of {bound.name}",
            score=_exchanging(places, bound.score),
            head=None if bound.head is None else _exchanging(places, bound.head),
            label=one,
        )


def _exchanging(places: Int[Tensor, "batch class"], score: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A score of outputs whose classes change places; a stream holds several versions of the batch."""

    def exchanged(o: Tensor) -> Tensor:
        rows = torch.arange(len(o), device=o.device)[:, None]
        return score(o[rows, tiled(places, len(o))])

    return exchanged


def _classes(probe: Probe) -> tuple[Int[Tensor, " batch"], Int[Tensor, "batch other"]] | str:
    """The class of each item and the others in a fixed order, or why there are none."""
    count, target = probe.output.shape[1], probe.targets[probe.aim]
    if probe.model.output.task == "regression":
        return _MEASURED
    if count == 1:
        return _SINGLE
    if probe.target.label is not None:
        mine = torch.full((probe.batch,), probe.target.label)
    elif isinstance(target, ClassScore):  # the predicted class, which differs from item to item
        mine = probe.output.argmax(1).cpu()
    else:
        return _NO_CLASS
    others = (mine[:, None] + torch.arange(1, count)) % count
    if isinstance(target, Margin):
        opponent = find_label(target.other, probe.model.output.labels, count)
        others = others[others != opponent].view(len(mine), -1)
    return (mine, others) if others.shape[1] else _NO_OTHER


def _named(labels: tuple[str, ...], index: int) -> str:
    return labels[index] if index < len(labels) else f"class {index}"
