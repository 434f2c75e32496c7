"""LIME: a linear model of the score near one image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family, Level
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.infill import Infill, disagreement
from pellucid.core.masking import Stream
from pellucid.core.players import parse_players, players_of
from pellucid.core.probe import Probe
from pellucid.core.units import Units
from pellucid.explain.linear import Samples

_PRESETS: Mapping[str, tuple[float, float]] = {"lime": (0.25, 1.0), "captum": (1.0, 0.01)}  # width, alpha
_FIRST, _EACH = 64, 4  # samples, and samples for each player, before the first look at the error
_DESCRIBES = 0.5  # of the variance of scores that were not fitted: below it the surrogate is another model


@dataclass(frozen=True, eq=False)
class _Fit:
    """Of one item: effects with each fill, the standard error of their mean, R2 as fitted and on samples left out."""

    effects: Float[Tensor, "fill player"]
    error: Float[Tensor, " player"]
    fitted: float
    left_out: float

    def settled(self, tolerance: float) -> bool:
        """Whether the largest standard error is below this share of the largest effect."""
        return float(self.error.max()) <= tolerance * float(self.effects.mean(0).abs().max())


@dataclass(frozen=True)
class LIME(Explainer):
    """What each part of the image adds to the score in a linear model fitted near this image.

    Players are shown or filled by coin tosses; a weighted linear fit to the scores gives one effect each. ``lime`` is
    the authors' recipe: weight ``sqrt(exp(-d^2 / width^2))``, d the cosine distance of the coin tosses from all shown,
    ridge. ``captum``: ``exp(-d^2 / (2 width^2))``, d between the images, lasso. A line may not describe the model at
    all: its R2 on samples left out is checked.

    Returns:
        Signed attribution in the target's unit: the effect of a voxel's player, with its bootstrap standard error.

    Raises:
        BadOption: no such players, more of them than samples, or a width or alpha out of range.

    Source:
        ribeiro2016why. Deviation: filled by the modality's fills, on the logit; every draw follows the seed.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)))
        >>> answer = LIME(samples=32, players="grid:2")(Probe(model, torch.rand(1, 1, 8, 8), ClassScore(1)))
        >>> answer.maps["image"].unique().numel()
        4
    """

    preset: Annotated[Literal["lime", "captum"], "whose kernel, distance and penalty"] = "lime"
    samples: Annotated[int, "masked images for each fill; more than players"] = 500
    players: Annotated[str, "grid:4 (blocks per axis), superpixels:30, regions or regions:A+B"] = "superpixels:20"
    width: Annotated[float | None, "of the kernel, in cosine distance; None: the preset's, 0.25 (lime), 1 (captum)"] = (
        None
    )
    alpha: Annotated[
        float | None, "of the penalty, 0: none; None: the preset's, ridge 1 (lime), lasso 0.01 (captum)"
    ] = None
    tolerance: Annotated[
        float | None, "stop when the largest standard error is below this share of the largest effect; None: never"
    ] = None
    infill: Annotated[Infill | None, "what hidden players show; None: the modality's first two fills, averaged"] = None

    card: ClassVar[Card] = Card(
        family=Family.SURROGATE,
        shows="what each part of the image adds to the score in a linear model fitted near this image",
        caution="a line may not describe the model: read its R2; depends on the players, the kernel and the fill",
        equation=r"\arg\min_{\phi} \sum_k \pi(z_k) \left(S(x_{z_k}) - \phi_0 - \phi^T z_k\right)^2 + \Omega(\phi)",
        source="ribeiro2016why",
        cost_note="one forward per sample and fill",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        stochastic=True,
        level=Level.REGION,
        agnostic=True,
    )

    def __post_init__(self) -> None:
        parse_players(self.players)
        if self.samples < 16:
            raise BadOption(f"expected at least 16 samples, got {self.samples}", "200 to 2000 are usual")
        if self.width is not None and self.width <= 0:
            raise BadOption(f"expected a kernel width above 0, got {self.width}", "0.25 or 1")
        if self.alpha is not None and self.alpha < 0:
            raise BadOption(f"expected a penalty of 0 or more, got {self.alpha}", "1 for ridge, 0.01 for lasso")
        if self.tolerance is not None and not self.tolerance > 0:
            raise BadOption(f"expected a tolerance above 0, got {self.tolerance}", "0.1 is 10 % of the largest effect")

    @property
    def recipe(self) -> tuple[float, float]:
        """Kernel width and penalty."""
        width, alpha = _PRESETS[self.preset]
        return self.width or width, alpha if self.alpha is None else self.alpha

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``; with a tolerance an upper bound."""
        return Cost(self.samples * len(self._fills(probe)))

    def _fills(self, probe: Probe) -> tuple[Infill, ...]:
        return probe.scene.infills[:2] if self.infill is None else (self.infill,)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        units, fills = players_of(probe, self.players), self._fills(probe)
        most = max(u.count for u in units)
        if most >= self.samples:
            raise BadOption(f"expected more samples than players, got {self.samples} for {most}", "take more samples")
        tosses = [self._tosses(u.count, probe.scene.seed) for u in units]
        found = self._fitted(probe, units, tosses, [Stream(probe, fill) for fill in fills])
        by_fill = [torch.cat([f.effects[k] for f in found]) for k in range(len(fills))]
        fixed = [n for n, x in probe.inputs.items() if tuple(x.shape[2:]) != probe.grid.shape]
        held = [f"input {n!r} was held fixed: it has another shape" for n in fixed]
        extents = [u.extent() for u in units]
        score, name = probe.baseline_score, probe.model.primary
        return Attribution(
            maps={name: _painted(units, [f.effects.mean(0) for f in found]).to(score)},
            unit=probe.target.unit,
            signed=True,
            cell=tuple(sum(e) / len(e) for e in zip(*extents, strict=True)),
            error={name: _painted(units, [f.error for f in found]).to(score)},
            warnings=(*held, *disagreement(by_fill, fills), *self._doubts(found)),
        )

    def _tosses(self, players: int, seed: int) -> Float[Tensor, "sample player"]:
        """Who is shown; the authors' first sample is the image itself."""
        generator = torch.Generator().manual_seed(seed)
        shown = (torch.rand(self.samples, players, generator=generator) < 0.5).double()
        if self.preset == "lime":
            shown[0] = 1
        return shown

    def _fitted(
        self, probe: Probe, units: Sequence[Units], tosses: Sequence[Tensor], streams: Sequence[Stream]
    ) -> list[_Fit]:
        rows: list[list[Tensor]] = [[] for _ in streams]
        found: dict[int, _Fit] = {}
        settled: set[int] = set()
        start = 0
        for stop in self._stops(max(u.count for u in units)):
            keeps = [shown[start:stop] for shown in tosses]
            for row, stream in zip(rows, streams, strict=True):
                row += list(stream.scores(_keeps(units, keeps)))
            start = stop
            scores = [torch.stack(row).double().cpu() for row in rows]
            for i in set(range(probe.batch)) - settled:
                weights = [self._weight(probe, s, units[i], tosses[i][:stop], i) for s in streams]
                found[i] = self._fit(tosses[i][:stop], [s[:, i] for s in scores], weights, probe.scene.seed)
                if self.tolerance is not None and found[i].settled(self.tolerance):
                    settled.add(i)
            if len(settled) == probe.batch:
                break
        return [found[i] for i in range(probe.batch)]

    def _stops(self, players: int) -> list[int]:
        """After how many samples the error is looked at: a bootstrap takes time, so at doublings."""
        if self.tolerance is None:
            return [self.samples]
        first = max(_FIRST, _EACH * players)
        doublings = [first << n for n in range(self.samples.bit_length()) if first << n < self.samples]
        return [*doublings, self.samples]

    def _fit(self, shown: Tensor, scores: Sequence[Tensor], weights: Sequence[Tensor], seed: int) -> _Fit:
        """One item's line with each fill."""
        alpha, lasso = self.recipe[1], self.preset == "captum"
        fits = [Samples(shown, score, weight) for score, weight in zip(scores, weights, strict=True)]
        lines = [s.fit(alpha, lasso) for s in fits]
        draws = [s.resampled(alpha, lasso, seed) for s in fits]
        return _Fit(
            effects=torch.stack([line.effect for line in lines]),
            error=torch.stack([effects for effects, _ in draws]).mean(0).std(0),
            fitted=min(s.r2(line) for s, line in zip(fits, lines, strict=True)),
            left_out=min(r2 for _, r2 in draws),
        )

    def _weight(self, probe: Probe, stream: Stream, unit: Units, shown: Tensor, item: int) -> Tensor:
        width, _ = self.recipe
        if self.preset == "lime":
            away = 1 - (shown.mean(1)).sqrt()  # the cosine of z and all ones is sqrt(share shown)
            return (-((away / width) ** 2)).exp().sqrt()
        away = 1 - _likeness(probe, stream, unit, shown, item)
        return (-(away**2) / (2 * width**2)).exp()

    def _doubts(self, found: Sequence[_Fit]) -> Iterator[str]:
        worst = min(found, key=lambda f: f.left_out)
        if worst.left_out < _DESCRIBES:
            yield (
                f"weighted R2 {worst.fitted:.2f}, {worst.left_out:.2f} on samples left out: the linear surrogate does "
                "not describe the model here; take other players, or KernelSHAP"
            )
        for fit in found:
            mean = fit.effects.mean(0)
            if not bool(mean.any()):
                yield "no player has an effect: the penalty removed all, or the score does not react to these fills"
            elif not bool((mean.abs() > 1.96 * fit.error).any()):
                yield "no player's 95 % bootstrap interval excludes 0: take more samples or fewer players"


