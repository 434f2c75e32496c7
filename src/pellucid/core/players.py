"""Who plays: the parts of an image that coalition methods hide and show, named in one line of text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import BadOption, UnknownName
from pellucid.core.probe import Probe
from pellucid.core.units import Units, from_regions, superpixels, tiles

_MEND = "write grid:4 (blocks per axis), grid:2x4x4, superpixels:30, regions, or regions:NAME+NAME"


@dataclass(frozen=True)
class Players:
    """A way to cut an image into players.

    Args:
        kind: of partition.
        counts: blocks along each axis (one number: along all that have so many voxels), or about how many superpixels.
        names: of the regions that play, the rest of the image being one more player; empty: all of the case.

    Example:
        >>> import torch
        >>> parse_players("grid:2x4").cut(torch.zeros(1, 8, 8), (1.0, 1.0), {}).count
        8
    """

    kind: Literal["grid", "superpixels", "regions"]
    counts: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def cut(
        self, image: Float[Tensor, "channel *space"], spacing: Sequence[float], regions: Mapping[str, Tensor]
    ) -> Units:
        """The partition of one image; every voxel belongs to one player.

        Args:
            image: one item.
            spacing: of its voxels.
            regions: masks "*space" by name.

        Raises:
            InputError: it cannot be cut so; the message says why.
        """
        shape = tuple(image.shape[1:])
        if self.kind == "grid":
            alike = [min(self.counts[0], n) for n in shape]  # a thin axis has as many blocks as voxels
            return tiles(shape, alike if len(self.counts) == 1 else self.counts)
        if self.kind == "superpixels":
            return superpixels(image, self.counts[0], spacing)
        unknown = [name for name in self.names if name not in regions]
        if unknown:
            raise UnknownName(f"no region {', '.join(unknown)}", f"regions: {', '.join(regions) or 'none'}")
        return from_regions({n: m for n, m in regions.items() if not self.names or n in self.names}, shape)


def parse_players(text: str) -> Players:
    """Read players from the command line: ``grid:4``, ``grid:2x4x4``, ``superpixels:30``, ``regions``, ``regions:A+B``.

    Raises:
        BadOption: none of these.
    """
    kind, _, rest = text.strip().partition(":")
    if kind == "regions":
        return Players("regions", names=tuple(n.strip() for n in rest.split("+") if n.strip()))
    parts = rest.split("x")
    if kind not in ("grid", "superpixels", "supervoxels") or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise BadOption(f"{text!r} names no players", _MEND)
    counts = tuple(int(p) for p in parts)
    if kind == "grid" and len(counts) <= 3:
        return Players("grid", counts)
    if kind != "grid" and len(counts) == 1:
        return Players("superpixels", counts)
    raise BadOption(f"{text!r} names no players: too many numbers", _MEND)


def players_of(probe: Probe, text: str) -> tuple[Units, ...]:
    """The players of each item of the batch, cut once per image whatever methods ask; blocks and regions are shared.

    Args:
        probe: of the batch; its primary image is cut.
        text: see ``parse_players``.

    Raises:
        InputError: the image cannot be cut so.
    """
    asked = parse_players(text)

    def cut() -> tuple[Units, ...]:
        image, spacing = probe.inputs[probe.model.primary], probe.grid.spacing
        if asked.kind == "superpixels":
            return tuple(asked.cut(x, spacing, probe.scene.regions) for x in image)
        return (asked.cut(image[0], spacing, probe.scene.regions),) * probe.batch

    return probe.once(f"players {asked}", cut)
