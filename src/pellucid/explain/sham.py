"""A region hidden, shown alone or exchanged with its mirror side, beside the same done elsewhere: the sham test."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.errors import BadOption, BadRegion
from pellucid.core.grid import Grid
from pellucid.core.infill import Infill
from pellucid.core.masking import Stream
from pellucid.core.probe import Probe
from pellucid.core.units import body

Do = Literal["hide", "keep", "swap"]
SHAMS = 8  # places: a region that does more than all of them is one of nine by chance
_TRIES = 400
_IN_BODY, _OVERLAP = 0.9, 0.1  # of a sham region


@dataclass(frozen=True, eq=False)
class Trial:
    """What a region does to the score of one case, and what the same does elsewhere in the body.

    Args:
        before: the score of the image as it is.
        fills: what the hidden shows; empty for a swap.
        here: change of the score with each fill, in their order (one for a swap).
        there: mean change over the fills, for each place elsewhere; empty: the region fits nowhere else.
    """

    before: float
    fills: tuple[Infill, ...]
    here: Float[Tensor, " fill"]
    there: Float[Tensor, " place"]

    @property
    def change(self) -> float:
        """Mean change over the fills."""
        return float(self.here.mean())

    @property
    def spread(self) -> float | None:
        """Largest distance of two fills' changes; None: one fill, or none."""
        return float(self.here.max() - self.here.min()) if len(self.fills) > 1 else None

    @property
    def torn(self) -> bool:
        """Whether the fills move the score in opposite directions."""
        return bool((self.here > 0).any() and (self.here < 0).any())


def try_region(
    probe: Probe,
    region: Bool[Tensor, "*space"],
    do: Do = "hide",
    shams: int = SHAMS,
    infill: Infill | None = None,
    marked: Bool[Tensor, "*space"] | None = None,
) -> Trial:
    """Do something to a region, and the same at random places in the body, as large and of the same shape.

    Args:
        probe: of one case.
        region: on the network's grid of the primary input.
        do: ``hide``: the region is filled; ``keep``: all else is; ``swap``: region and mirror side change places.
        shams: places; 0: none.
        infill: what the hidden shows; None: the scene's first two, averaged.
        marked: what is known to be no normal tissue, kept out of the places too; None: nothing.

    Raises:
        BadOption: no such thing to do, several cases, or no left-right axis to mirror along.
        BadRegion: the region is empty or of another shape.
    """
    check_region(probe, region, do)
    if probe.batch != 1:
        raise BadOption(f"expected one case, got {probe.batch}", "ask about one case at a time")
    if shams < 0:
        raise BadOption(f"expected at least 0 sham placements, got {shams}", f"{SHAMS} are usual")
    away = region | region.flip(side_axis(probe.grid)[0]) if do == "swap" else region
    away = away if marked is None else away | marked
    found = changes(probe, [region, *elsewhere(probe, region, away, shams)], do, infill)[..., 0]
    before = float(probe.baseline_score[0])
    return Trial(before, () if do == "swap" else fills_for(probe, infill), found[:, 0], found[:, 1:].mean(0))


def fills_for(probe: Probe, infill: Infill | None) -> tuple[Infill, ...]:
    """The fill that was chosen, or the scene's first two, one of them where both are the same."""
    return (infill,) if infill is not None else tuple(dict.fromkeys(probe.scene.infills[:2]))


def changes(
    probe: Probe, regions: Sequence[Bool[Tensor, "*space"]], do: Do, infill: Infill | None
) -> Float[Tensor, "fill region batch"]:
    """By how much the score changes when something is done to each region by itself; a swap has one "fill".

    Args:
        probe: of the batch.
        regions: on the network's grid of the primary input.
        do: see ``try_region``.
        infill: what the hidden shows; None: the scene's first two, one after the other.
    """
    if do == "swap":
        axis, _ = side_axis(probe.grid)
        scores = torch.stack([_swapped(probe, region, axis) for region in regions])[None]
    else:
        keeps = [(~m if do == "hide" else m).float()[None].to(probe.model.device) for m in regions]
        fills = fills_for(probe, infill)
        scores = torch.stack([torch.stack(list(Stream(probe, fill).scores(keeps))) for fill in fills])
    return scores.double().cpu() - probe.baseline_score.double().cpu()


def check_region(probe: Probe, region: Tensor, do: str) -> None:
    """Refuse what nothing can be done to.

    Raises:
        BadOption: no such thing to do.
        BadRegion: the region is empty, everything, or of another shape.
    """
    shape = tuple(probe.inputs[probe.model.primary].shape[2:])
    if do not in ("hide", "keep", "swap"):
        raise BadOption(f"expected hide, keep or swap, got {do!r}", "choose one of these")
    if tuple(region.shape) != shape:
        raise BadRegion(f"expected a region of shape {shape}, got {tuple(region.shape)}", "give it on the image's grid")
    if not bool(region.any()) or bool(region.all()):
        raise BadRegion("expected a region that is a part of the image, got none or all of it", "draw a part")


def elsewhere(probe: Probe, region: Tensor, away: Tensor, count: int) -> Iterator[Tensor]:
    """The region moved to at most ``count`` random places in the body of the ``probe``'s first item, off ``away``."""
    mask, away = region.cpu(), away.cpu()
    corners = mask.nonzero()
    first, last = corners.amin(0), corners.amax(0) + 1
    piece = mask[tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))]
    free = body(probe.inputs[probe.model.primary][0]).cpu()
    draw, size, left = torch.Generator().manual_seed(probe.scene.seed), int(mask.sum()), count
    for _ in range(_TRIES):
        if not left:
            return
        start = [
            int(torch.randint(0, n - k + 1, (1,), generator=draw)) for n, k in zip(mask.shape, piece.shape, strict=True)
        ]
        box = tuple(slice(s, s + k) for s, k in zip(start, piece.shape, strict=True))
        if int(free[box][piece].sum()) >= _IN_BODY * size and int(away[box][piece].sum()) <= _OVERLAP * size:
            left -= 1
            moved = torch.zeros_like(mask)
            moved[box] = piece
            yield moved


def side_axis(grid: Grid) -> tuple[int, tuple[str, ...]]:
    """The tensor axis from right to left of the patient, and what a reader must know of it.

    Raises:
        BadOption: the image shows no left and right.
    """
    middle = "mirrored about the middle of the image, which need not be the patient's"
    if grid.letters is None:
        if grid.rank == 3:
            raise BadOption(
                "the volume states no sides of the patient, so there is no mirror side", "use hide or keep instead"
            )
        return 1, (middle, "the file states no sides of the patient: columns of the image were mirrored")
    sides = [axis for axis, letters in enumerate(grid.letters) if letters[:1] in ("L", "R")]
    if not sides:
        raise BadOption(
            "the image does not show left and right, so there is no mirror side", "use hide or keep instead"
        )
    return sides[0], (middle,)


def _swapped(probe: Probe, mask: Tensor, axis: int) -> Float[Tensor, " batch"]:
    """The score with a region and its mirror side exchanged, in all inputs of the region's shape."""
    both = (mask | mask.flip(axis)).to(probe.model.device)
    inputs = {
        name: torch.where(both, x.flip(axis + 2), x) if tuple(x.shape[2:]) == tuple(mask.shape) else x
        for name, x in probe.inputs.items()
    }
    return probe.score(inputs)
