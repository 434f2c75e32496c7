"""Attention followed back through all layers: which cells reach the tokens that the target depends on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from pellucid.core.card import Ask, Card, Family, Level
from pellucid.core.explanation import Attribution
from pellucid.core.probe import Probe
from pellucid.core.tokens import Attention
from pellucid.explain.attention import SHARE, AttentionExplainer, drawn, origin
from pellucid.explain.flow import as_shares, carried, gathered, scattered, stepped, within

Step = Callable[[Tensor, Attention, int], Tensor]


def _back(method: AttentionExplainer, probe: Probe, step: Step) -> tuple[Tensor, Attention]:
    """The state at the first attention layer, from the target's tokens through every layer."""
    found = method.attentions(probe.model, probe.inputs)
    state = origin(probe, found[-1])
    for index in reversed(range(len(found))):
        one = found[index]
        state = step(state, one, index)
        if index:
            state = carried(state, one.columns, found[index - 1].rows)
    return state, found[0]


@dataclass(frozen=True)
class AttentionRollout(AttentionExplainer):
    """Which cells reach the target's tokens, if every layer kept half of a token and mixed in half by attention.

    ``r A_L ... A_1`` with ``A = (mean_h A_h + I) / 2``, rows summing to one, so the shares of all tokens sum to one. A
    row vector goes back window by window; windows, shifts and merged patches are the module's own. It ignores values,
    layers between attentions and sign, is the same for every class where a class token is read, and does not follow
    the skip connections of a segmentation network.

    Returns:
        Attribution without negative values: shares of attention per cell.

    Raises:
        CannotDo: the model has no attention, or where its tokens lie cannot be told.

    Source:
        abnar2020rollout. Keys that only fill up a window are left out before rows are made to sum to one.

    Example:
        >>> from pellucid.testing import small_model
        >>> model, x, target = small_model(2, "classification", attentive=True)
        >>> method = AttentionRollout()
        >>> a = method(Probe(model, x, target, method.needs(model, {"image": x})))
        >>> bool(a.maps["image"].min() >= 0), a.unit
        (True, 'share of attention')
    """

    card: ClassVar[Card] = Card(
        family=Family.ATTENTION,
        shows="which cells reach the target's tokens through the attention of all layers",
        caution="ignores values and sign, hardly knows the class; skip connections of a segmentation are not followed",
        equation=r"r \prod_{l=L}^{1} \tfrac12 \Big(\tfrac1H \sum_h A_h^l + I\Big)",
        source="abnar2020rollout",
        cost_note="none of its own: one forward, and one backward to the last attention layer, shared",
        asks=frozenset({Ask.ATTENTION}),
        signed=False,
        level=Level.FEATURE_MAP,
    )

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        weights = probe.attention.weights

        def step(state: Tensor, one: Attention, index: int) -> Tensor:
            moved = stepped(state, one, as_shares(within(weights[index], one.columns)))
            return (state + moved) / 2 if one.itself else moved

        state, first = _back(self, probe, step)
        return drawn(probe, state, first.columns, SHARE)


@dataclass(frozen=True)
class GradientAttentionRollout(AttentionExplainer):
    """Which cells reach the target's tokens through attention that raises the score.

    ``R <- R + mean_h (grad A * A)^+ R`` from the first layer to the last, from ``R = I``, read at the target's tokens;
    computed as a row vector, from the last to the first. Knows the class, by the gradient. Falling gradients are
    dropped, so nothing against is shown; values are ignored; skip connections of a segmentation are not followed.

    Returns:
        Attribution without negative values, in units of attention times gradient, per cell.

    Raises:
        CannotDo: the model has no attention, or where its tokens lie cannot be told.

    Source:
        chefer2021generic, eqs. 5 and 6. The review's eq. 23 has neither identity nor positive part. ``normalized``
        makes the rows of I + A sum to one, as in chefer2021transformer.

    Example:
        >>> from pellucid.testing import small_model
        >>> model, x, target = small_model(2, "classification", attentive=True)
        >>> method = GradientAttentionRollout()
        >>> a = method(Probe(model, x, target, method.needs(model, {"image": x})))
        >>> a.maps["image"].shape
        torch.Size([2, 1, 16, 16])
    """

    normalized: Annotated[bool, "make the rows of each layer sum to one"] = False

    card: ClassVar[Card] = Card(
        family=Family.ATTENTION,
        shows="which cells reach the target's tokens through attention that raises the score",
        caution="nothing against is shown; values are ignored; skip connections of a segmentation are not followed",
        equation=r"r \prod_{l=L}^{1} \Big(I + \tfrac1H \sum_h (\nabla A_h^l \odot A_h^l)^+\Big)",
        source="chefer2021generic",
        cost_note="none of its own: one forward and one backward to the first attention layer, shared",
        asks=frozenset({Ask.ATTENTION, Ask.ATTENTION_GRADIENT}),
        signed=False,
        level=Level.FEATURE_MAP,
    )

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        evidence = probe.attention.evidence

        def step(state: Tensor, one: Attention, index: int) -> Tensor:
            rising = within(evidence[index], one.columns)
            if not one.itself:
                return stepped(state, one, as_shares(rising) if self.normalized else rising)
            if self.normalized:
                whole = gathered(state, one.rows) / (1 + rising.sum(-1))
                state = scattered(whole, one.rows)
            return state + stepped(state, one, rising)

        state, first = _back(self, probe, step)
        return drawn(probe, state, first.columns, "attention times gradient")
