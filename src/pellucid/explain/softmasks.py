"""Smooth random masks: a grid of shown and hidden nodes, laid over the image with a shift of its own, interpolated."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.quasirandom import SobolEngine

from pellucid.core.errors import BadOption

_FINE = 4  # samples per cell of what is smooth on the scale of a cell


@dataclass(frozen=True, eq=False)
class SoftMasks:
    """The family of masks, and what is known of it without drawing one.

    Nodes lie one cell apart and are shown with probability ``shown``; between them a mask is linear. As the shift is
    uniform over a cell, every voxel is shown alike: mean ``shown``, and the covariance of two voxels is
    ``shown (1 - shown)`` times a cubic B-spline of their distance in cells, along each axis.

    Args:
        shape: of the image.
        cell: distance of the nodes along each axis, in voxels, at least 1.
        shown: share of the nodes that is shown, between 0 and 1.

    Raises:
        BadOption: more nodes than a Sobol sequence has dimensions.
    """

    shape: tuple[int, ...]
    cell: tuple[float, ...]
    shown: float = 0.5

    def __post_init__(self) -> None:
        if self.dimensions > SobolEngine.MAXDIM:
            raise BadOption(
                f"cells of this size make {prod(self.nodes)} nodes, and at most {SobolEngine.MAXDIM} can be drawn",
                "take larger cells",
            )

    @property
    def nodes(self) -> tuple[int, ...]:
        """Along each axis: enough for the image at the largest shift."""
        return tuple(ceil((n - 1) / c + 1) + 1 for n, c in zip(self.shape, self.cell, strict=True))

    @property
    def dimensions(self) -> int:
        """Random numbers of one mask: one for each node, and a shift along each axis."""
        return prod(self.nodes) + len(self.shape)

    def draw(self, points: Float[Tensor, "mask dimension"], streams: int = 1) -> "Drawn":
        """The masks of points in the unit cube, which come from ``streams`` sequences in turn."""
        count = prod(self.nodes)
        bits = (points[:, :count] < self.shown).view(-1, *self.nodes)
        return Drawn(self, bits, points[:, count:], torch.arange(len(points)) % streams)

    def with_opposites(self, points: Float[Tensor, "count stream dimension"]) -> Float[Tensor, "mask dimension"]:
        """Points, each followed by the one whose nodes are reversed, with the same shift; streams in turn."""
        nodes = torch.arange(self.dimensions) < prod(self.nodes)
        return torch.stack([points, torch.where(nodes, 1 - points, points)], 1).flatten(0, 2)

    @cached_property
    def blocks(self) -> tuple[Tensor, ...]:
        """Along each axis, the mean over each block of about a cell: "block voxel"."""
        return tuple(_means(n, max(1, round(n / c))) for n, c in zip(self.shape, self.cell, strict=True))

    @cached_property
    def fine(self) -> tuple[Tensor, ...]:
        """Along each axis, where a few samples of each cell lie, in voxels."""
        counts = [min(n, ceil(_FINE * n / c)) for n, c in zip(self.shape, self.cell, strict=True)]
        centers = [(torch.arange(k, dtype=torch.float64) + 0.5) / k for k in counts]
        return tuple(n * center - 0.5 for n, center in zip(self.shape, centers, strict=True))

    @property
    def variance(self) -> float:
        """Of every voxel over the family."""
        return self.shown * (1 - self.shown) * (2 / 3) ** len(self.shape)

    @cached_property
    def covariance(self) -> Float[Tensor, "block fine"]:
        """Between the mean of each block and each fine sample, over the family."""
        total = torch.full((1, 1), self.shown * (1 - self.shown), dtype=torch.float64)
        for mean, at, n, c in zip(self.blocks, self.fine, self.shape, self.cell, strict=True):
            apart = (torch.arange(n, dtype=torch.float64)[:, None] - at) / c
            total = torch.kron(total, mean @ cubic_spline(apart))
        return total


@dataclass(frozen=True, eq=False)
class Drawn:
    """Some masks of a family.

    Args:
        family: whose.
        bits: which nodes are shown, "mask *node".
        shifts: of each mask along each axis, in cells.
        streams: number of the sequence that each mask comes from.
    """

    family: SoftMasks
    bits: Tensor
    shifts: Float[Tensor, "mask axis"]
    streams: Int[Tensor, " mask"]

    def __len__(self) -> int:
        return len(self.bits)

    def part(self, first: int, count: int) -> "Drawn":
        """At most ``count`` of the masks."""
        part = slice(first, first + count)
        return Drawn(self.family, self.bits[part], self.shifts[part], self.streams[part])

    def at(self, where: Sequence[Tensor], like: Tensor) -> Tensor:
        """Values at the product of positions along each axis, in voxels: "mask *position"."""
        return self._contract([self._weights(axis, at) for axis, at in enumerate(where)], like)

    def full(self, like: Tensor) -> Float[Tensor, "mask *space"]:
        """Values at every voxel."""
        return self.at([torch.arange(n, dtype=torch.float64) for n in self.family.shape], like)

    def fine(self, like: Tensor) -> Float[Tensor, "mask fine"]:
        """Values at the family's fine samples."""
        return self.at(self.family.fine, like).flatten(1)

    def block_means(self, like: Tensor) -> Float[Tensor, "mask block"]:
        """Mean over each block of the family."""
        lines = [torch.arange(n, dtype=torch.float64) for n in self.family.shape]
        weights = [m @ self._weights(k, at) for k, (m, at) in enumerate(zip(self.family.blocks, lines, strict=True))]
        return self._contract(weights, like).flatten(1)

    def _weights(self, axis: int, at: Tensor) -> Float[Tensor, "mask position node"]:
        """What each node gives each position: a hat as wide as a cell to either side."""
        place = at / self.family.cell[axis] + self.shifts[:, axis].double()[:, None]
        nodes = torch.arange(self.family.nodes[axis], dtype=torch.float64)
        return (1 - (place[..., None] - nodes).abs()).clamp_min(0)

    def _contract(self, weights: Sequence[Tensor], like: Tensor) -> Tensor:
        values = self.bits.to(like)
        for axis, weight in reversed(list(enumerate(weights, 1))):
            rows = values.movedim(axis, 1)
            values = (weight.to(like) @ rows.flatten(2)).view(len(rows), -1, *rows.shape[2:]).movedim(1, axis)
        return values


def cubic_spline(t: Tensor) -> Tensor:
    """The centered cubic B-spline: a hat correlated with itself."""
    t = t.abs()
    near, far = 2 / 3 - t**2 + t**3 / 2, (2 - t).clamp_min(0) ** 3 / 6
    return torch.where(t < 1, near, far)


def _means(length: int, blocks: int) -> Float[Tensor, "block voxel"]:
    """The matrix that takes the mean over each of ``blocks`` pieces of an axis."""
    which = torch.arange(length) * blocks // length
    rows = (which == torch.arange(blocks)[:, None]).double()
    return rows / rows.sum(1, keepdim=True)
