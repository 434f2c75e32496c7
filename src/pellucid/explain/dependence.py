"""Partial dependence: how the score follows one measurement that is set in every case."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Family, Level
from pellucid.core.cohort import Cohort, Opening, find_name
from pellucid.core.errors import BadOption
from pellucid.core.explainer import CohortExplainer
from pellucid.core.explanation import Effect, Effects
from pellucid.core.model import Model
from pellucid.explain.cohort import INTERVAL, interval, ranked

_TAILS = 0.05  # of the cohort, on both sides: beyond it nothing is set
_BRIGHTER = (
    "a region's mean is set by adding one value to all its voxels, which no disease does: at its border a step appears"
)
_APART = (
    "each value is set in every case whatever else the case shows: for measurements that go together these are cases "
    "that do not occur (extrapolation)"
)


@dataclass(frozen=True)
class PartialDependence(CohortExplainer):
    """How the score changes when one measurement is set to each of several values in every case.

    ``PD(v) = mean_n S(x_n with measurement = v)``, over the middle 90 % of the cohort's own values; each case's own
    curve (ICE) comes with it. A row is the rise from the lowest value to the highest. Combinations may be set that
    never occur; a flat mean may hide curves that cross.

    Returns:
        Effects in the target's unit; a table for each curve, with every case's own.

    Raises:
        BadOption: one case, fewer than two points, or nothing of the kind to set.
        UnknownName: a measurement that is not there.

    Source:
        friedman2001greedy; single curves after goldstein2015peeking.

    Example:
        >>> from pellucid.core.cohort import blocks_of
        >>> from pellucid.core.target import ClassScore
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)))
        >>> cases = Cohort({"image": torch.rand(5, 1, 4, 4)}, ClassScore(1), blocks_of((4, 4), 2))
        >>> answer = PartialDependence(points=3)(model, cases)
        >>> len(answer.rows), len(answer.tables["curve of mean of block 1-1"]["value"])
        (4, 3)
    """

    of: Annotated[str | None, "names joined by ;: mean of REGION, or a value of a vector input; None: all"] = None
    points: Annotated[int, "values that are set, from the 5th to the 95th percentile of the cohort"] = 9

    card: ClassVar[Card] = Card(
        family=Family.PERTURBATION,
        shows="how the score follows a region's brightness or a covariate, on average and case by case",
        caution="sets combinations that never occur; a flat mean may hide single curves that cross",
        equation=r"\mathrm{PD}_j(v) = \frac{1}{N}\sum_n S(x_n;\; z_j \leftarrow v)",
        source="friedman2001greedy",
        cost_note="one forward per case, measurement and point",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        scope="global",
        level=Level.REGION,
        attribution=False,
        agnostic=True,
    )

    def __post_init__(self) -> None:
        if self.points < 2:
            raise BadOption(f"expected at least 2 points of a curve, got {self.points}", "9 are usual")

    def __call__(self, model: Model, cases: Cohort) -> Effects:
        """See ``CohortExplainer``."""
        cases.require(2, self.name)
        knobs = _knobs(model, cases)
        chosen = [n.strip() for n in self.of.split(";")] if self.of else list(knobs)
        for name in chosen:
            find_name(name, tuple(knobs), "measurement")
        opening, rows, tables = cases.opened(model), [], {}
        for name in chosen:
            values, curves = _curves(opening, cases, knobs[name], self.points)
            rise = curves[-1] - curves[0]
            low, high = interval(rise, cases.scene.seed)
            crossing = float(min((rise > 0).double().mean(), (rise < 0).double().mean()))
            widest = float((curves.amax(0) - curves.amin(0)).mean())
            more = {"share of cases that go the other way": crossing, "mean range of a case": widest}
            rows.append(Effect(name, float(rise.mean()), low, high, cases.size, more))
            tables[f"curve of {name}"] = _table(values, curves, cases)
        return Effects(
            rows=ranked(rows),
            measure="rise of the mean score from the 5th to the 95th percentile",
            unit=opening.unit,
            interval=INTERVAL,
            tables=tables,
            said=(f"{self.points} values of each measurement, each set in all {cases.size} cases",),
            warnings=(_APART, *((_BRIGHTER,) if any(knobs[n].part is not None for n in chosen) else ())),
            spent=opening.spent,
        )


@dataclass(frozen=True, eq=False)
class _Knob:
    """A measurement that can be set.

    Args:
        name: of the input.
        part: voxels of a region; None: a column of a vector input.
        column: of a vector input.
        now: its value in each case.
    """

    name: str
    part: Tensor | None
    column: int
    now: Tensor

    def set(self, x: Tensor, value: float) -> Tensor:
        """The input with the measurement at ``value`` in every case."""
        if self.part is None:
            changed = x.clone()
            changed[:, self.column] = value
            return changed
        step = (value - self.now).to(x).view(-1, *(1,) * (x.ndim - 1))
        return x + step * self.part.to(x)


def _knobs(model: Model, cases: Cohort) -> dict[str, _Knob]:
    """Everything that can be set, by name."""
    name = cases.image_of(model)
    image, found = cases.inputs[name], {}
    for index, title in enumerate(cases.parts.names):
        part = cases.parts.inside(index)[:, None]
        inside = part.expand(len(image), *part.shape[1:]).to(image.double())
        count = inside.flatten(1).sum(1) * image.shape[1]
        if bool((count == 0).any()):
            raise BadOption(f"some cases have no voxel of the region {title!r}", "leave it out of the label map")
        mean = (image.double() * inside).flatten(1).sum(1) / count
        found[f"mean of {title}"] = _Knob(name, part, 0, mean)
    for other, x in cases.inputs.items():
        for k in range(x.shape[1]) if x.ndim == 2 else ():
            title = cases.columns[other][k] if other in cases.columns else f"{other} {k + 1}"
            found[title] = _Knob(other, None, k, x[:, k].double())
    return found


def _curves(opening: Opening, cases: Cohort, knob: _Knob, points: int) -> tuple[Tensor, Tensor]:
    """The values that are set, and the score of each case at each: "point case"."""
    values = torch.quantile(knob.now, torch.linspace(_TAILS, 1 - _TAILS, points, dtype=torch.float64))
    x = cases.inputs[knob.name]
    scores = [opening.scores({**cases.inputs, knob.name: knob.set(x, float(v))}) for v in values]
    return values, torch.stack(scores)


def _table(values: Tensor, curves: Tensor, cases: Cohort) -> dict[str, tuple[float | str | None, ...]]:
    """A curve with its interval, and each case's own."""
    ends = [interval(scores, cases.scene.seed) for scores in curves]
    names = cases.names or tuple(str(n) for n in range(cases.size))
    own = {f"case {name}": tuple(curve.tolist()) for name, curve in zip(names, curves.T, strict=True)}
    return {
        "value": tuple(values.tolist()),
        "mean": tuple(curves.mean(1).tolist()),
        "low": tuple(low for low, _ in ends),
        "high": tuple(high for _, high in ends),
        **own,
    }
