"""Whether a map depends on what the model has learned."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxtyping import Bool
from torch import Tensor

from pellucid.core.card import Ask, Cost, MetricCard, Property, shared_cost
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer, Attribution
from pellucid.core.metric import Metric, Score
from pellucid.core.probe import Probe
from pellucid.metrics.maps import NO_MAP, on_grid
from pellucid.metrics.randomization.alike import Similarity
from pellucid.metrics.randomization.beside import Beside
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
    change its signs only (``of the magnitudes`` in the detail). Works on a copy; the model is untouched.

    Returns:
        Similarity, lower is better; undefined for a constant map or a model that shows no weights.

    Raises:
        BadOption: fewer than one level or draw.

    Source:
        adebayo2018sanity. Fresh weights come from each layer's own initialization, seeded; running statistics restart.

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
        caution="a map that changes may still be wrong, and a signed one may keep its magnitudes; draws differ",
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
        beside = Beside(maps, self.similarity, answer.signed)
        if beside.hopeless:
            return Score.undefined(self, probe.batch, beside.measure.words)
        for draw in range(self.draws):
            for again in fresh_maps(probe, explainer, stages, draw, self.order):
                beside.add(again)
        curves = [v.unflatten(0, (self.draws, len(stages))) for v in (beside.alike, beside.magnitudes)]
        values, sizes = (v[:, -1] if self.order == "cascading" else v.nanmean(1) for v in curves)
        spread = mean_of(values)
        detail = {
            "curve": curves[0].nanmean(0).tolist(),
            "magnitudes": curves[1].nanmean(0).tolist(),
            "of the magnitudes": sizes.nanmean(0).tolist(),
            "levels": [len(names) for names in stages],
            "layers": stages,
            **spread.detail,
            **beside.detail(probe.scene.seed),
            "similar to edges": likeness_to_edges(beside.measure, maps, probe),
            "buffers": BUFFERS,
            "without an initialization of their own": without_start(probe.model.module),
        }
        return Score(self.name, spread.value, beside.reasons(spread.value), self.settings(), detail)
