"""The interface of every explanation method."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pellucid.core.card import LAYERS, Ask, Card, Cost, Declared
from pellucid.core.cohort import Cohort
from pellucid.core.explanation import Answer, Effects
from pellucid.core.infill import Infill
from pellucid.core.model import Inputs, Model
from pellucid.core.probe import Need, Probe


class Explainer(Declared, ABC, abstract="method"):
    """A method that answers why, for each case of a batch. Final subclasses are frozen dataclasses with a card."""

    card: ClassVar[Card]

    @property
    def name(self) -> str:
        """The class name, as the paper calls the method."""
        return type(self).__name__

    def needs(self, model: Model, inputs: Inputs) -> frozenset[Need]:
        """What is asked of the shared pass, with layers resolved to names."""
        return frozenset((ask, None) for ask in self.card.asks)

    def cost(self, probe: Probe) -> Cost:
        """Own passes for one item: exact, or an upper bound where the method may stop early.

        A probe that nobody asked yet has made no pass, so a planner may open one to learn the cost.
        """
        return Cost()

    def stand_in(self, probe: Probe) -> str | None:
        """What stood in for hidden voxels or for the image to compare with, in words for the caption; None: nothing.

        Read off the field ``infill`` (its default: the scene's first two fills) or ``baseline`` (the first).
        """
        for name, count in (("infill", 2), ("baseline", 1)):
            if name in self.settings():
                chosen = self.settings()[name]
                fills = (chosen,) if isinstance(chosen, Infill) else probe.scene.infills[:count]
                return " and ".join(dict.fromkeys(fill.words for fill in fills))
        return None

    @abstractmethod
    def __call__(self, probe: Probe) -> Answer:
        """Explain the probe's target."""


@dataclass(frozen=True)
class LayerExplainer(Explainer, ABC, abstract=""):
    """A method that reads one layer."""

    layer: Annotated[
        str | None, "name of the layer; None: the last with spatial extent (segmentation: the coarsest)"
    ] = None

    def needs(self, model: Model, inputs: Inputs) -> frozenset[Need]:
        """See ``Explainer.needs``."""
        name = model.resolve(self.layer, inputs) if self.card.asks & LAYERS else None
        return frozenset((ask, name if ask in LAYERS else None) for ask in self.card.asks | {Ask.OUTPUT})


class CohortExplainer(Declared, ABC, abstract="cohort method"):
    """A method that answers why for a model, from many cases. Final subclasses are frozen dataclasses with a card."""

    card: ClassVar[Card]
    background: ClassVar[bool] = False  # whether parts may be taken from cases apart from the cohort

    @property
    def name(self) -> str:
        """The class name, as the paper calls the method."""
        return type(self).__name__

    @abstractmethod
    def __call__(self, model: Model, cases: Cohort) -> Effects:
        """Explain what the model's score depends on over the cases.

        Raises:
            BadOption: one case: use a method for one case.
        """
