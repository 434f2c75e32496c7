"""How a weight on each token moves back through attention: a row vector, window by window.

The weights of all tokens at one place of the network are a *state*, "batch cell": the cells of the grid row by row,
then the tokens that lie nowhere in the image. No matrix of all tokens by all tokens is ever made.
"""

from math import prod

import torch
from torch import Tensor

from pellucid.core.tokens import Attention, Side

_TINY = 1e-30  # of a divisor that is zero only where the dividend is


def gathered(state: Tensor, side: Side) -> Tensor:
    """What each place of each window holds: "batch window token"; a token seen several times is shared out."""
    cells, inside = _cells(side, state)
    times = torch.zeros(side.size, dtype=state.dtype, device=state.device).index_add_(0, cells, inside)
    return (state[:, cells] / times[cells].clamp_min(1) * inside).unflatten(1, side.cells.shape)


def scattered(values: Tensor, side: Side) -> Tensor:
    """Back to a state; what lies on filling is left out."""
    cells, inside = _cells(side, values)
    state = values.new_zeros(len(values), side.size)
    return state.index_add_(1, cells, values.flatten(1) * inside)


def _cells(side: Side, like: Tensor) -> tuple[Tensor, Tensor]:
    cells = side.cells.flatten().to(like.device)
    return cells.clamp_min(0), (cells >= 0).to(like.dtype)


def within(weights: Tensor, side: Side) -> Tensor:
    """Attention "batch window query key" without the keys that only fill up."""
    return weights * (side.cells >= 0).to(weights)[None, :, None, :]


def stepped(state: Tensor, one: Attention, weights: Tensor) -> Tensor:
    """The state before one attention, of the branch that goes through it: row vector times weights."""
    return scattered(torch.einsum("bwq,bwqk->bwk", gathered(state, one.rows), weights), one.columns)


def as_shares(weights: Tensor) -> Tensor:
    """Rows that sum to one (or are zero)."""
    return weights / weights.sum(-1, keepdim=True).clamp_min(_TINY)


def carried(state: Tensor, source: Side, target: Side) -> Tensor:
    """A state on another grid: shared equally among the cells that were merged, or given to the one it came from.

    Tokens that lie nowhere in the image keep their order; what has no counterpart earlier in the network ends here.
    """
    if not source.levels or not target.levels:
        same = source.size == target.size
        return state if same else torch.cat([state, state.new_zeros(len(state), target.size)], 1)[:, : target.size]
    count = prod(source.grid)
    cells = state[:, :count].unflatten(1, source.grid)
    for axis, (before, after) in enumerate(zip(source.levels, target.levels, strict=True), start=1):
        if not (len(before) == len(after) and torch.allclose(before, after)):
            cells = torch.tensordot(cells, _along(before, after).to(cells), ([axis], [0])).movedim(-1, axis)
    special = state.new_zeros(len(state), target.special)
    both = min(source.special, target.special)
    special[:, :both] = state[:, count : count + both]
    return torch.cat([cells.flatten(1), special], 1)


def _along(source: Tensor, target: Tensor) -> Tensor:
    """Shares "source target" along one axis, rows summing to one: a cell belongs to the nearest of the coarser grid."""
    apart = (source[:, None] - target).abs()
    nearest = torch.nn.functional.one_hot(apart.argmin(0), len(source)).T.to(torch.float32)
    alone = nearest.sum(1) == 0
    nearest[alone] = torch.nn.functional.one_hot(apart.argmin(1), len(target)).to(torch.float32)[alone]
    return nearest / nearest.sum(1, keepdim=True)
