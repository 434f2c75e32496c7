"""Colors by modality: an overlay must never look like uptake, flow or perfusion."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from matplotlib.colors import Colormap, LinearSegmentedColormap

from pellucid.core.image import Modality


@dataclass(frozen=True)
class Palette:
    """The colors of one modality, as read from ``palette.toml``.

    Args:
        base: matplotlib colormap of a one-channel image: ``gray``, or ``gray_r`` where dark means much.
        contour: outline of evidence for the target (solid).
        against: outline of evidence against it (dashed).
        expert: outline of a reference region (dash-dot).
        wash: colors of an unsigned map from weak to strong; empty: lines only, never a wash over the image.
        signed: colors of a signed map from most against (purple) over none (gray) to most for (green).
        alone: colors of a map drawn beside the image instead of over it.
    """

    base: str
    contour: str
    against: str
    expert: str
    wash: tuple[str, ...]
    signed: tuple[str, ...]
    alone: tuple[str, ...]

    @property
    def washes(self) -> bool:
        """Whether a color wash over the image is allowed."""
        return bool(self.wash)

    def colormap(self, signed: bool, alone: bool = False) -> Colormap:
        """The colors of a map's values, from the low to the high end of its scale."""
        colors = self.signed if signed else (self.alone if alone or not self.wash else self.wash)
        return LinearSegmentedColormap.from_list("pellucid", colors)


@cache
def palettes() -> dict[Modality, Palette]:
    """Every modality's colors."""
    table: dict[str, Any] = tomllib.loads(resources.files("pellucid.show").joinpath("palette.toml").read_text("utf-8"))
    return {m: _palette(table["default"] | table[m.value]) for m in Modality}


def palette_of(modality: Modality | None) -> Palette:
    """The colors of one modality; None: of an image whose modality is unknown."""
    return palettes()[modality or Modality.UNKNOWN]


def _palette(row: dict[str, Any]) -> Palette:
    return Palette(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()})