def _keeps(units: Sequence[Units], tosses: Sequence[Tensor]) -> Iterator[Float[Tensor, "batch *space"]]:
    for row in zip(*tosses, strict=True):
        yield torch.stack([u.mask(shown.bool()) for u, shown in zip(units, row, strict=True)])


def _painted(units: Sequence[Units], values: Sequence[Tensor]) -> Float[Tensor, "batch 1 *space"]:
    """Each voxel with the value of its player."""
    return torch.stack([v[u.labels.cpu()][None] for u, v in zip(units, values, strict=True)])


def _likeness(probe: Probe, stream: Stream, unit: Units, shown: Tensor, item: int) -> Float[Tensor, " sample"]:
    """Cosine of the image with each of its masked copies, from sums over the players: no copy is made."""
    x, fill = (t[probe.model.primary][item].double().cpu() for t in (probe.inputs, stream.fill))

    def total(values: Tensor) -> Tensor:
        return unit.means(values.sum(0)) * unit.sizes

    whole, mixed, hidden = total(x * x), total(x * fill), total(fill * fill)
    along = shown @ whole + (1 - shown) @ mixed
    length = (shown @ whole + (1 - shown) @ hidden).sqrt() * whole.sum().sqrt()
    return torch.where(length > 0, along / length.clamp_min(1e-300), torch.zeros_like(length))
