"""The nodule that the demo plants: a formula, so that its mask is exact and not somebody's opinion."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pellucid.core.errors import BadOption, ShapeMismatch

WOBBLE = (2, 3, 4)  # bumps around the contour
WOBBLE_SHARE = 0.08  # largest share of the radius that each may add or take


@dataclass(frozen=True)
class Place:
    """Where the demo plants a nodule in the packaged chest film, narrowed to 512 pixels.

    Args:
        patch: (row, column) of the middle of the patch of 128 x 128 pixels.
        center: (row, column) of the nodule, in pixels of the narrowed film as well.
        radius_px: of the rim.
        contrast: brightness added at the center.
        seed: of the contour.
    """

    patch: tuple[int, int]
    center: tuple[int, int]
    radius_px: float
    contrast: float
    seed: int


# Lung without a mass, where the network says "no" before planting and "yes" after it.
PLACES = MappingProxyType(
    {
        "upper-image-left": Place((92, 140), (110, 150), 9.0, 0.15, 1),
        "upper-image-right": Place((112, 364), (125, 385), 9.0, 0.15, 1),
    }
)


def nodule_density(
    shape: tuple[int, int], center: tuple[float, float], radius_px: float, contrast: float, seed: int
) -> NDArray[np.float64]:
    """Brightness that a round, slightly irregular nodule adds to each pixel.

    ``contrast * max(0, 1 - (r / R(angle))**2)`` with the contour ``R(angle) = radius_px * (1 + sum over k = 2, 3, 4
    of a_k cos(k angle + p_k))``: the thickness of a sphere with a softened rim. Bad at: spicules, calcium, and
    whatever else real nodules have.

    Args:
        shape: rows and columns of the image.
        center: (row, column) in pixels, inside the image.
        radius_px: of the rim, at least 1.
        contrast: brightness added at the center, above 0 and at most 1.
        seed: of the contour's amplitudes ``a_k`` (at most 0.08 each) and phases ``p_k``.

    Raises:
        BadOption: the center is outside the image, or the radius or the contrast outside its range.
    """
    _check(shape, center, radius_px, contrast)
    draw = np.random.default_rng(seed)
    amplitudes = draw.uniform(-WOBBLE_SHARE, WOBBLE_SHARE, len(WOBBLE))
    phases = draw.uniform(0, 2 * np.pi, len(WOBBLE))
    rows = np.arange(shape[0])[:, None] - center[0]
    columns = np.arange(shape[1])[None, :] - center[1]
    angle = np.arctan2(rows, columns)
    bumps = [a * np.cos(k * angle + p) for k, a, p in zip(WOBBLE, amplitudes, phases, strict=True)]
    rim = radius_px * (1 + np.sum(bumps, axis=0))
    return contrast * np.maximum(0.0, 1 - (rows**2 + columns**2) / rim**2)


def plant_nodule(
    image: NDArray[np.floating], center: tuple[float, float], radius_px: float, contrast: float, seed: int
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Add a nodule to a gray image and tell exactly where it is.

    Args:
        image: rows x columns in [0, 1], bright where rays are absorbed.
        center: (row, column) in pixels, inside the image.
        radius_px: of the rim, at least 1.
        contrast: brightness added at the center, above 0 and at most 1.
        seed: of the contour.

    Returns:
        The image with the nodule, clipped to [0, 1], of the input's type; and the mask: where the density that
        ``nodule_density`` adds exceeds half of its maximum, which is ``contrast``.

    Raises:
        ShapeMismatch: the image has not two axes.
        BadOption: values outside [0, 1], or as for ``nodule_density``.
    """
    if image.ndim != 2:
        raise ShapeMismatch(
            f"expected a gray image of rows x columns, got {image.ndim} axes", "Pass one channel, e.g. image[0]"
        )
    if not (image.min() >= 0 and image.max() <= 1):
        raise BadOption(
            f"expected values in [0, 1], got {image.min():.4g} to {image.max():.4g}", "Scale the image to [0, 1] first"
        )
    shape = (image.shape[0], image.shape[1])
    density = nodule_density(shape, center, radius_px, contrast, seed)
    planted = np.clip(image + density, 0, 1).astype(image.dtype)
    return planted, density > contrast / 2


def _check(shape: tuple[int, int], center: tuple[float, float], radius_px: float, contrast: float) -> None:
    inside = all(0 <= place <= size - 1 for place, size in zip(center, shape, strict=True))
    if not inside:
        raise BadOption(f"the nodule's center {center} is outside the image of {shape}", "Give (row, column) inside it")
    if not radius_px >= 1:
        raise BadOption(f"expected a radius of at least 1 pixel, got {radius_px}", "Give a larger radius_px")
    if not 0 < contrast <= 1:
        raise BadOption(
            f"expected a contrast above 0 and at most 1, got {contrast}", "Give 0.05 to 0.3, as in training"
        )
