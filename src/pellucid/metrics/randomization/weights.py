"""Whether a map depends on what the model has learned."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.card import Ask, Cost, MetricCard, Property, shared_cost
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer, Attribution
from pellucid.core.metric import Metric, Score
from pellucid.core.probe import Probe
from pellucid.metrics.maps import NO_MAP, on_grid
from pellucid.metrics.randomization.alike import Measure, Similarity
from pellucid.metrics.randomization.edges import likeness_to_edges
from pellucid.metrics.randomization.fresh import (
    BUFFERS,
    NO_WEIGHTS,
    Order,
    fresh_maps,
    mean_of,
    stages_of,
    without_start,
)


@dataclass(frozen=True)
class ModelParameterRandomization(Metric):
    """Whether the map changes when the model's weights are replaced by fresh ones, from the output backwards.

    Similarity of the map and the map after each stage. ``cascading``: the last one, with all weights fresh;
    ``independent``: the mean over stages, each fresh by itself. A map that stays (near 1) shows the image, as an edge
    detector would, and not the model. It passes nobody: a map that changes may still be wrong, and a signed map may
    change its signs only (``magnitudes`` in the detail). Works on a copy; the model is untouched.

    Returns:
        Similarity, lower is better; undefined for a constant map or a model that shows no weights.

    Raises:
        BadOption: fewer than one level or draw.

    Source:
        adebayo2018sanity. Fresh weights come from each layer's own initialization, seeded.

    Example:
        >>> ModelParameterRandomization(levels=2).card.direction
        'lower'
    """

    levels: Annotated[int, "stages, from the output to all weights"] = 3
    order: Annotated[Order, "whether what was drawn before stays (cascading) or goes back (independent)"] = "cascading"
    similarity: Annotated[Similarity, "of maps: rank correlation, or structural similarity"] = "spearman"
    draws: Annotated[int, "draws of fresh weights, whose mean counts"] = 1

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.RANDOMIZATION,
        shows="how much of the map stays when the model's weights are replaced by fresh ones",
        caution="a map that changes may still be wrong; fresh weights differ from draw to draw",
        equation=r"\rho(A(\theta),\, A(\theta_{\mathrm{fresh}}))",
        source="adebayo2018sanity",
        cost_note="one more explanation per level and draw",
        direction="lower",
        interval="-1 to 1",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise BadOption(f"expected at least 1 level, got {self.levels}", "3 is the default")
        if self.draws < 1:
            raise BadOption(f"expected at least 1 draw, got {self.draws}", "1 is the default")

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``."""
        return (shared_cost(explainer.card.asks) + explainer.cost(probe)) * (self.levels * self.draws)

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        stages, maps = stages_of(probe.model.module, self.levels), on_grid(answer, probe)
        if maps is None or not stages or not isinstance(answer, Attribution):
            return Score.undefined(self, probe.batch, NO_WEIGHTS if not stages else NO_MAP)
        measure = Measure(self.similarity, answer.signed)
        sizes = Measure(self.similarity, signed=False)
        here, size, last = measure.ready(maps), sizes.ready(maps.abs()), maps
        found: list[list[Tensor]] = []
        for draw in range(self.draws):
            for fresh in fresh_maps(probe, explainer, stages, draw, self.order):
                last = measure.ready(fresh)
                found.append([measure.alike(here, last), sizes.alike(size, sizes.ready(fresh.abs()))])
        rows = torch.stack([torch.stack(pair) for pair in found]).unflatten(0, (self.draws, len(stages)))
        detail = {
            "levels": [len(names) for names in stages],
            "layers": stages,
            "chance": measure.chance(here, last, probe.scene.seed),
            "similar to edges": likeness_to_edges(measure, maps, probe),
            "buffers": BUFFERS,
            "without an initialization of their own": without_start(probe.model.module),
        }
        return self._scored(rows[:, :, 0], rows[:, :, 1], measure, detail)

    def _scored(
        self,
        rows: Float[Tensor, "draw stage batch"],
        magnitudes: Float[Tensor, "draw stage batch"],
        measure: Measure,
        detail: dict[str, Any],
    ) -> Score:
        """Means over the draws that could be compared."""
        each = rows[:, -1] if self.order == "cascading" else rows.nanmean(1)
        spread = mean_of(each)
        reasons = tuple("" if ok else measure.words for ok in torch.isfinite(spread.value).tolist())
        curve, sizes = rows.nanmean(0), magnitudes.nanmean(0)
        detail = {"curve": curve.tolist(), "magnitudes": sizes.tolist(), **spread.detail, **detail}
        return Score(self.name, spread.value, reasons, self.settings(), detail)
