"""How two maps are brought to one form before they are compared; each way is told in words."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.core.errors import ShapeMismatch
from pellucid.verify.evidence import Evidence

_LINEAR = {2: "bilinear", 3: "trilinear"}
Change = Callable[[Tensor, Evidence], Tensor]


@dataclass(frozen=True)
class Bridge:
    """A way to compare.

    Args:
        words: what is done to which side.
        ours: applied to our map.
        theirs: applied to the peer's.
    """

    words: str
    ours: Change
    theirs: Change


def same(values: Tensor, _evidence: Evidence) -> Tensor:
    """As it is."""
    return values


def enlarged(values: Tensor, evidence: Evidence) -> Tensor:
    """Brought to the image's grid linearly, with half-pixel centers."""
    shape = evidence.x.shape[2:]
    return values if values.shape[2:] == shape else F.interpolate(values, shape, mode=_LINEAR[len(shape)])


def ranged(values: Tensor, _evidence: Evidence) -> Tensor:
    """Each item brought to 0..1 by its minimum and maximum."""
    flat = values.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    return ((flat - low) / (high - low)).view_as(values)


def _positive(values: Tensor, evidence: Evidence) -> Tensor:
    return enlarged(values.relu(), evidence)


def _times_exp_score(values: Tensor, evidence: Evidence) -> Tensor:
    return values * evidence.score.exp().view(-1, *(1,) * (values.ndim - 1))


def _less_than_score(values: Tensor, evidence: Evidence) -> Tensor:
    return evidence.score.view(-1, *(1,) * (values.ndim - 1)) - values


def _with_clean(values: Tensor, evidence: Evidence) -> Tensor:
    count = len(evidence.noise)
    return (values * count + evidence.gradient()) / (count + 1)


def _divided_by_all(values: Tensor, evidence: Evidence) -> Tensor:
    return values * (1 - 1 / len(evidence.noise))


BRIDGES = {
    "plain": Bridge("as they are", same, same),
    "cells": Bridge("the peer's cells enlarged linearly", same, enlarged),
    "positive cells": Bridge("the peer's cells before its scaling, ReLU, enlarged linearly", same, _positive),
    "range": Bridge("ours scaled to 0..1 by minimum and maximum, as the peer does", ranged, same),
    "exp": Bridge(
        "ours times exp(score), as the peer does; the peer's cells enlarged linearly", _times_exp_score, enlarged
    ),
    "magnitude": Bridge("the magnitude of the peer's gradient", same, lambda v, _: v.abs()),
    "times input": Bridge("the peer's gradient times the input", same, lambda v, e: v * e.x),
    "fall": Bridge("the peer's value taken from the unhidden score", same, _less_than_score),
    "root": Bridge("the root of ours, as the peer does", lambda v, _: v.sqrt(), same),
    "biased": Bridge("our variance divided by n, not n - 1, as the peer does", _divided_by_all, same),
    "with clean": Bridge("the clean image added to our draws, as the peer does", _with_clean, same),
}


def deviation(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference relative to the largest absolute value of the peer's map, of the worst item.

    Infinite where one of the two is not finite, or an item of the peer's map is blank and ours is not.

    Raises:
        ShapeMismatch: the two have different shapes.
    """
    if ours.shape != theirs.shape:
        raise ShapeMismatch(
            f"expected maps of one shape, got {tuple(ours.shape)} and {tuple(theirs.shape)}",
            "compare with another bridge",
        )
    gaps, scale = ((v.double().abs().flatten(1).amax(1)) for v in (ours - theirs, theirs))
    worst = float(torch.where(gaps == 0, gaps, gaps / scale).max())
    return worst if isfinite(worst) else inf
