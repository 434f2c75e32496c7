"""Whether a map becomes more disorderly when the model has learned nothing."""

from dataclasses import dataclass, replace
from math import ceil, log2
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.card import Ask, Cost, MetricCard, Property, shared_cost
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer, Attribution
from pellucid.core.metric import Metric, Score
from pellucid.core.probe import Probe
from pellucid.metrics.maps import NO_MAP, blank_reasons, on_grid, ranked
from pellucid.metrics.randomization.alike import Measure
from pellucid.metrics.randomization.edges import likeness_to_edges
from pellucid.metrics.randomization.fresh import BUFFERS, NO_WEIGHTS, fresh_maps, mean_of, stages_of, without_start

_STILL = "the map of a model with fresh weights is constant or not finite: its entropy means nothing"


@dataclass(frozen=True)
class EfficientMPRT(Metric):
    """Whether the map becomes more disorderly when all of the model's weights are replaced by fresh ones.

    ``(H(A_fresh) - H(A)) / H(A)`` with the entropy H of the histogram of the map's values. 0 for a map that ignores the
    model, such as an edge detector; below 0 where the untrained model's map is the simpler one. It compares no places:
    a map that moves but keeps its histogram gets 0, and a wrong map may rise. Works on a copy; the model is untouched.

    Returns:
        Relative rise, higher is better; undefined for a constant map or a model that shows no weights.

    Raises:
        BadOption: fewer than two bins or one draw.

    Source:
        hedstrom2023sanity, with the bins of Sturges' rule for the number of voxels (the paper: 100).

    Example:
        >>> EfficientMPRT().card.direction
        'higher'
    """

    bins: Annotated[int | None, "of the histogram; None: Sturges' rule, 13 for 64 x 64 voxels"] = None
    draws: Annotated[int, "draws of fresh weights, whose mean counts"] = 1

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.RANDOMIZATION,
        shows="how much more disorderly the map becomes when the model's weights are replaced by fresh ones",
        caution="compares histograms, not places; without bound for a map of few strong voxels (entropy near 0)",
        equation=r"(H(A(\theta_{\mathrm{fresh}})) - H(A(\theta))) \,/\, H(A(\theta))",
        source="hedstrom2023sanity",
        cost_note="one more explanation per draw",
        direction="higher",
        interval="-1 to any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def __post_init__(self) -> None:
        if (self.bins is not None and self.bins < 2) or self.draws < 1:
            raise BadOption(
                f"expected at least 2 bins and 1 draw, got {self.bins} and {self.draws}", "leave out what is not known"
            )

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``."""
        return (shared_cost(explainer.card.asks) + explainer.cost(probe)) * self.draws

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        stages, maps = stages_of(probe.model.module, 1), on_grid(answer, probe)
        if maps is None or not stages or not isinstance(answer, Attribution):
            return Score.undefined(self, probe.batch, NO_WEIGHTS if not stages else NO_MAP)
        blank, bins = blank_reasons(maps), self.bins or sturges(maps[0].numel())
        if all(blank):
            return replace(Score.undefined(self, probe.batch, ""), reasons=blank)
        before = entropies(maps, bins)
        again = [fresh for draw in range(self.draws) for fresh in fresh_maps(probe, explainer, stages, draw)]
        after = torch.stack([entropies(fresh.maps, bins) for fresh in again])
        refused = list(dict.fromkeys(fresh.refused for fresh in again if fresh.refused))
        spread, why = mean_of((after - before) / before), "; ".join(refused) or _STILL
        values = torch.where(torch.tensor([bool(b) for b in blank]), torch.nan, spread.value)
        reasons = tuple(b or ("" if ok else why) for b, ok in zip(blank, torch.isfinite(values).tolist(), strict=True))
        detail = {
            "bins": bins,
            "entropy": before.tolist(),
            "entropy with fresh weights": after.nanmean(0).tolist(),
            **spread.detail,
            "similar to edges": likeness_to_edges(Measure("spearman", answer.signed), maps, probe),
            "buffers": BUFFERS,
            "without an initialization of their own": without_start(probe.model.module),
            "refused": refused,
        }
        return Score(self.name, values, reasons, self.settings(), detail)


def sturges(voxels: int) -> int:
    """Bins for a histogram of so many values.

    Example:
        >>> sturges(64 * 64), sturges(96**3)
        (13, 21)
    """
    return ceil(log2(voxels)) + 1


def entropies(maps: Float[Tensor, "batch *space"], bins: int) -> Float[Tensor, " batch"]:
    """Entropy in nat of each map's histogram between its least and largest value; NaN where there is one value only.

    Values equal but for rounding are equal, so that none changes its bin with the batch.
    """
    return torch.tensor([_entropy(one.double().numpy(), bins) for one in ranked(maps)], dtype=torch.float64).where(
        torch.isfinite(maps).flatten(1).all(1), torch.nan
    )


def _entropy(values: np.ndarray, bins: int) -> float:
    if values.min() == values.max():
        return float("nan")
    counts = np.histogram(values, bins)[0]
    return float(torch.special.entr(torch.from_numpy(counts / counts.sum())).sum())
