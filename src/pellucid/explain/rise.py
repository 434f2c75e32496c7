"""RISE: how much higher the score is, on average, when a voxel happens to be shown."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.quasirandom import SobolEngine

from pellucid.core.card import Ask, Card, Cost, Family, Level
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.grid import Grid
from pellucid.core.infill import Infill, disagreement
from pellucid.core.masking import Stream
from pellucid.core.probe import Probe
from pellucid.explain.agreement import weighed
from pellucid.explain.softmasks import Drawn, SoftMasks
from pellucid.explain.tally import Tally

STREAMS = 4  # independent ones: they tell how much of the map is chance
_ROUND = 16  # pairs of masks of each stream between two looks at the reliability: Sobol points balance at powers of 2


@dataclass(frozen=True)
class RISE(Explainer):
    """How much higher the score is on average while a voxel is shown and others are hidden at random.

    Soft random masks hide parts of the image; ``ratio`` is ``sum f m_i / sum m_i - mean f``: the published map less the
    mean score, which would drown it. ``slope`` is ``Cov(f, m_i) / Var(m_i)``, how much showing the voxel adds. The map
    is blurred to about a cell, and masked images look like none the model was trained on.

    Returns:
        Attribution in the target's unit, with the standard error of each value from four independent streams.

    Raises:
        BadOption: a number of masks that four streams cannot share, or a share or cell out of range.

    Source:
        petsiuk2018rise. Deviations: divided by what each voxel was shown, not by its mean over masks; less the mean
        score; Sobol masks, each with its opposite; a linear control variate; frequencies on which the streams disagree
        weigh less; stops when the map is reliable.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)))
        >>> answer = RISE(masks=128)(Probe(model, torch.rand(1, 1, 8, 8), ClassScore(1)))
        >>> answer.maps["image"].shape
        torch.Size([1, 1, 8, 8])
    """

    masks: Annotated[int, "masks at most, shared by four streams: a multiple of 8, at least 32"] = 1024
    reliability: Annotated[
        float | None, "stop when the map's reliability (Spearman-Brown, of four streams) reaches this; None: never"
    ] = 0.9
    cell: Annotated[
        float | None, "distance of the mask's nodes in the grid's unit (mm, or px); None: 1/7 of the image, 1/4 in 3-D"
    ] = None
    shown: Annotated[float, "share of the nodes that is shown, between 0 and 1"] = 0.5
    estimator: Annotated[
        Literal["ratio", "slope"],
        "ratio: mean score while the voxel is shown, less the mean score; slope: what showing it adds",
    ] = "ratio"
    reduce_variance: Annotated[
        bool, "correct by a linear fit to the masks' block means; weigh down frequencies on which the streams disagree"
    ] = True
    infill: Annotated[Infill | None, "what hidden parts show; None: the modality's first two fills, averaged"] = None

    card: ClassVar[Card] = Card(
        family=Family.PERTURBATION,
        shows="how much higher the mean score is while a voxel is shown and others are hidden at random",
        caution="chance where the stated reliability is low; blurred to a cell; masked images look like no image",
        equation=r"\frac{\sum_k S(x \odot m_k)\, m_{k,i}}{\sum_k m_{k,i}} - \frac{1}{N}\sum_k S(x \odot m_k)",
        source="petsiuk2018rise",
        cost_note="one forward per mask and fill, fewer where the map is reliable before",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        stochastic=True,
        early=True,
        level=Level.REGION,
        agnostic=True,
    )

    def __post_init__(self) -> None:
        if self.masks < 8 * STREAMS or self.masks % (2 * STREAMS):
            raise BadOption(
                f"expected a multiple of {2 * STREAMS} masks, at least {8 * STREAMS}, got {self.masks}",
                f"take {max(8 * STREAMS, 2 * STREAMS * round(self.masks / (2 * STREAMS)))}",
            )
        for name, value in (("reliability", self.reliability), ("shown", self.shown)):
            if value is not None and not 0 < value < 1:
                raise BadOption(f"expected a {name} between 0 and 1, got {value}", "for example 0.9 and 0.5")
        if self.cell is not None and self.cell <= 0:
            raise BadOption(f"expected a positive cell, got {self.cell}", "give a length in mm (or px)")

    def family(self, grid: Grid) -> SoftMasks:
        """The masks on a grid."""
        share = 7 if grid.rank == 2 else 4
        typical = prod(n * s for n, s in zip(grid.shape, grid.spacing, strict=True)) ** (1 / grid.rank)
        cell = tuple(max(1.0, float(v)) for v in grid.voxels(self.cell or typical / share))
        return SoftMasks(grid.shape, cell, self.shown)

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``; with a reliability an upper bound."""
        return Cost(self.masks * len(self._fills(probe)))

    def _fills(self, probe: Probe) -> tuple[Infill, ...]:
        return probe.scene.infills[:2] if self.infill is None else (self.infill,)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        fills, family = self._fills(probe), self.family(probe.grid)
        streams = [Stream(probe, fill) for fill in fills]
        tally = Tally(family, probe.baseline_score, STREAMS, self.reduce_variance)
        found = _Found(probe.batch)
        for drawn in self._rounds(family, probe.scene.seed):
            done = 0
            while done < len(drawn):
                some = drawn.part(done, streams[0].chunk)
                keeps = some.full(probe.baseline_score)
                scores = torch.stack([torch.stack(list(s.scores(keeps[:, None]))) for s in streams])
                tally.add(some, keeps, scores)
                done += len(some)
            found.look(tally, self)
            if bool(found.settled.all()):
                break
        fixed = [n for n, x in probe.inputs.items() if tuple(x.shape[2:]) != probe.grid.shape]
        warnings = [f"input {n!r} was held fixed: it has another shape" for n in fixed]
        return Attribution(
            maps={probe.model.primary: found.value},
            unit=probe.target.unit,
            signed=True,
            cell=tuple(min(float(n), c) for n, c in zip(family.shape, family.cell, strict=True)),
            error={probe.model.primary: found.error},
            warnings=(*warnings, *disagreement(found.effects, fills), *self._said(found)),
        )

    def _rounds(self, family: SoftMasks, seed: int) -> Iterator[Drawn]:
        """Masks of all streams in turn, some of each between two looks at the reliability.

        A mask is followed by its opposite: what two nodes do only together then cancels. Each stream has its own order
        of the nodes, because in few Sobol points some nodes go hand in hand, and always the same ones.
        """
        generator = torch.Generator().manual_seed(seed)
        seeds = torch.randint(2**31, (STREAMS,), generator=generator).tolist()
        orders = [torch.randperm(family.dimensions, generator=generator) for _ in seeds]
        engines = [SobolEngine(family.dimensions, scramble=True, seed=s) for s in seeds]
        left = self.masks // (2 * STREAMS)
        while left:
            count = min(_ROUND, left)
            points = [e.draw(count, dtype=torch.float64)[:, o] for e, o in zip(engines, orders, strict=True)]
            yield family.draw(family.with_opposites(torch.stack(points, 1)), STREAMS)
            left -= count

    def _said(self, found: "_Found") -> Iterator[str]:
        """The mean score that was taken off; how reliable the map is, and after how many masks, of the worst item."""
        if self.estimator == "ratio":
            yield f"mean score of the masked images, taken off: {', '.join(f'{m:.3g}' for m in found.mean.tolist())}"
        low, most = float(found.reliability.min()), int(found.masks.max())
        if self.reliability is None or low >= self.reliability:
            yield f"reliability {low:.2f} after {most} masks (of four independent parts, Spearman-Brown)"
        else:
            yield (
                f"reliability {max(low, 0):.2f} after all {most} masks, {self.reliability:g} was asked: the map's "
                "detail is partly chance; take more masks or larger cells"
            )


