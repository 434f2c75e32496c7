"""Sums over random masks and their scores, and the maps that follow from them: memory does not grow with the masks."""

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.space import resize
from pellucid.explain.softmasks import Drawn, SoftMasks

Estimator = Literal["ratio", "slope"]
_SHRINK = 2  # measured on six films: from 1 to 4 the map's correlation with the truth differs by less than .02


@dataclass(frozen=True, eq=False)
class Estimate:
    """What some masks say, by stream.

    Args:
        mean: of the scores.
        effect: what showing a voxel adds to the score (``slope``), or to the mean while it is shown (``ratio``).
    """

    mean: Float[Tensor, "stream batch"]
    effect: Float[Tensor, "stream batch *space"]


class Tally:
    """Sums over the masks so far, for each of several independent streams.

    Args:
        family: of the masks.
        origin: subtracted from every score, so that digits are kept where all scores are alike.
        streams: number of independent streams.
        linear: whether to keep what a linear control variate needs.
    """

    def __init__(self, family: SoftMasks, origin: Float[Tensor, " batch"], streams: int, linear: bool) -> None:
        self.family, self.origin, self.streams, self.linear = family, origin, streams, linear
        batch, space = len(origin), prod(family.shape)
        blocks, fine = family.covariance.shape if linear else (0, 0)
        shapes = {
            "count": (),
            "score": (batch,),
            "mask": (space,),
            "product": (batch, space),
            "block": (blocks,),
            "fine": (fine,),
            "square": (blocks, blocks),
            "block_score": (blocks, batch),
            "block_fine": (blocks, fine),
        }
        self.sums = {k: torch.zeros(streams, *s, dtype=origin.dtype, device=origin.device) for k, s in shapes.items()}
        self.fills = 1
        self.first_score, self.first_product = (self.sums[k][0].clone() for k in ("score", "product"))

    @property
    def masks(self) -> int:
        """Masks so far, of all streams."""
        return int(self.sums["count"].sum())

    def add(self, drawn: Drawn, keeps: Float[Tensor, "mask *space"], scores: Float[Tensor, "fill mask batch"]) -> None:
        """Take some masks, their values at every voxel, and the scores behind them with each fill."""
        f, m = scores.mean(0) - self.origin, keeps.flatten(1)
        which = torch.nn.functional.one_hot(drawn.streams, self.streams).to(f).T  # stream, mask
        self.fills = len(scores)
        if self.fills > 1:
            first = scores[0] - self.origin
            self.first_score += first.sum(0)
            self.first_product += first.T @ m

        def add(name: str, left: Tensor, right: Tensor) -> None:
            """The sum over masks of left (its first axis) times right."""
            by_stream = which[:, None, :] * left.T[None]
            self.sums[name] += (by_stream.flatten(0, 1) @ right.flatten(1)).view_as(self.sums[name])

        one = torch.ones_like(f[:, :1])
        add("count", one, one)
        add("score", one, f)
        add("mask", one, m)
        add("product", f, m)
        if self.linear:
            x, fine = drawn.block_means(f), drawn.fine(f)
            for name, left, right in (
                ("block", one, x),
                ("fine", one, fine),
                ("square", x, x),
                ("block_score", x, f),
                ("block_fine", x, fine),
            ):
                add(name, left, right)

    def estimate(self, pooled: bool, estimator: Estimator) -> Estimate:
        """Of each stream by itself, or of all masks together (one stream)."""
        sums = {k: v.sum(0, keepdim=True) if pooled else v for k, v in self.sums.items()}
        count = sums["count"].view(-1, 1)
        mean, shown = sums["score"] / count, sums["mask"] / count
        effect = sums["product"] / count[..., None] - mean[..., None] * shown[:, None]
        if self.linear:
            by_chance, shift = self._chance(sums, count, mean)
            effect -= by_chance
            mean = mean - shift
        effect /= shown[:, None] if estimator == "ratio" else self.family.variance
        return Estimate(self.origin + mean, effect.view(*effect.shape[:2], *self.family.shape))

    def by_fill(self, estimator: Estimator) -> list[Tensor]:
        """The effect with each of two fills, uncorrected, "batch *space"; empty where there is one fill."""
        if self.fills < 2:
            return []
        sums = {k: v.sum(0) for k, v in self.sums.items() if k in ("count", "score", "mask", "product")}
        shown = sums["mask"] / sums["count"]
        scale = shown if estimator == "ratio" else self.family.variance
        both, first = (
            (product / sums["count"] - score[:, None] / sums["count"] * shown) / scale
            for product, score in ((sums["product"], sums["score"]), (self.first_product, self.first_score))
        )
        return [e.view(-1, *self.family.shape) for e in (first, 2 * both - first)]

    def _chance(self, sums: dict[str, Tensor], count: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """What the draw of the masks added to the covariance and to the mean, as far as the score is linear in them.

        The fit is linear in the block means; their true covariance with every voxel is known.
        """
        block, fine = sums["block"] / count, sums["fine"] / count
        square = sums["square"] / count[..., None] - block[:, :, None] * block[:, None]
        toward = sums["block_score"] / count[..., None] - block[:, :, None] * mean[:, None]
        weight = ridge(square, toward, count)
        found = sums["block_fine"] / count[..., None] - block[:, :, None] * fine[:, None]
        away = weight.mT @ (found - self.family.covariance.to(found))
        shape = [len(at) for at in self.family.fine]
        smooth = resize(away.view(*away.shape[:2], *shape), self.family.shape).flatten(2)
        return smooth, (weight.mT @ (block - self.family.shown)[..., None])[..., 0]


def ridge(square: Tensor, toward: Tensor, count: Tensor) -> Tensor:
    """Weights of a linear fit, shrunk as if twice as many masks as there are blocks had shown no effect."""
    blocks = square.shape[-1]
    typical = square.diagonal(dim1=1, dim2=2).mean(1)
    penalty = _SHRINK * blocks * typical / count[:, 0]
    return torch.linalg.solve(square + penalty[:, None, None] * torch.eye(blocks).to(square), toward)
