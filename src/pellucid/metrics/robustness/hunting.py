"""Where to look for an image that decides alike and is explained otherwise: down a smoothed gradient, and at random."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pellucid.core.card import Ask, Cost, Family
from pellucid.core.explainer import Explainer
from pellucid.core.probe import Probe
from pellucid.core.space import axes, per_item, resize

Loss = Callable[[Float[Tensor, "batch *space"]], Float[Tensor, " batch"]]
Shift = dict[str, Tensor]  # what is added to each image
_SHARP = 10  # into the root mean square of an activation: how wide the round part of its ReLU is
_STRIDE = 2.5  # bounds that all steps together may go
_GRAINS = (4, 16, None)  # blocks along each axis that move together; None: every voxel by itself
_FRESH = 1 / 3  # of the tries: new drawings, before the best one is changed
_MOST, _LEAST = 0.5, 0.1  # share of the best one that is drawn anew, at first and at last
_GENTLER, _BOLDER = 0.5, 1.5  # how the step changes where an image was refused, or admitted


def differentiable(probe: Probe) -> bool:
    """Whether the model's gradient can be differentiated once more, with its ReLUs made round."""
    can = probe.model.can
    return can.gradient and can.rules and can.hooks and can.batch is None and probe.model.inference is None


def descend(
    probe: Probe, explainer: Explainer, loss: Loss, spans: Mapping[str, Tensor], steps: int, looks: int
) -> list[Shift]:
    """Shifts along the way down, the last the furthest; none where the stand-in's map does not move.

    A stand-in that can be differentiated is followed: the gradient's length, input times gradient, or the
    gradient-weighted activation of the method's layer, of the model with every ReLU made round, for a network of ReLUs
    has no curvature. What would move the score is taken out of each step.

    Args:
        probe: at the image.
        explainer: whose map is to change.
        loss: of a map, to be made small.
        spans: largest shift, by image, "batch channel".
        steps: at least ``looks``.
        looks: how many shifts to hand back.
    """
    found: list[Shift] = []
    with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        shift: Shift = {n: torch.zeros_like(probe.inputs[n]) for n in spans}
        for step in range(1, steps + 1):
            leaves = {n: (probe.inputs[n].clone() + d).requires_grad_() for n, d in shift.items()}
            slope = _slope(probe, explainer, loss, leaves)
            if slope is None:
                return found
            for n, s in slope.items():
                reach = wide(spans[n], s)
                usual = s.abs().flatten(1).mean(1).clamp_min(torch.finfo(s.dtype).tiny)
                way = (s / per_item(usual, s)).clamp(-1, 1)  # not the sign, which is chance where there is no slope
                shift[n] = (shift[n] - way * reach * (_STRIDE / steps)).clamp(-reach, reach)
            if step * looks // steps > (step - 1) * looks // steps:
                found.append({n: d.clone() for n, d in shift.items()})
    return found


def _slope(probe: Probe, explainer: Explainer, loss: Loss, leaves: Shift) -> Shift | None:
    """Of the stand-in's loss, without what moves the score; None where it does not move."""
    layer = _layer(probe, explainer)
    done = probe.run({**probe.inputs, **leaves}, layers=(layer,) if layer else (), rules=_ROUND, graph=True)
    score = done.score[probe.aim].sum()
    probe.spent.own += Cost(0, 2 * probe.batch)
    straight = _gradients(score, leaves, True)
    if layer is None:
        x, g = leaves[probe.model.primary], straight[probe.model.primary]
        values = (x * g).sum(1) if explainer.card.signed else _length(g)
    else:
        a = done.activation[layer]
        (g,) = torch.autograd.grad(score, a, create_graph=True)
        values = resize((g.mean(axes(g), keepdim=True) * a).sum(1, keepdim=True), probe.grid.shape)[:, 0]
        values = values if explainer.card.signed else values.clamp_min(0)
    total = loss(values).sum()
    if not total.requires_grad:
        return None
    down = _gradients(total, leaves, False)
    moves = any(bool(s.any()) for s in down.values())
    return _apart(down, {n: g.detach() for n, g in straight.items()}) if moves else None


def _layer(probe: Probe, explainer: Explainer) -> str | None:
    """The layer that a class activation map reads, where it is laid out in space."""
    if explainer.card.family is not Family.CAM:
        return None
    needs = explainer.needs(probe.model, probe.inputs)
    names = [name for ask, name in needs if ask is Ask.ACTIVATION and name is not None]
    spatial = [n for n in names if probe.model.find(n, probe.inputs).extent(probe.grid.rank) > 1]
    return spatial[0] if spatial else None


def _gradients(total: Tensor, leaves: Shift, graph: bool) -> Shift:
    """By image; zero where nothing depends on it."""
    found = torch.autograd.grad(total, list(leaves.values()), create_graph=graph, allow_unused=True)
    given = cast(tuple[Tensor | None, ...], found)  # torch's own types forget what allow_unused may give
    return {n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(leaves.items(), given, strict=True)}


