"""What the methods for cohorts share: losses, permutations of cases, and intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import bootstrap
from torch import Tensor

from pellucid.core.cohort import Cohort, Opening
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
    """For each repeat which case gives to which; within a group only, where asked.

    Raises:
        BadOption: groups are asked for and not known, or every group holds a single case.
    """
    draw = np.random.default_rng(cohort.scene.seed)
    if not within_groups:
        return [draw.permutation(cohort.size) for _ in range(repeats)]
    groups = np.array([g if g is not None else "" for g in cohort.groups])
    sizes = np.unique(groups, return_counts=True)[1]
    if not len(groups) or "" in groups or sizes.max() < 2:
        raise BadOption(
            "expected the group (site, scanner) of every case and at least two in a group, got none or single ones",
            "fill the column group of the CSV, or permute over all cases",
        )
    drawn = []
    for _ in range(repeats):
        order = np.arange(cohort.size)
        for group in np.unique(groups):
            here = np.flatnonzero(groups == group)
            order[here] = draw.permutation(here)
        drawn.append(order)
    return drawn


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
        self._whole = self.opening.baseline

    @property
    def words(self) -> tuple[str, str]:
        """What an increase is, and its unit."""
        if self.kind == "log":
            return "increase of the log loss", "nat"
        square = f"({self.opening.unit})²"
        return ("increase of the squared error" if self.kind == "squared" else "squared change of the score"), square

    def increase(self, scores: Tensor) -> Tensor:
        """For each case, how much worse the scores are than the unperturbed ones."""
        return self._loss(scores) - self._loss(self._whole)

    @property
    def start(self) -> float:
        """The mean loss of the unperturbed cases."""
        return float(self._loss(self._whole).mean())

    def _loss(self, scores: Tensor) -> Tensor:
        if self.kind == "change":
            return (scores - self._whole) ** 2
        if self.kind == "squared":
            return (scores - self._truth) ** 2
        p = scores.clamp(_LEAST_SCORE, 1 - _LEAST_SCORE)
        return -torch.where(self._truth > 0, p.log(), (1 - p).log())


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
    index = opening.probes[0].target.label
    names = {opening.target, str(index)}
    positive = torch.tensor([bool(names & {part.strip() for part in v.split("|")}) for v in labels])
    if positive.all() or not positive.any():
        raise BadOption(
            f"expected cases with and without {opening.target!r}, got {int(positive.sum())} with it of {len(labels)} "
            f"(labels: {', '.join(sorted(set(labels))[:6])})",
            "add cases of the other class, correct the labels, or use loss=change",
        )
    return positive.double()
