"""The interface of every metric, and its result."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.card import Cost, Declared, MetricCard
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.probe import Probe


@dataclass(frozen=True, eq=False)
class Score:
    """A metric's value for each item; undefined is NaN with a reason, never True or 0.

    Args:
        metric: class name.
        values: "batch".
        reasons: why an item is undefined; empty where it is defined.
        settings: hyperparameters.
        detail: curves and by-products, JSON types.

    Example:
        >>> Score("IoU", torch.tensor([0.5, torch.nan]), ("", "no expert region")).reasons[1]
        'no expert region'
    """

    metric: str
    values: Float[Tensor, " batch"]
    reasons: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def undefined(cls, metric: "Metric | PanelMetric", items: int, reason: str) -> "Score":
        """All items undefined for one reason."""
        return cls(
            metric.name, torch.full((items,), torch.nan, dtype=torch.float64), (reason,) * items, metric.settings()
        )


class Metric(Declared, ABC, abstract="metric"):
    """A number that says how far an explanation can be relied upon in one respect."""

    card: ClassVar[MetricCard]

    @property
    def name(self) -> str:
        """The class name."""
        return type(self).__name__

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """Own passes for one item, an upper bound; ``explainer`` is what randomization metrics run again."""
        return Cost()

    @abstractmethod
    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """Score an answer.

        Args:
            probe: of the case, aimed at the explained target.
            answer: on the network's grid.
            explainer: what made it.
            region: expert or planted mask on the network's grid; None where there is none.
        """


class PanelMetric(Declared, ABC, abstract="metric of a panel"):
    """A number about several explanations of one target together; it asks nothing of the model."""

    card: ClassVar[MetricCard]

    @property
    def name(self) -> str:
        """The class name."""
        return type(self).__name__

    @abstractmethod
    def __call__(self, probe: Probe, panel: Sequence[tuple[Explainer, Answer]]) -> Score:
        """Score the explanations of a panel.

        Args:
            probe: of the case, aimed at the explained target.
            panel: each answer on the network's grid, with what made it.
        """
