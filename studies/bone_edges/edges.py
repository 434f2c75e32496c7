"""How much of a map lies on bone edges, against other voxels and against matched edges of soft tissue.

Everything here works on arrays on one lattice, "right anterior superior", in Hounsfield units and millimeters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BONE = 200.0  # HU
SMALLEST = 12  # voxels: smaller pieces above the threshold are calcifications or noise
SOFT = -30.0  # HU: between fat and everything denser
DEPTHS = (0.0, 3.1, 6.1, 9.1, 15.0, 25.0, 40.0, np.inf)  # mm from the lung: bins of equal distance
SLOPES = (0.0, 8.0, 16.0, 32.0, 64.0, 128.0, np.inf)  # HU per mm: bins of equal steepness
FEWEST = 5  # control voxels of a bin: with fewer their mean is chance, and the bin has no match
BLOCK = 3  # slices drawn together, since neighbors look alike
DRAWS = 2000
_CROSS = ndimage.generate_binary_structure(2, 1)[:, :, None]  # in plane: slices are thick


@dataclass(frozen=True, eq=False)
class Places:
    """Where the edges of one chest are.

    Args:
        body: inside the skin, lungs included.
        bone: dense pieces.
        bone_edge: within one voxel of a bone's border, in plane, outside the lung.
        control: the same of soft tissue against fat or air, away from bone and skin.
        depth: bin of the distance to the lung, in 3-D.
        slope: bin of the steepness of what the network sees, in plane.
    """

    body: NDArray
    bone: NDArray
    bone_edge: NDArray
    control: NDArray
    depth: NDArray
    slope: NDArray


def band(mask: NDArray) -> NDArray:
    """Voxels within one voxel of the mask's border, on either side, in plane."""
    return ndimage.binary_dilation(mask, _CROSS) & ~ndimage.binary_erosion(mask, _CROSS, border_value=1)


def steepness(seen: NDArray, spacing: Sequence[float]) -> NDArray:
    """Magnitude of the Sobel gradient in plane, in HU per mm."""
    across, along = (ndimage.sobel(seen, axis) / (8 * spacing[axis]) for axis in (0, 1))
    # the smoothing of scipy's filter runs over all other axes: 4 more through the slices
    return np.hypot(across, along) / 4


def places(
    intensity: NDArray, lung: NDArray, body: NDArray, window: tuple[float, float], mm: Sequence[float]
) -> Places:
    """Bone edges and control edges of one chest.

    Args:
        intensity: HU.
        lung: label.
        body: inside the skin.
        window: HU that the network can tell apart.
        mm: spacing of the lattice.
    """
    pieces, count = ndimage.label((intensity > BONE) & body, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    bone = np.isin(pieces, 1 + np.flatnonzero(sizes[1:] >= SMALLEST))
    inside = ndimage.binary_erosion(body, _CROSS, iterations=3)
    near_bone = ndimage.binary_dilation((intensity > BONE) & body, _CROSS, iterations=2)
    bone_edge = band(bone) & body & ~lung
    control = band((intensity > SOFT) & body) & inside & ~lung & ~near_bone
    depth = ndimage.distance_transform_edt(~lung, mm)
    slope = steepness(np.clip(intensity, *window), mm)
    return Places(body, bone, bone_edge, control, np.digitize(depth, DEPTHS) - 1, np.digitize(slope, SLOPES) - 1)


@dataclass(frozen=True, eq=False)
class Tally:
    """Sums over each slice, so that slices can be drawn again and again.

    Args:
        body: slice x (voxels, magnitude).
        bone: slice x depth x slope x (voxels, magnitude, signed sum), of bone edges.
        control: the same of control edges.
    """

    body: NDArray
    bone: NDArray
    control: NDArray

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.body + other.body, self.bone + other.bone, self.control + other.control)

    def drawn(self, slices: NDArray) -> "Tally":
        """The tally of these slices together, each as often as it is named."""
        return Tally(self.body[slices].sum(0), self.bone[slices].sum(0), self.control[slices].sum(0))