def _length(gradient: Tensor) -> Tensor:
    """Of the gradient at each voxel, over channels; round at zero, where a length has no slope."""
    squares = gradient.square().sum(1)
    least = 1e-6 * squares.detach().flatten(1).mean(1)
    return (squares + per_item(least, squares) + torch.finfo(squares.dtype).tiny).sqrt()


def _apart(down: Shift, straight: Shift) -> Shift:
    """Without the part along the score's own slope."""
    one, other = (torch.cat([s[n].flatten(1) for n in down], 1) for s in (down, straight))
    share = (one * other).sum(1) / other.square().sum(1).clamp_min(torch.finfo(other.dtype).tiny)
    return {n: s - per_item(share, s) * straight[n] for n, s in down.items()}


def wide(span: Float[Tensor, "batch channel"], like: Tensor) -> Tensor:
    """A bound by channel, shaped to broadcast over an image."""
    return span.to(like).view(*span.shape, *(1,) * (like.ndim - 2))


def chosen(items: Bool[Tensor, " batch"], one: Tensor, other: Tensor) -> Tensor:
    """One tensor for these items, the other for the rest."""
    return torch.where(items.to(one.device).view(-1, *(1,) * (one.ndim - 1)), one, other)


def _round(x: Tensor) -> Tensor:
    """A ReLU without a corner, as wide as the item's activation asks for."""
    width = (x.detach().flatten(1).square().mean(1) if x.ndim > 1 else x.detach().square()).sqrt() / _SHARP
    scale = per_item(width.clamp_min(1e-12), x)
    return scale * F.softplus(x / scale)


def _relu(x: Tensor, inplace: bool = False) -> Tensor:
    return x.copy_(_round(x.clone())) if inplace else _round(x)


def _relu6(x: Tensor, inplace: bool = False) -> Tensor:
    return x.copy_(_round(x.clone()).clamp_max(6)) if inplace else _round(x).clamp_max(6)


def _leaky(x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    value = negative_slope * x + (1 - negative_slope) * _round(x.clone())
    return x.copy_(value) if inplace else value


def _in_place(x: Tensor) -> Tensor:
    return _relu(x, inplace=True)


# each spelling arrives apart
_ROUND: dict[Callable[..., Any], Callable[..., Any]] = {
    **dict.fromkeys((torch.relu, Tensor.relu, F.relu), _relu),
    **dict.fromkeys((torch.relu_, Tensor.relu_, F.relu_), _in_place),
    F.relu6: _relu6,
    F.leaky_relu: _leaky,
}


class Drawing:
    """Shifts drawn at random: at first anew, then the best one changed in some places; gentler where refused.

    Drawings are the same for all items of a batch; how far each goes and what is kept is every item's own.

    Args:
        probe: of the image, with the seed.
        spans: largest shift, by image, "batch channel".
        tries: how many will be asked for.
    """

    def __init__(self, probe: Probe, spans: Mapping[str, Tensor], tries: int) -> None:
        self._inputs, self._spans, self._tries = probe.inputs, spans, tries
        self._generator = torch.Generator().manual_seed(probe.scene.seed)
        self._best: Shift = {n: torch.zeros_like(probe.inputs[n]) for n in spans}
        self._reach = torch.ones(probe.batch, dtype=torch.float64)
        self._count = 0

    def begin(self, shift: Shift, better: Bool[Tensor, " batch"]) -> None:
        """Go on from a shift, for the items where it is the best so far."""
        self._best = {n: chosen(better, s, self._best[n]) for n, s in shift.items()}

    def next(self) -> Shift:
        """A shift to try, within the bound."""
        fresh, grain = self._count < self._tries * _FRESH, _GRAINS[self._count % len(_GRAINS)]
        share = 1.0 if fresh else _MOST + (_LEAST - _MOST) * self._count / self._tries
        self._count += 1
        return {n: self._moved(n, grain, share) for n in self._spans}

    def judged(self, admitted: Bool[Tensor, " batch"]) -> None:
        """Adapt how far to go to what was admitted."""
        self._reach = (self._reach * torch.where(admitted, _BOLDER, _GENTLER)).clamp_max(1)

    def _moved(self, name: str, grain: int | None, share: float) -> Tensor:
        x, best = self._inputs[name], self._best[name]
        shape = [n if grain is None else min(n, grain) for n in x.shape[2:]]
        signs = (torch.rand(1, x.shape[1], *shape, generator=self._generator) < 0.5).float() * 2 - 1
        drawn = (torch.rand(1, 1, *shape, generator=self._generator) < share).float()
        signs, drawn = (F.interpolate(t, size=x.shape[2:], mode="nearest").to(x) for t in (signs, drawn))
        goal = signs * wide(self._spans[name], x) * per_item(self._reach.to(x), x)
        return torch.where(drawn > 0, goal, best)
