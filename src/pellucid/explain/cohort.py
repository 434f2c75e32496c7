"""What the methods for cohorts share: losses, permutations of cases, and intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import bootstrap
from torch import Tensor

from pellucid.core.cohort import Cohort, Items, Opening
from pellucid.core.errors import BadOption
from pellucid.core.explanation import Effect
from pellucid.core.model import Model
from pellucid.core.target import ClassScore, Target

Loss = Literal["auto", "log", "squared", "change"]
Score = Callable[[Tensor], Tensor]
LEVEL = 0.95
RESAMPLES = 2000
INTERVAL = "95 % percentile bootstrap over cases"
_LEAST_SCORE = 1e-7  # a saturated model score has no finite log loss


def interval(values: Tensor, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of one value per case.

    Args:
        values: one per case.
        seed: of the resampling.
    """
    plain = values.double().cpu().numpy()
    if np.ptp(plain) == 0:  # every resample is the same
        return float(plain[0]), float(plain[0])
    found = bootstrap(
        (plain,), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile",
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def effect(name: str, values: Tensor, seed: int, more: Mapping[str, float] | None = None) -> Effect:
    """A row: the mean over cases with its interval.

    Args:
        name: of the row.
        values: one per case.
        seed: of the bootstrap.
        more: further numbers.
    """
    low, high = interval(values, seed)
    return Effect(name, float(values.mean()), low, high, len(values), more or {})


def ranked(rows: Sequence[Effect]) -> tuple[Effect, ...]:
    """The largest magnitude first."""
    return tuple(sorted(rows, key=lambda row: -abs(row.estimate)))


def permutations(cohort: Cohort, repeats: int, within_groups: bool) -> list[NDArray[np.int64]]:
    """For each repeat which case gives to which: one of its size, and of its group where asked.

    With a background each case takes from a case of it, drawn with replacement.

    Raises:
        BadOption: groups are asked for and not known, or hold a single case; or a size that no other case has.
    """
    draw = np.random.default_rng(cohort.scene.seed)
    shapes = [str(cohort.shape(case)) for case in range(cohort.size)]
    if cohort.background is not None:
        return _from_background(cohort, cohort.background, shapes, repeats, within_groups, draw)
    alone = [shape for shape in dict.fromkeys(shapes) if shapes.count(shape) == 1]
    if alone:
        raise BadOption(
            f"parts are exchanged between cases of one size, and {len(alone)} of {cohort.size} cases have a size that "
            "no other has",
            "give the model card an input size, or leave these cases out",
        )
    groups = np.array(_strata(cohort) if within_groups else [""] * cohort.size)
    strata = np.array([f"{group} {shape}" for group, shape in zip(groups, shapes, strict=True)])
    drawn = []
    for _ in range(repeats):
        order = np.arange(cohort.size)
        for stratum in np.unique(strata):
            here = np.flatnonzero(strata == stratum)
            order[here] = draw.permutation(here)
        drawn.append(order)
    return drawn


def _strata(cohort: Cohort) -> list[str]:
    """The group of each case."""
    known = [g for g in cohort.groups if g is not None]
    if len(known) < cohort.size or max(map(known.count, known)) < 2:
        raise BadOption(
            "expected the group (site, scanner) of every case and at least two in a group, got none or single ones",
            "fill the column group of the CSV, or permute over all cases",
        )
    return known


def _from_background(
    cohort: Cohort,
    background: Mapping[str, Items],
    shapes: list[str],
    repeats: int,
    within_groups: bool,
    draw: np.random.Generator,
) -> list[NDArray[np.int64]]:
    if within_groups:
        raise BadOption("the groups of background cases are not known", "leave out within_groups, or the background")
    there: dict[str, list[int]] = {}
    for other in range(len(next(iter(background.values())))):
        shape = str(tuple(tuple(background[name][other].shape) for name in cohort.inputs))
        there.setdefault(shape, []).append(other)
    missing = [shape for shape in dict.fromkeys(shapes) if shape not in there]
    if missing:
        raise BadOption(
            f"parts are taken from background cases of the same size, and none is of {missing[0]}",
            "give the model card an input size, or background cases of the sizes of the cohort",
        )
    return [np.array([draw.choice(there[shape]) for shape in shapes]) for _ in range(repeats)]


def donors(cohort: Cohort, orders: Sequence[NDArray[np.int64]]) -> Callable[[int], str]:
    """What the numbers of a case depend on beside itself: the cases that its parts come from."""

    def of(case: int) -> str:
        places = [int(order[case]) for order in orders]
        if cohort.background is not None:
            return str(places)
        return "".join(cohort.digests[place] for place in places)

    return of


class Outcome:
    """The loss of each case, from the score the model gives it.

    ``log``: one-against-rest log loss of the model score against the reference label. ``squared``: squared error of
    the score against a reference number. ``change``: squared change of the score, which needs no reference.

    Args:
        cohort: with its reference labels.
        model: that is asked.
        loss: ``auto`` takes log or squared where the labels allow, else change.

    Raises:
        BadOption: the labels do not allow the loss.
    """

    def __init__(self, cohort: Cohort, model: Model, loss: Loss) -> None:
        self.note: str | None = None
        known = bool(cohort.labels) and all(v is not None for v in cohort.labels)
        chosen, target = _chosen(loss, model, cohort.target, known)
        if loss == "auto" and chosen == "change":
            self.note = "no loss was computed (reference labels are missing, or do not fit the target): the effects "
            self.note += "are squared changes of the score, and say nothing of whether the score became worse"
        self.kind = chosen
        self.opening: Opening = cohort.opened(model, target=target)
        self._truth = _truth(chosen, cohort, self.opening)

    @property
    def words(self) -> tuple[str, str]:
        """What an increase is, and its unit."""
        if self.kind == "log":
            return "increase of the log loss", "nat"
        square = f"{self.opening.unit}²" if self.opening.unit.isalpha() else f"({self.opening.unit})²"
        return ("increase of the squared error" if self.kind == "squared" else "squared change of the score"), square

    def increase(self, scores: Tensor, before: Tensor) -> Tensor:
        """For each case, how much worse a score is than the unperturbed one.

        Args:
            scores: of each case.
            before: of each case, unperturbed.
        """
        if self.kind == "change":
            return (scores - before) ** 2
        return self.loss(scores) - self.loss(before)

    def loss(self, scores: Tensor) -> Tensor:
        """Of each case; a change has none."""
        if self.kind == "squared":
            return (scores - self._truth) ** 2
        p = scores.clamp(_LEAST_SCORE, 1 - _LEAST_SCORE)
        return -torch.where(self._truth > 0, p.log(), (1 - p).log())

    def poor(self, before: Tensor) -> str | None:
        """What must be said where the model errs more, unperturbed, than one that says the same of every case.

        That one knows only how frequent the label is (log), or the mean of the reference (squared).
        """
        if self.kind == "change":
            return None
        mean = self._truth.mean()
        same = (self._truth - mean) ** 2 if self.kind == "squared" else self.loss(mean.expand(len(self._truth)))
        mine, least = float(self.loss(before).mean()), float(same.mean())
        if mine <= least:
            return None
        return (
            f"on these cases the model errs more (mean loss {mine:.3g}) than if it said the same of each "
            f"({least:.3g} {self.words[1]}): an increase of its errors says little of what it knows"
        )


def _chosen(loss: Loss, model: Model, target: Target, known: bool) -> tuple[Loss, Target]:
    """The loss, and the target that it is computed from."""
    kind = model.output.task if isinstance(target, ClassScore) else "other"
    fitting: Loss = {"classification": "log", "regression": "squared"}.get(kind, "change")
    if loss == "auto":
        loss = fitting if known else "change"
    elif loss != "change" and not known:
        raise BadOption(
            f"a {loss} loss needs the reference label of every case", "fill the column label, or use change"
        )
    if loss not in ("change", fitting):
        raise BadOption(
            f"a {loss} loss does not fit this target of a {model.output.task} model",
            f"use loss={fitting}" if fitting != "change" else "use loss=change",
        )
    if loss == "log" and isinstance(target, ClassScore):
        return loss, ClassScore(target.label, "score")
    return loss, target


def _truth(kind: Loss, cohort: Cohort, opening: Opening) -> Tensor:
    """The reference of each case as a number."""
    if kind == "change":
        return torch.zeros(cohort.size, dtype=torch.float64)
    labels = [str(v) for v in cohort.labels]
    if kind == "squared":
        try:
            return torch.tensor([float(v) for v in labels], dtype=torch.float64)
        except ValueError as error:
            raise BadOption("a squared loss needs numbers as reference labels, got words", "use change") from error
    index = opening.bound.label
    names = {opening.target, str(index)}
    positive = torch.tensor([bool(names & {part.strip() for part in v.split("|")}) for v in labels])
    if positive.all() or not positive.any():
        raise BadOption(
            f"expected cases with and without {opening.target!r}, got {int(positive.sum())} with it of {len(labels)} "
            f"(labels: {', '.join(sorted(set(labels))[:6])})",
            "add cases of the other class, correct the labels, or use loss=change",
        )
    return positive.double()
