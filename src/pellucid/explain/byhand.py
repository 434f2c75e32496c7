"""A region named by hand: hidden, shown alone, or exchanged with its mirror side, beside the same done elsewhere."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from pellucid.core.errors import BadOption, BadRegion
from pellucid.core.grid import Grid
from pellucid.core.masking import Stream
from pellucid.core.probe import Probe
from pellucid.core.units import body

Do = Literal["hide", "keep", "swap"]
_TRIES = 400
_IN_BODY, _OVERLAP = 0.9, 0.1  # of a sham region


@dataclass(frozen=True)
class Reply:
    """What became of the score.

    Args:
        do: what was done to the region.
        target: whose score.
        unit: of the scores.
        before: at the image as it is.
        after: mean over the fills.
        difference: after minus before.
        fills: (what the hidden part showed, score) each; empty for a swap.
        spread: largest distance of two fills' scores; None: one fill, or none.
        sham: mean difference when as large a region elsewhere in the body is treated alike; None: it fits nowhere else.
        sham_low: smallest of these differences.
        sham_high: largest of these differences.
        shams: placements tried.
        stronger: share of the placements whose difference is at least as large; None: there are none.
        share: of the image that the region fills.
        notes: what a reader must know.
    """

    do: Do
    target: str
    unit: str
    before: float
    after: float
    difference: float
    fills: tuple[tuple[str, float], ...]
    spread: float | None
    sham: float | None
    sham_low: float | None
    sham_high: float | None
    shams: int
    stronger: float | None
    share: float
    notes: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self) | {
            "fills": [{"fill": words, "after": after} for words, after in self.fills],
            "notes": list(self.notes),
        }


def ask_region(probe: Probe, region: Bool[Tensor, "*space"], do: Do = "hide", shams: int = 8) -> Reply:
    """Hide a region, show it alone, or exchange it with its mirror side, and see what the score does.

    The same is done at ``shams`` random places in the body, as large and of the same shape, away from the region: a
    change no larger than theirs says only that something was changed.

    Args:
        probe: of one case.
        region: on the network's grid of the primary input.
        do: ``hide``: the region is filled; ``keep``: all else is; ``swap``: region and mirror side change places.
        shams: placements; 0: none.

    Raises:
        BadOption: no such thing to do, several cases, or no left-right axis to mirror along.
        BadRegion: the region is empty or of another shape.
    """
    _check(probe, region, do, shams)
    before = float(probe.baseline_score[0])
    axis, notes = _side_axis(probe.grid) if do == "swap" else (0, ())
    away = region | region.flip(axis) if do == "swap" else region
    asked = [region, *_elsewhere(probe, region, away, shams)]
    if do == "swap":
        scores = torch.stack([_swapped(probe, mask, axis) for mask in asked])[None]
        fills = ()
    else:
        chosen = tuple(dict.fromkeys(probe.scene.infills[:2]))
        keeps = [(~m if do == "hide" else m).float()[None].to(probe.model.device) for m in asked]
        scores = torch.stack([torch.stack(list(Stream(probe, fill).scores(keeps)))[:, 0] for fill in chosen])
        fills = tuple((f.words, float(s[0])) for f, s in zip(chosen, scores, strict=True))
    changes = scores.double().mean(0).cpu() - before
    there = changes[1:]
    found = len(there) > 0
    notes += _doubts(scores[:, 0].cpu() - before, shams, found)
    return Reply(
        do=do,
        target=probe.target.name,
        unit=probe.target.unit,
        before=before,
        after=before + float(changes[0]),
        difference=float(changes[0]),
        fills=fills,
        spread=float(scores[:, 0].max() - scores[:, 0].min()) if len(fills) > 1 else None,
        sham=float(there.mean()) if found else None,
        sham_low=float(there.min()) if found else None,
        sham_high=float(there.max()) if found else None,
        shams=len(there),
        stronger=float((there.abs() >= changes[0].abs()).double().mean()) if found else None,
        share=float(region.double().mean()),
        notes=notes,
    )


def _doubts(changes: Tensor, shams: int, found: bool) -> tuple[str, ...]:
    """What speaks against reading the answer.

    Args:
        changes: of the score, by fill.
        shams: placements asked for.
        found: whether there were any.
    """
    notes = ()
    if bool((changes > 0).any() and (changes < 0).any()):
        notes += ("the fills move the score in opposite directions: the answer shows the fill, not the image",)
    if shams and not found:
        notes += ("a region of this shape fits nowhere else in the body: no sham test",)
    return notes


def _check(probe: Probe, region: Tensor, do: str, shams: int) -> None:
    shape = tuple(probe.inputs[probe.model.primary].shape[2:])
    if do not in ("hide", "keep", "swap"):
        raise BadOption(f"expected hide, keep or swap, got {do!r}", "choose one of these")
    if probe.batch != 1:
        raise BadOption(f"expected one case, got {probe.batch}", "ask about one case at a time")
    if shams < 0:
        raise BadOption(f"expected at least 0 sham placements, got {shams}", "8 are usual")
    if tuple(region.shape) != shape:
        raise BadRegion(f"expected a region of shape {shape}, got {tuple(region.shape)}", "give it on the image's grid")
    if not bool(region.any()) or bool(region.all()):
        raise BadRegion("expected a region that is a part of the image, got none or all of it", "draw a part")


def _elsewhere(probe: Probe, region: Tensor, away: Tensor, count: int) -> Iterator[Tensor]:
    """The region moved to random places in the body, nearly off ``away``."""
    mask = region.cpu()
    corners = mask.nonzero()
    first, last = corners.amin(0), corners.amax(0) + 1
    piece = mask[tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))]
    inside = body(probe.inputs[probe.model.primary][0]).cpu()
    draw, size, left = torch.Generator().manual_seed(probe.scene.seed), int(mask.sum()), count
    for _ in range(_TRIES):
        if not left:
            return
        start = [
            int(torch.randint(0, n - k + 1, (1,), generator=draw)) for n, k in zip(mask.shape, piece.shape, strict=True)
        ]
        moved = torch.zeros_like(mask)
        moved[tuple(slice(s, s + k) for s, k in zip(start, piece.shape, strict=True))] = piece
        if int((moved & inside).sum()) >= _IN_BODY * size and int((moved & away.cpu()).sum()) <= _OVERLAP * size:
            left -= 1
            yield moved


def _side_axis(grid: Grid) -> tuple[int, tuple[str, ...]]:
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


def _swapped(probe: Probe, mask: Tensor, axis: int) -> Tensor:
    """The score with a region and its mirror side exchanged, in all inputs of the region's shape."""
    both = (mask | mask.flip(axis)).to(probe.model.device)
    inputs = {
        name: torch.where(both, x.flip(axis + 2), x) if tuple(x.shape[2:]) == tuple(mask.shape) else x
        for name, x in probe.inputs.items()
    }
    return probe.score(inputs)[0]


def sentence(reply: Reply) -> str:
    """The answer in one sentence.

    Example:
        >>> sentence(Reply("hide", "nodule", "logit", 2.0, 0.5, -1.5, (), None, -0.1, -0.3, 0.2, 8, 0.0, 0.01))
        'hiding the region lowers the score of nodule by 1.5 logit; the same elsewhere (8 places) changes it by -0.1'
    """
    doing = {"hide": "hiding the region", "keep": "showing the region alone", "swap": "swapping its sides"}[reply.do]
    way = "lowers" if reply.difference < 0 else "raises"
    said = f"{doing} {way} the score of {reply.target} by {abs(reply.difference):.3g} {reply.unit}"
    if reply.difference == 0:
        said = f"{doing} leaves the score of {reply.target} as it is"
    if reply.sham is None:
        return said
    return f"{said}; the same elsewhere ({reply.shams} places) changes it by {reply.sham:.3g}"
