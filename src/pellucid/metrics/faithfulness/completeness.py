"""Whether a map keeps the sum that its method promises."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from pellucid.core.card import MetricCard, Property
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer, Attribution
from pellucid.core.metric import Metric, Score
from pellucid.core.probe import Probe

_NO_SUM = "the method does not promise a sum"


@dataclass(frozen=True)
class CompletenessGap(Metric):
    """How far the map's values miss the sum that the method promises, as a share of it.

    ``|sum A - (S(x) - S(reference))| / |S(x) - S(reference)|`` over all inputs, with the reference of the method. A gap
    says that the map was computed too coarsely (more steps close it); no gap says nothing about where the values lie.

    Returns:
        Score, 0 or more, lower is better; undefined for methods that promise no sum.

    Source:
        sundararajan2017axiomatic.

    Example:
        >>> CompletenessGap().card.cost_note
        'none'
    """

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="how far the map's values miss the sum that the method promises, as a share of it",
        caution="a map that keeps its sum may still put it in the wrong place",
        equation=r"\left|\sum A - \Delta S\right| \,/\, |\Delta S|",
        source="sundararajan2017axiomatic",
        cost_note="none",
        direction="lower",
        interval="0 or more",
    )

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        gap = answer.gap if isinstance(answer, Attribution) else None
        if gap is None:
            return Score.undefined(self, probe.batch, _NO_SUM)
        values = gap.detach().double().cpu()
        finite = torch.isfinite(values)
        reasons = tuple("" if f else "the map is not finite" for f in finite.tolist())
        return Score(self.name, torch.where(finite, values, torch.nan), reasons, self.settings())
