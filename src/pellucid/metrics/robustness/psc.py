"""Whether the map changes when the prediction does, and only then."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.card import Ask, Cost, MetricCard, Property, shared_cost
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.metric import Score
from pellucid.core.probe import Probe
from pellucid.core.sweep import Again, Asking, Moved, SweptMetric
from pellucid.metrics.likeness import spearman
from pellucid.metrics.maps import NO_MAP, on_grid
from pellucid.metrics.robustness.hunting import wide
from pellucid.metrics.robustness.noise import Bank, difference, same_decision, unfit

_FEWEST = 3  # pairs: two always lie on a line
_ROUNDING = 512  # last places of what is compared, below which a difference is rounding


@dataclass(frozen=True)
class PredictionSaliencyCorrelation(SweptMetric):
    """Whether the map changes by as much as the prediction does, over pairs of the image and a changed copy.

    Pearson correlation of ``|S(x + e) - S(x)|`` and ``sum |A(x + e) - A(x)|``. Arm ``sensitivity``: boxes are pushed
    with and against the score's slope, so that the prediction changes as it can there. Arm ``robustness``: noise of
    rising strength that leaves the decision. One follows changes of the model, the other does not invent them.

    Returns:
        Score from -1 to 1, higher is better; undefined where score or map changes in no pair, or in all alike.

    Raises:
        BadOption: an option outside its range.

    Source:
        zhang2024revisiting, for the coefficient and the two arms; pairs and distances are ours, so that it is 1 for
        input times gradient of a linear model.

    Example:
        >>> PredictionSaliencyCorrelation("robustness").settings()["pairs"]
        24
    """

    arm: Annotated[
        Literal["sensitivity", "robustness"], "pairs that change the prediction, or that leave the decision"
    ] = "sensitivity"
    pairs: Annotated[int, "changed copies of the image"] = 24
    bound: Annotated[float, "largest shift of a voxel, as a share of the intensity range of the body"] = 0.05
    size: Annotated[float, "edge of a pushed box, as a share of the image's"] = 0.25

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.ROBUSTNESS,
        shows="whether the map changes by as much as the prediction does when the image is changed a little",
        caution="says nothing of whether the map is right; few pairs, whose strengths decide over the value",
        equation=r"\mathrm{corr}(|S(x+e) - S(x)|,\, \Vert A(x+e) - A(x) \Vert_1)",
        source="zhang2024revisiting",
        cost_note="one more explanation per pair, and one gradient for the arm sensitivity",
        direction="higher",
        interval="-1 to 1",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def __post_init__(self) -> None:
        if self.arm not in ("sensitivity", "robustness"):
            raise BadOption(f"expected arm sensitivity or robustness, got {self.arm!r}", "choose one of these")
        if self.pairs < _FEWEST or not 0 < self.bound <= 1 or not 0 < self.size <= 1:
            raise BadOption(
                f"expected at least {_FEWEST} pairs, and bound and size within (0, 1], got {self.pairs}, {self.bound} "
                f"and {self.size}",
                "24, 0.05 and 0.25 are the defaults",
            )

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``."""
        once = Cost(1, 1) if self.arm == "sensitivity" else Cost()
        return once + (shared_cost(explainer.card.asks) + explainer.cost(probe)) * self.pairs

    def asking(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Asking:
        """See ``SweptMetric``."""
        maps, bank = on_grid(answer, probe), Bank("uniform", self.bound, self.pairs)
        if maps is None:
            return Score.undefined(self, probe.batch, NO_MAP)
        blank = unfit(probe, maps, bank)
        if all(blank):
            return replace(Score.undefined(self, probe.batch, ""), reasons=blank)
        here, before = maps.double(), probe.baseline_score.double().cpu()
        slope = _signs(probe.gradient(probe.inputs)[probe.model.primary]) if self.arm == "sensitivity" else None

        def reduce(again: Again) -> tuple[Tensor, Tensor, Tensor]:
            moved = difference(probe, again, here).abs().sum(1)
            return (again.score.double().cpu() - before).abs(), moved, same_decision(probe, again.output)

        (found,) = yield (Moved(lambda: self._copies(probe, bank, slope), reduce),)
        scores, changes, same = (torch.stack(column, 1) for column in zip(*found, strict=True))
        eps = torch.finfo(maps.dtype).eps * _ROUNDING
        scales = eps * before.abs(), eps * here.abs().flatten(1).sum(1)
        return self._scored(probe, (scores, changes, same), scales, blank)

    def _copies(self, probe: Probe, bank: Bank, slope: Tensor | None) -> Iterator[Mapping[str, Tensor]]:
        """The changed images, drawn on the CPU from the scene's seed, the same for all items."""
        name, generator = probe.model.primary, torch.Generator().manual_seed(probe.scene.seed)
        x, span = probe.inputs[name], wide(bank.spread(probe)[name], probe.inputs[name])
        for pair in range(self.pairs):
            if slope is not None:
                box = self._box(probe.grid.shape, generator).to(x)
                push = box * slope * (1 if pair % 2 == 0 else -1)
            else:
                strength = (pair + 1) / self.pairs
                push = strength * (2 * torch.rand(x.shape[1:], generator=generator) - 1).to(x)
            yield {**probe.inputs, name: x + span * push}

    def _box(self, shape: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "*space"]:
        """Ones in a box anywhere inside the image."""
        box = torch.zeros(shape)
        edges = [max(1, round(self.size * n)) for n in shape]
        corner = [int(torch.randint(n - e + 1, (1,), generator=generator)) for n, e in zip(shape, edges, strict=True)]
        box[tuple(slice(c, c + e) for c, e in zip(corner, edges, strict=True))] = 1
        return box

    def _scored(
        self,
        probe: Probe,
        found: tuple[Tensor, Tensor, Tensor],
        scales: tuple[Tensor, Tensor],
        blank: tuple[str, ...],
    ) -> Score:
        """Correlate, item by item."""
        scores, changes, same = found
        keep = same if self.arm == "robustness" else torch.ones_like(same)
        values, ranks, reasons = [], [], []
        for i, already in enumerate(blank):
            one, other = scores[i][keep[i]].numpy(), changes[i][keep[i]].numpy()
            why = already or _why(one, other, float(scales[0][i]), float(scales[1][i]))
            values.append(float("nan") if why else float(np.corrcoef(one, other)[0, 1]))
            ranks.append(float("nan") if why else spearman(one, other))
            reasons.append(why)
        detail: dict[str, Any] = {
            "spearman": ranks,
            "changes of the score": scores.tolist(),
            "changes of the map": changes.tolist(),
            "pairs that change the decision": (~same).sum(1).tolist(),
            "bound": f"{self.bound:g} of the intensity range of the body, largest shift of any voxel",
        }
        return Score(
            self.name, torch.tensor(values, dtype=torch.float64).clamp(-1, 1), tuple(reasons), self.settings(), detail
        )


def _why(scores: np.ndarray, changes: np.ndarray, least_score: float, least_change: float) -> str:
    """Why there is nothing to correlate; empty where there is."""
    if len(scores) < _FEWEST:
        return f"fewer than {_FEWEST} pairs leave the decision as it is"
    if not np.isfinite(changes).all():
        return "the map of a changed copy is not finite"
    for what, values, least in (("score", scores, least_score), ("map", changes, least_change)):
        if values.max() <= least:
            return f"the {what} changes in no pair"
        if np.ptp(values) <= least:
            return f"the {what} changes by as much in every pair"
    return ""


def _signs(gradient: Tensor) -> Tensor:
    """Of the slope; 0 where it is rounding, so that an item alone is pushed as in a batch."""
    size = gradient.abs()
    least = size.flatten(1).amax(1) * (_ROUNDING * torch.finfo(gradient.dtype).eps)
    return gradient.sign() * (size > least.view(-1, *(1,) * (gradient.ndim - 1)))
