"""A region named by hand: hidden, shown alone, or exchanged with its mirror side, beside the same done elsewhere."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family, Level
from pellucid.core.errors import BadOption, BadRegion, UnknownName
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.infill import Infill, disagreement
from pellucid.core.probe import Probe
from pellucid.explain.sham import Do, changes, check_region, fills_for, side_axis, try_region


@dataclass(frozen=True)
class AskByHand(Explainer):
    """How far the score falls when a region of the case is hidden, shown alone, or exchanged with its mirror side.

    ``S(x) - S(x changed)``, written on the voxels that were changed; of several regions each is changed by itself, and
    a voxel of several belongs to the smallest. It answers about the region that was asked about and no other; hidden
    tissue is not healthy tissue, and the mirror side may be ill too.

    Returns:
        Signed attribution of one value for each region, in the target's unit; 0 where nothing was changed.

    Raises:
        BadRegion: the case has no region, or one that is empty or the whole image.
        UnknownName: no region of this name.
        BadOption: several regions to be shown alone, or no left and right.

    Source:
        zeiler2014visualizing, with the region in the place of their square.

    Example:
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.probe import Scene
        >>> from pellucid.core.target import ClassScore
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)))
        >>> probe = Probe(model, torch.rand(1, 1, 4, 4), ClassScore(1), scene=Scene(regions={"spot": torch.eye(4) > 0}))
        >>> AskByHand()(probe).maps["image"].count_nonzero()
        tensor(4)
    """

    region: Annotated[str | None, "name of a region of the case; None: every region, each by itself"] = None
    do: Annotated[Do, "hide the region, keep it alone, or swap it with its mirror side"] = "hide"
    infill: Annotated[Infill | None, "what the hidden shows; None: the modality's first two fills, averaged"] = None

    card: ClassVar[Card] = Card(
        family=Family.PERTURBATION,
        shows="how far the score falls when a region that a reader names is hidden, shown alone or mirrored",
        caution="stands where a reader asked, so it finds nothing; depends on the fill; misses evidence told twice",
        equation=r"S(x) - S(x_{\mathrm{region} \to \mathrm{fill}})",
        source="zeiler2014visualizing",
        cost_note="one forward for each region and fill; a swap has no fill",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        level=Level.REGION,
        agnostic=True,
    )

    def regions(self, probe: Probe) -> dict[str, Bool[Tensor, "*space"]]:
        """The regions that are asked about, by name."""
        known = probe.scene.regions
        if not known:
            raise BadRegion("the case has no region to ask about", "give one with --region, or in the case's regions")
        if self.region is not None and self.region not in known:
            raise UnknownName(f"no region {self.region!r}", f"regions: {', '.join(known)}")
        chosen = {n: m.to(torch.bool) for n, m in known.items() if self.region in (None, n)}
        if self.do == "keep" and len(chosen) > 1:
            raise BadOption(
                f"expected one region to show alone, got {len(chosen)}", f"name one: region={next(iter(chosen))}"
            )
        for mask in chosen.values():
            check_region(probe, mask, self.do)
        return chosen

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        return Cost(len(self.regions(probe)) * (1 if self.do == "swap" else len(fills_for(probe, self.infill))))

    def stand_in(self, probe: Probe) -> str | None:
        """See ``Explainer``."""
        return "the mirror side" if self.do == "swap" else super().stand_in(probe)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        chosen = self.regions(probe)
        masks = list(chosen.values())
        found = changes(probe, masks, self.do, self.infill)
        notes = side_axis(probe.grid)[1] if self.do == "swap" else ()
        doubts = () if self.do == "swap" else disagreement(list(found), fills_for(probe, self.infill))
        still = [n for n, x in probe.inputs.items() if tuple(x.shape[2:]) != probe.grid.shape]
        return Attribution(
            maps={probe.model.primary: self._painted(probe, masks, -found.mean(0))},
            unit=probe.target.unit,
            signed=True,
            cell=_extent(masks),
            warnings=(*notes, *doubts, *(f"input {n!r} was held fixed: it has another shape" for n in still)),
        )

    def _painted(self, probe: Probe, masks: list[Tensor], falls: Tensor) -> Tensor:
        """The voxels that were changed with their fall, small regions over large ones: "batch 1 *space"."""
        out = torch.zeros(probe.batch, 1, *masks[0].shape, dtype=torch.float64)
        for place in sorted(range(len(masks)), key=lambda n: -int(masks[n].sum())):
            changed = masks[place].cpu()
            if self.do == "keep":
                changed = ~changed
            elif self.do == "swap":
                changed = changed | changed.flip(side_axis(probe.grid)[0])
            out[:, :, changed] = falls[place].view(-1, 1, 1)
        return out.to(probe.baseline_score)


def _extent(masks: list[Tensor]) -> tuple[float, ...]:
    """Edges of the smallest region's box, in voxels."""
    corners = min(masks, key=lambda m: int(m.sum())).nonzero()
    return tuple(float(e) for e in (corners.amax(0) - corners.amin(0) + 1).tolist())


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
    trial = try_region(probe, region, do, shams)
    there, found = trial.there, len(trial.there) > 0
    notes = side_axis(probe.grid)[1] if do == "swap" else ()
    if trial.torn:
        notes += ("the fills move the score in opposite directions: the answer shows the fill, not the image",)
    if shams and not found:
        notes += ("a region of this shape fits nowhere else in the body: no sham test",)
    return Reply(
        do=do,
        target=probe.target.name,
        unit=probe.target.unit,
        before=trial.before,
        after=trial.before + trial.change,
        difference=trial.change,
        fills=tuple((f.words, trial.before + float(c)) for f, c in zip(trial.fills, trial.here, strict=False)),
        spread=trial.spread,
        sham=float(there.mean()) if found else None,
        sham_low=float(there.min()) if found else None,
        sham_high=float(there.max()) if found else None,
        shams=len(there),
        stronger=float((there.abs() >= abs(trial.change)).double().mean()) if found else None,
        share=float(region.double().mean()),
        notes=notes,
    )


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
