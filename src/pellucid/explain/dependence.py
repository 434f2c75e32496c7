"""Partial dependence: how the score follows one measurement that is set in every case."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Family, Level
from pellucid.core.cohort import Batch, Cohort, find_name
from pellucid.core.errors import BadOption
from pellucid.core.explainer import CohortExplainer
from pellucid.core.explanation import Effect, Effects
from pellucid.core.model import Model
from pellucid.explain.cohort import INTERVAL, interval, ranked
from pellucid.explain.measurement import region_moments, vector_of

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
        points = {name: _points(knobs[name].now, self.points) for name in chosen}
        opening, rows, tables = cases.opened(model), [], {}
        context = json.dumps([[name, values.tolist()] for name, values in points.items()])
        scores = opening.each(
            "curves", lambda b: _curves(b, {n: (knobs[n], points[n]) for n in chosen}), lambda _: context
        )
        parted = scores.T.split([len(values) for values in points.values()])
        for (name, values), curves in zip(points.items(), parted, strict=True):
            rise = curves[-1] - curves[0]
            low, high = interval(rise, cases.scene.seed)
            crossing = float(min((rise > 0).double().mean(), (rise < 0).double().mean()))
            widest = float((curves.amax(0) - curves.amin(0)).mean())
            more = {"share of cases that go the other way": crossing, "mean range of a case": widest}
            rows.append(Effect(name, float(rise.mean()), low, high, cases.size, more))
            tables[f"curve of {name}"] = _table(values, curves, cases)
        return Effects(
            rows=ranked(rows),
            measure="rise of the mean score from the lowest value set to the highest",
            unit=opening.unit,
            interval=INTERVAL,
            tables=tables,
            said=_said(self.points, points, cases.size),
            warnings=(_APART, *((_BRIGHTER,) if any(knobs[n].part is not None for n in chosen) else ())),
            spent=opening.spent,
        )


@dataclass(frozen=True, eq=False)
class _Knob:
    """A measurement that can be set.

    Args:
        name: of the input.
        part: place of a region; None: a column of a vector input.
        column: of a vector input.
        now: its value in each case.
    """

    name: str
    part: int | None
    column: int
    now: Tensor

    def set(self, batch: Batch, value: float) -> Tensor:
        """The input with the measurement at ``value`` in every case."""
        x = batch.inputs[self.name]
        if self.part is None:
            changed = x.clone()
            changed[:, self.column] = value
            return changed
        step = (value - self.now[list(batch.cases)]).to(x).view(-1, *(1,) * (x.ndim - 1))
        return x + step * batch.inside(self.part).to(x)


def _knobs(model: Model, cases: Cohort) -> dict[str, _Knob]:
    """Everything that can be set, by name."""
    image = cases.image_of(model)
    means = torch.stack([region_moments(cases, image, case)[:, 0] for case in range(cases.size)], 1)
    found = {
        f"mean of {title}": _Knob(image, index, 0, mean)
        for index, (title, mean) in enumerate(zip(cases.parts.names, means, strict=True))
    }
    for title, (name, place) in cases.vectors.items():
        found[title] = _Knob(name, None, place, vector_of(cases, title))
    return found


def _points(now: Tensor, count: int) -> Tensor:
    """The values that are set: those that occur where they are few (a sex, a site), else percentiles."""
    there = now.unique()
    if len(there) <= count:
        return there
    return torch.quantile(now, torch.linspace(_TAILS, 1 - _TAILS, count, dtype=torch.float64))


def _curves(batch: Batch, chosen: Mapping[str, tuple[_Knob, Tensor]]) -> Tensor:
    """The score of each case at each value of each measurement: "case point"."""
    scores = [
        batch.probe.score({**batch.inputs, knob.name: knob.set(batch, float(value))})
        for knob, values in chosen.values()
        for value in values
    ]
    return torch.stack(scores, 1)


def _said(count: int, points: Mapping[str, Tensor], size: int) -> tuple[str, ...]:
    few = [f"{name} ({len(values)} values occur)" for name, values in points.items() if len(values) < count]
    more = (f"set at the values that occur: {', '.join(few)}",) if few else ()
    return (f"{count} values of each measurement, each set in all {size} cases", *more)


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
