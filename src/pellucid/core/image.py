"""An image as a reader knows it: values in their own unit, on a grid, of a modality."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import NonFinite, ShapeMismatch
from pellucid.core.grid import Grid


class Modality(StrEnum):
    """The kinds of images that Pellucid knows rules for."""

    XRAY = "x-ray"
    CT = "ct"
    MRI = "mri"
    PET = "pet"
    ULTRASOUND = "ultrasound"
    FUNDUS = "fundus"
    OCT = "oct"
    ENDOSCOPY = "endoscopy"
    HISTOLOGY = "histology"
    DERMOSCOPY = "dermoscopy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class Image:
    """Voxel values with their grid, modality and unit; never anything about who the patient is.

    Args:
        data: "channel *space", finite.
        grid: where the voxels lie; its shape is the spatial shape of ``data``.
        modality: what made the image.
        unit: of the values: ``HU``, ``SUV``, ``[0,1]`` or ``a.u.``.
        window: values shown as black and white; None: from the data.
        traits: technical facts by the names that ``applies_to`` uses (``body_part``, ``view``, ``photometric`` ...).

    Raises:
        ShapeMismatch: data and grid disagree.
        NonFinite: NaN or infinity among the voxels.

    Example:
        >>> film = Image(torch.zeros(1, 64, 48), Grid.regular((64, 48)), Modality.XRAY)
        >>> film.cropped((0, 8), (64, 32)).grid.shape
        (64, 32)
    """

    data: Float[Tensor, "channel *space"]
    grid: Grid
    modality: Modality = Modality.UNKNOWN
    unit: str = "a.u."
    window: tuple[float, float] | None = None
    traits: Mapping[str, str | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if tuple(self.data.shape[1:]) != self.grid.shape:
            raise ShapeMismatch(
                f"expected data of shape (channel, {', '.join(map(str, self.grid.shape))}), "
                f"got {tuple(self.data.shape)}",
                "put the channel axis first and give the grid of the same voxels",
            )
        # one that is not finite makes the sum so; finite ones may overflow it, and only then each is asked
        bad = 0 if bool(torch.isfinite(self.data.sum())) else int((~torch.isfinite(self.data)).sum())
        if bad:
            raise NonFinite(
                f"expected finite voxels, got {bad} of {self.data.numel()} that are NaN or infinite",
                "replace them before explaining (for example with the background value) and say so in your methods",
            )

    @property
    def digest(self) -> str:
        """SHA-256 of values and geometry; equal images have equal digests."""
        geometry = (np.round(self.grid.matrix, 6) + 0.0).tobytes() + str(self.grid.calibration).encode()
        values = self.data.detach().cpu().contiguous().to(torch.float32).numpy()
        return hashlib.sha256(str(values.shape).encode() + geometry + values.tobytes()).hexdigest()

    def cropped(self, start: tuple[int, ...], shape: tuple[int, ...]) -> "Image":
        """The part that begins at voxel ``start``, which must lie inside the image.

        Raises:
            ShapeMismatch: the box reaches beyond the image.
        """
        if any(s < 0 or s + n > size for s, n, size in zip(start, shape, self.grid.shape, strict=True)):
            raise ShapeMismatch(
                f"expected a box inside {self.grid.shape}, got start {start} and shape {shape}",
                "move the box or make it smaller",
            )
        box = (slice(None), *(slice(s, s + n) for s, n in zip(start, shape, strict=True)))
        return Image(
            self.data[box], self.grid.cropped(start, shape), self.modality, self.unit, self.window, self.traits
        )
