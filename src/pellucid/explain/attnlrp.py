"""Relevance through transformers: attention weights get their share, not only the values."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pellucid.core.card import Ask, Card, Cost, Family
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.model import Inputs, Model
from pellucid.core.probe import Need, Probe
from pellucid.core.tokens import attention_of
from pellucid.explain.propagation import Fallback, Treatment
from pellucid.explain.relevance import relevance_of
from pellucid.explain.relevance_rules import Epsilon


@dataclass(frozen=True)
class AttnLRP(Explainer):
    """How much of the score each voxel accounts for in a transformer, attention included.

    The score is divided backward: linear layers by ``epsilon``, a product of two computed matrices gives half to each,
    a softmax ``R_i = x_i (R_i - s_i sum_j R_j)``, LayerNorm with its deviation held constant, GELU in proportion.
    Has sign and the resolution of voxels, but the patch grid shows through; biases and the softmax keep relevance, and
    the ledger says how much. Small sums of large terms make it grainy.

    Returns:
        Signed attribution in the target's unit, with its ledger.

    Raises:
        BadOption: epsilon is not above 0.
        CannotDo: the model has no attention; an operation has no rule and ``fallback`` is ``refuse``; low precision.

    Source:
        achtibat2024attnlrp, with epsilon on the sum's own side (the authors' code adds 1e-10 without sign).

    Example:
        >>> from pellucid.testing import small_model
        >>> model, x, target = small_model(2, "classification", attentive=True)
        >>> AttnLRP()(Probe(model, x, target)).maps["image"].shape
        torch.Size([2, 2, 16, 16])
    """

    epsilon: Annotated[float, "added to divisors, in units of the layer's values"] = 1e-6
    fallback: Annotated[Fallback, "an operation without a rule: refuse, or take gradient times input"] = "refuse"

    card: ClassVar[Card] = Card(
        family=Family.RELEVANCE,
        shows="how much of the score each voxel accounts for, through attention and values alike",
        caution="patch borders show through; biases and softmax keep relevance; a patent is claimed on the family "
        "(see the docs page on relevance)",
        equation=r"R_i = x_i \Big(R_i - s_i \sum_j R_j\Big)",
        source="achtibat2024attnlrp",
        cost_note="one forward and backward in which each layer is evaluated once or twice more",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        completes=True,
    )

    def __post_init__(self) -> None:
        if self.epsilon <= 0:
            raise BadOption(f"expected epsilon above 0, got {self.epsilon}", "1e-6 is usual")

    def needs(self, model: Model, inputs: Inputs) -> frozenset[Need]:
        """See ``Explainer.needs``; refuses a model without attention before anything is run."""
        attention_of(model, inputs)
        return super().needs(model, inputs)

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        return Cost(1, 1)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        rule = Epsilon(self.epsilon)
        treatment = Treatment(rule, rule, attention="shared", fallback=self.fallback, method="AttnLRP")
        return relevance_of(probe, treatment, signed=True)