class _Found:
    """The map of each item as it was when it became reliable, or at the last mask."""

    def __init__(self, batch: int) -> None:
        self.reliability, self.masks = torch.zeros(batch), torch.zeros(batch, dtype=torch.long)
        self.settled = torch.zeros(batch, dtype=torch.bool)
        self.mean = torch.zeros(batch)
        self.value = self.error = torch.zeros(0)
        self.effects: list[Tensor] = []

    def look(self, tally: Tally, method: RISE) -> None:
        """Take the maps of the items that are not settled yet."""
        whole, parts = (tally.estimate(pooled, method.estimator) for pooled in (True, False))
        reliability = reliability_of(parts.effect).cpu()
        if method.reduce_variance:
            whole = replace(whole, effect=weighed(whole.effect[0], parts.effect, tally.family.cell)[None])
        value, error = whole.effect[0], parts.effect.std(0) / STREAMS**0.5
        fresh = [value[:, None], error[:, None], *(e[:, None] for e in tally.by_fill(method.estimator))]
        kept = [self.value, self.error, *self.effects] if self.value.numel() else fresh
        keep = self.settled.view(-1, *(1,) * (value.ndim)).to(value.device)
        self.value, self.error, *self.effects = (torch.where(keep, k, f) for k, f in zip(kept, fresh, strict=True))
        self.reliability = torch.where(self.settled, self.reliability, reliability)
        self.masks = torch.where(self.settled, self.masks, tally.masks)
        self.mean = torch.where(self.settled, self.mean, whole.mean[0].cpu())
        if method.reliability is not None:
            self.settled |= self.reliability >= method.reliability


def reliability_of(maps: Float[Tensor, "stream batch *space"]) -> Float[Tensor, " batch"]:
    """Of the mean of the streams' maps, after Spearman and Brown: from how well the streams agree with each other.

    ``k r / (1 + (k - 1) r)``, r being the mean correlation of two streams less its standard error (jackknife: few masks
    agree by luck). It is about the square of the mean's correlation with the map of endless masks. Maps that are flat
    in every stream agree: 1.
    """
    flat = maps.flatten(2).transpose(0, 1)
    apart = flat - flat.mean(-1, keepdim=True)
    length = apart.norm(dim=-1, keepdim=True)
    apart = apart / torch.where(length > 0, length, torch.ones_like(length))
    count = len(maps)
    pairs = apart @ apart.mT
    pairs = pairs - torch.diag_embed(pairs.diagonal(dim1=1, dim2=2))
    whole = pairs.sum((1, 2))
    without = (whole[:, None] - 2 * pairs.sum(2)) / ((count - 1) * (count - 2))  # without each stream in turn
    luck = ((count - 1) * without.var(1, correction=0)).sqrt()
    between = (whole / (count * (count - 1)) - luck).clamp_min(0)
    reliability = count * between / (1 + (count - 1) * between)
    return torch.where((length == 0).all(1)[:, 0], torch.ones_like(reliability), reliability)