def tally(values: NDArray, where: Places) -> Tally:
    """Count a map, scaled to a total magnitude of 1 over the body; slices without bone edge are left out."""
    values = values / np.abs(values[where.body]).sum()
    kept = np.flatnonzero(where.bone_edge.any((0, 1)))

    def binned(mask: NDArray) -> NDArray:
        found = np.zeros((len(kept), len(DEPTHS) - 1, len(SLOPES) - 1, 3))
        for row, k in enumerate(kept):
            here = mask[:, :, k]
            some = values[:, :, k][here]
            bins = (np.full(len(some), row), where.depth[:, :, k][here], where.slope[:, :, k][here])
            for column, weight in enumerate((np.ones_like(some), np.abs(some), some)):
                np.add.at(found[..., column], bins, weight)
        return found

    inside = where.body[:, :, kept]
    sums = np.stack([inside.sum((0, 1)), (np.abs(values[:, :, kept]) * inside).sum((0, 1))], 1)
    return Tally(sums.astype(float), binned(where.bone_edge), binned(where.control))


def enrichment(some: Tally) -> float:
    """Share of the magnitude on bone edges over their share of the body's voxels; 1 is neither more nor less."""
    return _enriched(some.bone, some.body)


def control_enrichment(some: Tally) -> float:
    """The same of the control edges, not matched."""
    return _enriched(some.control, some.body)


def _enriched(edges: NDArray, body: NDArray) -> float:
    voxels, magnitude, _ = edges.sum((0, 1))
    return float((magnitude / body[1]) / (voxels / body[0]))


def by_depth(some: Tally) -> float:
    """Mean magnitude on bone edges over that on control edges as far from the lung."""
    return _matched(some.bone.sum(1), some.control.sum(1))[0]


def by_both(some: Tally) -> float:
    """Mean magnitude on bone edges over that on control edges as far from the lung and as steep."""
    return _matched(some.bone.reshape(-1, 3), some.control.reshape(-1, 3))[0]


def matched_share(some: Tally) -> float:
    """Share of the bone edge voxels for which there are control voxels as far from the lung and as steep."""
    return _matched(some.bone.reshape(-1, 3), some.control.reshape(-1, 3))[1]


def _matched(bone: NDArray, control: NDArray) -> tuple[float, float]:
    both = (bone[:, 0] > 0) & (control[:, 0] >= FEWEST)
    expected = (bone[both, 0] * control[both, 1] / control[both, 0]).sum()
    return float(bone[both, 1].sum() / expected), float(bone[both, 0].sum() / bone[:, 0].sum())


def bone_sign(some: Tally) -> float:
    """Signed sum over the sum of magnitudes on bone edges: 1 all for the target, -1 all against."""
    return _sign(some.bone)


def control_sign(some: Tally) -> float:
    """The same on control edges."""
    return _sign(some.control)


def _sign(edges: NDArray) -> float:
    _, magnitude, signed = edges.sum((0, 1))
    return float(signed / magnitude)


def draws_of(slices: int, generator: np.random.Generator) -> NDArray:
    """Rows of slices drawn with replacement, in overlapping blocks of neighbors: draw x slice."""
    blocks = -(-slices // BLOCK)
    starts = generator.integers(max(1, slices - BLOCK + 1), size=(DRAWS, blocks))
    rows = (starts[:, :, None] + np.arange(min(BLOCK, slices))).reshape(DRAWS, -1)
    return rows[:, :slices]


Figure = Callable[[Tally], float]


def samples(some: Tally, figure: Figure, seed: int) -> NDArray:
    """The figure of all slices first, then of each draw; the same seed draws the same slices for every map."""
    rows = draws_of(len(some.body), np.random.default_rng(seed))
    return np.array([figure(some.drawn(np.arange(len(some.body)))), *(figure(some.drawn(row)) for row in rows)])


def interval(values: NDArray) -> dict[str, float]:
    """The first value with the 95% percentile interval of the rest."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return {"value": round(float(values[0]), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def together(patients: Sequence[NDArray], ratio: bool) -> NDArray:
    """Patients weighing alike: the geometric mean of ratios, the plain mean of signs."""
    stacked = np.stack(patients)
    return np.exp(np.log(stacked).mean(0)) if ratio else stacked.mean(0)
