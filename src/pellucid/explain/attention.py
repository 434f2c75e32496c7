"""What the last attention looks at; and what all methods that read attention share."""

from abc import ABC
from dataclasses import dataclass, replace
from math import prod
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Family, Level
from pellucid.core.errors import BadOption, CannotDo
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.model import Inputs, Model
from pellucid.core.probe import Need, Probe
from pellucid.core.tokens import Attention, Side, attention_of, heeded
from pellucid.explain.cells import layer_map
from pellucid.explain.flow import as_shares, carried, scattered, stepped, within

SHARE = "share of attention"
_MOSTLY = 0.5  # of the weight, outside the image: the reader is told
_UNASKED = "the target depends on no token of the last attention layer: the map is blank"


@dataclass(frozen=True)
class AttentionExplainer(Explainer, ABC, abstract=""):
    """A method that reads the attention between the tokens of an image."""

    grid: Annotated[
        str | None, "cells of the tokens per axis, such as 14x14, where they cannot be found; None: found"
    ] = None

    def __post_init__(self) -> None:
        self._told()

    def needs(self, model: Model, inputs: Inputs) -> frozenset[Need]:
        """See ``Explainer.needs``; refuses a model without attention before anything is run."""
        self.attentions(model, inputs)
        return frozenset((ask, None) for ask in self.card.asks)

    def attentions(self, model: Model, inputs: Inputs) -> list[Attention]:
        """Every attention over tokens of the image, in order.

        Raises:
            CannotDo: there is none, or where its tokens lie cannot be told.
            BadOption: the grid does not fit the tokens.
        """
        found = [one for one in heeded(attention_of(model, inputs)) if one is not None]
        grid = self._told()
        if grid is not None:
            return [_on(one, grid, model.rank) for one in found]
        if not found[0].placed:
            count = found[0].columns.size
            raise CannotDo(
                f"where the {count} tokens of this model lie in the image cannot be told",
                "say it, row by row, with grid=ROWSxCOLUMNS (in 3-D three numbers), or use GradCAM",
            )
        return found

    def _told(self) -> tuple[int, ...] | None:
        if self.grid is None:
            return None
        parts = self.grid.lower().split("x")
        if not all(p.isdecimal() and int(p) > 0 for p in parts):
            raise BadOption(f"expected a grid such as 14x14, got {self.grid!r}", "write cells per axis, joined by x")
        return tuple(int(p) for p in parts)


def _on(one: Attention, grid: tuple[int, ...], rank: int) -> Attention:
    """An attention whose tokens lie where the reader says."""
    windows, count = one.columns.cells.shape
    if len(grid) != rank or prod(grid) > count or windows > 1 or not one.itself:
        raise BadOption(
            f"the grid {'x'.join(map(str, grid))} does not fit {count} tokens in {windows} window(s) and {rank} axes",
            "leave grid out, or count the cells again",
        )
    return replace(one, rows=one.rows.told(grid), columns=one.columns.told(grid))


def origin(probe: Probe, last: Attention) -> Tensor:
    """How strongly the target depends on each token of the last attention, as shares: a state.

    The size of the target's gradient with respect to what each query took. For a head that reads a class token that
    is the class token alone; for a head that averages, all tokens nearly alike; for a segmentation, those it needs.
    """
    return as_shares(scattered(probe.attention.origin, last.rows))


def drawn(probe: Probe, state: Tensor, side: Side, unit: str) -> Attribution:
    """A state on the primary input's grid.

    Args:
        probe: of the answer.
        state: "batch cell".
        side: whose cells they are.
        unit: of a value.
    """
    count = prod(side.grid)
    cells, total = state[:, :count], state.sum(1)
    warnings = []
    if not bool((total > 0).all()):
        warnings.append(_UNASKED)
    outside = 1 - cells.sum(1) / total.clamp_min(torch.finfo(total.dtype).tiny)
    if bool(((outside > _MOSTLY) & (total > 0)).any()):
        warnings.append(f"{float(outside.max()):.0%} of the weight lies on tokens that are no part of the image")
    return layer_map(probe, cells.reshape(len(cells), 1, *side.grid), False, unit, warnings)


@dataclass(frozen=True)
class RawAttention(AttentionExplainer):
    """Where the tokens that the target depends on look, in one attention layer.

    ``r A``: the mean over heads of the layer's weights, seen from the target's tokens (a class token, or in a
    segmentation those with the largest gradient). Says what was mixed, not what it was used for: it is the same for
    every class where a class token is read, has no sign, and earlier layers have moved information between tokens.

    Returns:
        Attribution without negative values: shares of attention per cell.

    Raises:
        CannotDo: the model has no attention, or where its tokens lie cannot be told.
        BadOption: no such block.

    Source:
        vaswani2017attention, as dosovitskiy2021vit draws it, without rollout.

    Example:
        >>> from pellucid.testing import small_model
        >>> model, x, target = small_model(2, "classification", attentive=True)
        >>> method = RawAttention()
        >>> a = method(Probe(model, x, target, method.needs(model, {"image": x})))
        >>> a.unit, a.cell
        ('share of attention', (4.0, 4.0))
    """

    block: Annotated[int | None, "which attention layer, from 1; None: the last"] = None

    card: ClassVar[Card] = Card(
        family=Family.ATTENTION,
        shows="which cells the target's tokens attend to in one layer",
        caution="what was mixed, not what it was used for: no sign, hardly a class, as coarse as the tokens",
        equation=r"r \cdot \tfrac1H \sum_h A_h",
        source="vaswani2017attention",
        cost_note="none of its own: one forward, and one backward to the last attention layer, shared",
        asks=frozenset({Ask.ATTENTION}),
        signed=False,
        level=Level.FEATURE_MAP,
    )

    def attentions(self, model: Model, inputs: Inputs) -> list[Attention]:
        """See ``AttentionExplainer``."""
        found = super().attentions(model, inputs)
        if self.block is not None and not 1 <= self.block <= len(found):
            raise BadOption(f"the model has {len(found)} attention layers, got block {self.block}", "count from 1")
        return found

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        found = self.attentions(probe.model, probe.inputs)
        index = (self.block or len(found)) - 1
        one, last = found[index], found[-1]
        state = carried(origin(probe, last), last.rows, one.rows)
        shares = as_shares(within(probe.attention.weights[index], one.columns))
        return drawn(probe, stepped(state, one, shares), one.columns, SHARE)
