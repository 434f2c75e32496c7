"""How alike two maps are, and how alike they would be if one did not know where the other is."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from pellucid.metrics.likeness import unit_ranks, window

Similarity = Literal["spearman", "ssim"]
Maps = Float[Tensor, "batch *space"]
_SHIFTS = 19  # for SSIM: the lowest and the highest of 19 are a band of 90%


@dataclass(frozen=True)
class Measure:
    """A similarity of maps: 1 for the same picture.

    ``spearman`` is the rank correlation over all voxels. ``ssim`` is the mean structural similarity in windows of 7
    voxels along every axis of the map's own grid, each map divided by its largest magnitude; where both maps are
    silent it is 1, so that two maps with an empty background are alike without a common finding.

    Args:
        by: which.
        signed: whether the maps have both signs (the range of values that SSIM is relative to).
    """

    by: Similarity
    signed: bool = True

    @property
    def words(self) -> str:
        """Why maps could not be compared."""
        if self.by == "spearman":
            return "a map is constant or not finite, so ranks mean nothing"
        return "a map is constant or not finite, or its grid thinner than 3 voxels: no structure to compare"

    def ready(self, maps: Maps) -> Maps:
        """What a map is compared by, made once for many comparisons; NaN where it cannot be."""
        plain = maps.detach().cpu().double().numpy()
        prepare = unit_ranks if self.by == "spearman" else _scaled
        return torch.from_numpy(np.stack([prepare(one) for one in plain]))

    def alike(self, one: Maps, other: Maps) -> Float[Tensor, " batch"]:
        """The similarity of two batches of maps made ready."""
        if self.by == "spearman":
            return (one * other).flatten(1).sum(1)
        span = 2.0 if self.signed else 1.0
        pairs = zip(one.numpy(), other.numpy(), strict=True)
        return torch.tensor([_structure(a, b, span) for a, b in pairs], dtype=torch.float64)

    def between(self, one: Maps, other: Maps) -> Float[Tensor, " batch"]:
        """The similarity of two batches of maps as they are."""
        return self.alike(self.ready(one), self.ready(other))

    def chance(self, one: Maps, other: Maps, seed: int) -> dict[str, Any]:
        """What two maps made ready would give if the one's place were not known to the other, per item.

        The second map is shifted around the grid as on a torus: it keeps its smoothness, which the textbook's
        ``1 / sqrt(d - 1)`` ignores, and loses its place. Ranks are shifted to all places (one Fourier transform), for a
        band of 95%; SSIM to 19, for one of 90%. Maps that share no more than an empty border lie above the band.

        Returns:
            Ends of the band, the share of places that give as much, and in words what was done.
        """
        draws = _all_shifts(one, other) if self.by == "spearman" else self._some_shifts(one, other, seed)
        ends = (0.025, 0.975) if self.by == "spearman" else (0.0, 1.0)
        low, high = np.quantile(draws, ends, axis=1)
        as_much = (draws >= self.alike(one, other).numpy()[:, None] - 1e-12).mean(1)
        undefined = np.isnan(draws).any(1)
        return {
            "low": low.tolist(),
            "high": high.tolist(),
            "share of shifts that give as much": np.where(undefined, np.nan, as_much).tolist(),
            "shifts": f"{'all' if self.by == 'spearman' else _SHIFTS}, around the grid",
        }

    def _some_shifts(self, one: Maps, other: Maps, seed: int) -> NDArray[np.float64]:
        draw, sides = np.random.default_rng(seed), other.shape[1:]
        axes = tuple(range(1, other.ndim))
        steps = [tuple(int(draw.integers(side)) for side in sides) for _ in range(_SHIFTS)]
        return np.stack([self.alike(one, other.roll(step, axes)).numpy() for step in steps], axis=1)


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between -1 and 1, and zero where it was: ``likeness.structure`` would move it, and lose the sign."""
    usable = bool(np.isfinite(values).all()) and values.min() < values.max() and min(values.shape) >= 3
    return values / np.abs(values).max() if usable else np.full(values.shape, np.nan)


def _structure(one: NDArray[np.float64], other: NDArray[np.float64], span: float) -> float:
    if np.isnan(one).any() or np.isnan(other).any():
        return float("nan")
    found: Any = structural_similarity(one, other, win_size=window(one), data_range=span)
    return float(found)


def _all_shifts(one: Maps, other: Maps) -> NDArray[np.float64]:
    """The correlation at every shift: ranks move with their voxels, so that one Fourier transform gives them all."""
    space = tuple(range(1, one.ndim))
    product = torch.fft.rfftn(one, dim=space) * torch.fft.rfftn(other, dim=space).conj()
    return torch.fft.irfftn(product, s=one.shape[1:], dim=space).flatten(1).numpy()
