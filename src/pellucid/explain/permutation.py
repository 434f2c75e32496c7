"""Permutation importance: what a model loses when one part of its input comes from another case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata
from torch import Tensor

from pellucid.core.card import Ask, Card, Family, Level
from pellucid.core.cohort import Batch, Cohort, find_name
from pellucid.core.errors import BadOption
from pellucid.core.explainer import CohortExplainer
from pellucid.core.explanation import Effects
from pellucid.core.model import Model
from pellucid.explain.cohort import INTERVAL, Loss, Outcome, donors, effect, permutations, ranked
from pellucid.explain.measurement import region_moments

_COLLAGE = (
    "an exchanged part makes a collage that no patient has: the model may react to the seam and not to what is lost"
)
_SHARED = (
    "parts that say the same cover for each other: exchange them together with cluster=0.7, or groups=first+second"
)
_ROUNDING = 1e-9  # of a correlation


@dataclass(frozen=True)
class PermutationImportance(CohortExplainer):
    """How much worse a model does when one part of its input is exchanged between cases.

    ``mean_b [L(y, f(x with part j of case b(i))) - L(y, f(x))]`` over ``repeats`` permutations b. Positive: the model
    uses the part, and uses it well; near 0: it does without; negative: it misleads. Parts must lie alike in all cases.

    Returns:
        Effects with a paired bootstrap interval over cases.

    Raises:
        BadOption: one case, fewer than one repeat, one class only, or nothing of the kind to exchange.
        UnknownName: a group that names no part.

    Source:
        breiman2001random, for any model fisher2019all. Every part sees the same permutations.

    Example:
        >>> from pellucid.core.cohort import blocks_of
        >>> from pellucid.core.target import ClassScore
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)))
        >>> cases = Cohort({"image": torch.rand(8, 1, 4, 4)}, ClassScore(1), blocks_of((4, 4), 2))
        >>> answer = PermutationImportance(repeats=2)(model, cases)
        >>> len(answer.rows), answer.measure
        (4, 'squared change of the score')
    """

    over: Annotated[Literal["regions", "channels", "inputs", "covariates"], "what is exchanged between cases"] = (
        "regions"
    )
    repeats: Annotated[int, "permutations that are averaged"] = 10
    groups: Annotated[str | None, "parts exchanged together: first+second;third+fourth"] = None
    cluster: Annotated[float | None, "exchange parts together whose |Spearman| correlation is this, 0 to 1; 0.7"] = None
    within_groups: Annotated[bool, "exchange only between cases of one group (site, scanner)"] = False
    loss: Annotated[Loss, "log, squared, change; auto: what the reference labels allow"] = "auto"

    background: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        family=Family.PERTURBATION,
        shows="how much worse a model does on a cohort when a part of its input comes from another case",
        caution="collages are unlike any patient; parts that say the same share it; cases must be aligned",
        equation=r"\frac{1}{B}\sum_b \big[L(y, f(x_{j \leftarrow \pi_b})) - L(y, f(x))\big]",
        source="breiman2001random",
        cost_note="one forward per case, part and repeat",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        stochastic=True,
        scope="global",
        level=Level.REGION,
        attribution=False,
        agnostic=True,
    )

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise BadOption(f"expected at least one repeat, got {self.repeats}", "10 are usual")
        if self.cluster is not None and not 0 < self.cluster <= 1:
            raise BadOption(f"expected a rank correlation above 0 and at most 1, got {self.cluster}", "0.7 is usual")
        if self.cluster is not None and self.groups is not None:
            raise BadOption("expected groups or cluster, got both", "name the groups, or let them be found")

    def __call__(self, model: Model, cases: Cohort) -> Effects:
        """See ``CohortExplainer``."""
        cases.require(2, self.name)
        parts = _movable(self.over, model, cases)
        groups, found = self.groups, ()
        if self.cluster is not None:
            groups, found = clustered({title: _means(cases, members) for title, members in parts.items()}, self.cluster)
        moved = _grouped(groups, parts)
        outcome = Outcome(cases, model, self.loss)
        orders = permutations(cases, self.repeats, self.within_groups)
        scores = outcome.opening.each(
            "exchanged", lambda batch: _exchanged(batch, moved, orders), donors(cases, orders)
        )
        seed, rows, each = cases.scene.seed, [], {}
        before, after = scores[:, 0], scores[:, 1:].view(cases.size, len(moved), self.repeats)
        for name, exchanged in zip(moved, after.unbind(1), strict=True):
            losses = torch.stack([outcome.increase(one, before) for one in exchanged.unbind(1)])
            mean = losses.mean(0)
            each[name] = tuple(float(v) for v in mean)
            more = {"sd over repeats": float(losses.mean(1).std())} if self.repeats > 1 else {}
            rows.append(effect(name, mean, seed, more))
        words, unit = outcome.words
        start = (
            "" if outcome.kind == "change" else f"mean loss before: {float(outcome.loss(before).mean()):.4g} {unit}; "
        )
        return Effects(
            rows=ranked(rows),
            measure=words,
            unit=unit,
            interval=INTERVAL,
            tables={"by case": {"case": cases.names or tuple(str(n) for n in range(cases.size)), **each}},
            said=(f"{start}target {outcome.opening.target}; {_source(cases, self.repeats)}", *found),
            warnings=(
                *filter(None, (outcome.note, outcome.poor(before))),
                *((_COLLAGE,) if self.over == "regions" else ()),
                *((_SHARED,) if self.cluster is None else ()),
            ),
            spent=outcome.opening.spent,
        )


_Part = tuple[str, int | None, int | None]  # an input, and in it a region, or a channel or value; or all of it


def _source(cases: Cohort, repeats: int) -> str:
    if cases.background is not None:
        count = len(next(iter(cases.background.values())))
        return f"{repeats} draws for each of {cases.size} cases from {count} background cases"
    return f"{repeats} permutations of {cases.size} cases"


def _movable(over: str, model: Model, cases: Cohort) -> dict[str, tuple[_Part, ...]]:
    """What can be exchanged, by name."""
    found: dict[str, tuple[_Part, ...]] = {}
    if over == "regions":
        image = cases.image_of(model)
        found = {title: ((image, index, None),) for index, title in enumerate(cases.parts.names)}
    elif over == "covariates":
        found = {title: ((name, None, place),) for title, (name, place) in cases.vectors.items()}
    elif over == "inputs":
        found = {name: ((name, None, None),) for name in cases.inputs}
    else:
        images = {name: len(x[0]) for name, x in cases.inputs.items() if x[0].ndim > 1}
        found = {f"{name} {k + 1}": ((name, None, k),) for name, count in images.items() for k in range(count)}
    if not found:
        raise BadOption(
            f"the model takes no {over}: there is nothing to exchange",
            "choose another over=: regions, channels, inputs, covariates",
        )
    return found


def _means(cases: Cohort, members: tuple[_Part, ...]) -> Tensor:
    """What a part shows, in one number for each case."""
    ((name, region, place),) = members
    if region is not None:
        return torch.stack([region_moments(cases, name, case)[region, 0] for case in range(cases.size)])
    entries = cases.inputs[name]
    return torch.stack([(x if place is None else x[place]).double().mean().cpu() for x in entries])


def _grouped(text: str | None, parts: Mapping[str, tuple[_Part, ...]]) -> dict[str, tuple[_Part, ...]]:
    """Parts that are exchanged together, then all that no group names, one by one."""
    if text is None:
        return dict(parts)
    names, found, used = tuple(parts), {}, set[str]()
    for group in filter(None, (g.strip() for g in text.split(";"))):
        members = [m.strip() for m in group.split("+")]
        for member in members:
            find_name(member, names, "part")
        used |= set(members)
        found[" + ".join(members)] = tuple(p for m in members for p in parts[m])
    return found | {name: where for name, where in parts.items() if name not in used}


def _exchanged(batch: Batch, moved: Mapping[str, tuple[_Part, ...]], orders: Sequence[NDArray[np.int64]]) -> Tensor:
    """The score of each case: unperturbed, then for each part and repeat with the part of another: "case value"."""
    given = [batch.donated([int(order[case]) for case in batch.cases]) for order in orders]
    scores = [batch.baseline]
    for members in moved.values():
        for others in given:
            inputs = dict(batch.inputs)
            for name, region, place in members:
                inputs[name] = torch.where(_spot(batch, name, region, place), others[name], inputs[name])
            scores.append(batch.probe.score(inputs))
    return torch.stack([one.double() for one in scores], 1)


def _spot(batch: Batch, name: str, region: int | None, place: int | None) -> Tensor:
    """Where a part lies in an input, true inside."""
    if region is not None:
        return batch.inside(region)
    x = batch.inputs[name]
    every = torch.arange(x.shape[1], device=x.device)
    return (every == place if place is not None else every >= 0).view(1, -1, *(1,) * (x.ndim - 2))


def clustered(values: Mapping[str, Tensor], least: float) -> tuple[str | None, tuple[str, ...]]:
    """Parts that go together over the cases, as ``groups`` writes them, and in words.

    Average linkage on 1 - |Spearman's rank correlation|, cut where it reaches 1 - ``least``. What is the same in every
    case goes with nothing.

    Args:
        values: by part, one number for each case.
        least: correlation at which parts are joined.
    """
    names, table = tuple(values), np.stack([v.numpy() for v in values.values()], 1)
    ranks = rankdata(table, axis=0)
    moving = [k for k in range(len(names)) if np.ptp(table[:, k]) > 0]
    label = np.arange(len(names)) + len(names)
    if len(moving) > 1:
        apart = 1 - np.abs(np.corrcoef(ranks[:, moving].T))
        tree = linkage(squareform(np.clip((apart + apart.T) / 2, 0, 1), checks=False), "average")
        label[moving] = fcluster(tree, 1 - least + _ROUNDING, "distance")
    together = [[n for n, own in zip(names, label, strict=True) if own == k] for k in dict.fromkeys(label.tolist())]
    several = [members for members in together if len(members) > 1]
    words = (
        f"clustered at |Spearman| of at least {least:g} (average linkage): {len(names)} parts in {len(together)} groups"
    )
    return ";".join("+".join(members) for members in several) or None, (words,)
