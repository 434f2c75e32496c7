"""Permutation importance: what a model loses when one part of its input comes from another case."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Family, Level
from pellucid.core.cohort import Cohort, find_name
from pellucid.core.errors import BadOption
from pellucid.core.explainer import CohortExplainer
from pellucid.core.explanation import Effects
from pellucid.core.model import Model
from pellucid.core.probe import Probe
from pellucid.explain.cohort import INTERVAL, Loss, Outcome, effect, permutations, ranked

_COLLAGE = (
    "an exchanged part makes a collage that no patient has: the model may react to the seam and not to what is lost"
)
_SHARED = "parts that say the same cover for each other: exchange them together with groups=first+second"


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
    within_groups: Annotated[bool, "exchange only between cases of one group (site, scanner)"] = False
    loss: Annotated[Loss, "log, squared, change; auto: what the reference labels allow"] = "auto"

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

    def __call__(self, model: Model, cases: Cohort) -> Effects:
        """See ``CohortExplainer``."""
        cases.require(2, self.name)
        parts = _movable(self.over, model, cases)
        moved = _grouped(self.groups, parts)
        outcome = Outcome(cases, model, self.loss)
        draws = [torch.from_numpy(p) for p in permutations(cases, self.repeats, self.within_groups)]
        seed, rows, each = cases.scene.seed, [], {}
        for name, members in moved.items():
            losses = [outcome.increase(_exchanged(outcome, cases, members, order)) for order in draws]
            mean = torch.stack(losses).mean(0)
            each[name] = tuple(float(v) for v in mean)
            spread = float(torch.stack(losses).mean(1).std()) if len(losses) > 1 else float("nan")
            more = {"sd over repeats": spread} if len(losses) > 1 else {}
            rows.append(effect(name, mean, seed, more))
        words, unit = outcome.words
        start = "" if outcome.kind == "change" else f"mean loss before: {outcome.start:.4g} {unit}; "
        return Effects(
            rows=ranked(rows),
            measure=words,
            unit=unit,
            interval=INTERVAL,
            tables={"by case": {"case": cases.names or tuple(str(n) for n in range(cases.size)), **each}},
            said=(f"{start}target {outcome.opening.target}; {self.repeats} permutations of {cases.size} cases",),
            warnings=(
                *((outcome.note,) if outcome.note else ()),
                *((_COLLAGE,) if self.over == "regions" else ()),
                _SHARED,
            ),
            spent=outcome.opening.spent,
        )


_Part = tuple[str, Tensor]  # an input, and where in it: broadcast over "case channel *space"


def _movable(over: str, model: Model, cases: Cohort) -> dict[str, tuple[_Part, ...]]:
    """What can be exchanged, by name."""
    found: dict[str, tuple[_Part, ...]] = {}
    if over == "regions":
        name = cases.image_of(model)
        for index, title in enumerate(cases.parts.names):
            found[title] = ((name, cases.parts.inside(index)[:, None]),)
    for name, x in cases.inputs.items():
        if over == "inputs":
            found[name] = ((name, torch.ones(1, *(1,) * (x.ndim - 1), dtype=torch.bool)),)
        vector = x.ndim == 2
        if (over == "channels" and not vector) or (over == "covariates" and vector):
            for k in range(x.shape[1]):
                where = (torch.arange(x.shape[1]) == k).view(1, -1, *(1,) * (x.ndim - 2))
                title = cases.columns[name][k] if name in cases.columns else f"{name} {k + 1}"
                found[title] = ((name, where),)
    if not found:
        raise BadOption(
            f"the model takes no {over}: there is nothing to exchange",
            "choose another over=: regions, channels, inputs, covariates",
        )
    return found


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


def _exchanged(outcome: Outcome, cases: Cohort, members: tuple[_Part, ...], order: Tensor) -> Tensor:
    """The score of each case with some parts taken from another one."""

    def ask(probe: Probe, here: slice) -> Tensor:
        inputs = {name: x[here] for name, x in cases.inputs.items()}
        for name, where in members:
            spot = where if len(where) == 1 else where[here]
            inputs[name] = torch.where(spot, cases.inputs[name][order[here]], inputs[name])
        return probe.score(inputs)

    return outcome.opening.gathered(ask)
