"""How far the map is from predicting what a change of the image does to the score."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from pellucid.core.card import Ask, Cost, MetricCard, Property
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.metric import Score
from pellucid.core.probe import Probe
from pellucid.core.space import per_item
from pellucid.core.sweep import Asking, Placed
from pellucid.metrics.faithfulness.filled import UNMOVED, FilledMetric, Plan, Reading, rounding, whole_score, without
from pellucid.metrics.maps import on_grid


@dataclass(frozen=True)
class Infidelity(FilledMetric):
    """How far the map's prediction of a change of the score is from the change, as a mean square over changes.

    ``mean of (beta I.A - (S(x) - S(x - I)))^2`` with ``beta = E[I.A D] / E[(I.A)^2]``, so that the map's unit does not
    count. ``box``: a random box or cube shows the fill, and A sums to contributions. ``noise``: Gaussian noise, shared
    by the channels, and A is a slope. Every change starts from x: none adds to the one before.

    Returns:
        Score in the target's unit squared, lower is better; undefined for a map that is not finite, or where no change
        moves the score.

    Raises:
        BadOption: fewer than two samples, or a size not above 0.

    Source:
        yeh2019fidelity.

    Example:
        >>> Infidelity(change="noise").settings()["scaled"]
        True
    """

    change: Annotated[Literal["box", "noise"], "box: contributions; noise: slopes (gradients)"] = "box"
    samples: Annotated[int, "changes that are tried"] = 50
    size: Annotated[float, "edge of a box as a share of each axis; noise as a share of the image's deviation"] = 0.25
    scaled: Annotated[bool, "whether the map may first be multiplied by the best factor"] = True

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="how far the map's prediction of a change of the score is from the change",
        caution="linear: parts that only matter together count as faults; a map of slopes needs change=noise",
        equation=r"E_I[(\beta\, I^T A - (S(x) - S(x - I)))^2]",
        source="yeh2019fidelity",
        cost_note="one forward per sample (and fill)",
        direction="lower",
        unit="target's unit squared",
        interval="0 or more",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def __post_init__(self) -> None:
        if self.change not in ("box", "noise"):
            raise BadOption(f"expected change box or noise, got {self.change!r}", "box suits maps of contributions")
        if self.samples < 2 or not 0 < self.size < (1 if self.change == "box" else torch.inf):
            raise BadOption(
                f"expected at least 2 samples and a size above 0 (a box: below 1), got {self.samples} and {self.size}",
                "50 and 0.25 are the defaults",
            )

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``."""
        return Cost(self.samples) if self.change == "noise" else super().cost(probe, explainer)

    def _masks(self, probe: Probe) -> int:
        return self.samples

    def _reasons(self, maps: Tensor) -> tuple[str, ...]:
        """A constant map predicts too: nothing, or the size of the change."""
        return tuple("" if f else "the map is not finite" for f in torch.isfinite(maps).flatten(1).all(1).tolist())

    def asking(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Asking:
        """See ``SweptMetric``."""
        maps = on_grid(answer, probe)
        if self.change == "box" or maps is None:
            return (yield from super().asking(probe, answer, explainer, region))
        reasons = self._reasons(maps)
        if all(reasons):
            return replace(Score.undefined(self, probe.batch, ""), reasons=reasons)
        (rows,) = yield (Placed(lambda: (x for x, _ in self._noisy(probe))),)
        values = without(maps, reasons).double()
        spread = self._spread(probe).flatten().double().cpu()
        sums = torch.stack([(values * n).flatten(1).sum(1) * spread for _, n in self._noisy(probe)])
        named = {"change": f"noise, {self.size:g} of the image's standard deviation", "unit": probe.target.unit}
        score = self._score(self._read(probe, sums, rows), reasons)
        return replace(score, detail={**score.detail, **named})

    def _plan(self, probe: Probe, maps: Tensor) -> Plan:
        maps = maps.double()

        def keeps() -> Iterator[Tensor]:
            return (keep.expand(probe.batch, *keep.shape) for keep in self._boxes(probe))

        def read(rows: Tensor) -> Reading:
            sums = torch.stack([(maps * (1 - keep)).flatten(1).sum(1) for keep in self._boxes(probe)])
            return self._read(probe, sums, rows)

        return Plan(keeps, read)

    def _read(self, probe: Probe, sums: Tensor, rows: Tensor) -> Reading:
        """From what the map predicts and the scores that there are, both "sample batch".

        Where no change moves the score, factor 0 would make any map a perfect one.
        """
        falls = whole_score(probe) - rows
        still = falls.abs().amax(0) <= rounding(probe, torch.cat([whole_score(probe)[None], rows]))
        power = sums.square().mean(0)
        best = torch.where(power > 0, (sums * falls).mean(0) / power.clamp_min(1e-300), 0.0)
        beta = best if self.scaled else torch.ones_like(best)
        values = (beta * sums - falls).square().mean(0)
        detail = {"beta": beta.tolist(), "without a map": falls.square().mean(0).tolist()}
        return Reading(values, detail, tuple(UNMOVED if one else "" for one in still.tolist()))

    def _boxes(self, probe: Probe) -> Iterator[Tensor]:
        """Masks "*space" with a box hidden; its place is even, so that boxes do not avoid the border."""
        generator = torch.Generator().manual_seed(probe.scene.seed)
        edges = [max(1, round(self.size * n)) for n in probe.grid.shape]
        for _ in range(self.samples):
            keep = torch.ones(probe.grid.shape)
            first = [
                int(torch.randint(n - e + 1, (), generator=generator)) for n, e in zip(keep.shape, edges, strict=True)
            ]
            keep[tuple(slice(f, f + e) for f, e in zip(first, edges, strict=True))] = 0
            yield keep

    def _noisy(self, probe: Probe) -> Iterator[tuple[Mapping[str, Tensor], Tensor]]:
        """Inputs ``x - I``, and the standard normal field "*space" that I is made of: the same for every item."""
        generator = torch.Generator().manual_seed(probe.scene.seed)
        name, spread = probe.model.primary, self._spread(probe)
        x = probe.inputs[name]
        for _ in range(self.samples):
            field = torch.randn(probe.grid.shape, generator=generator, dtype=torch.float64)
            yield {**probe.inputs, name: x - per_item(spread, x) * field.to(x)}, field

    def _spread(self, probe: Probe) -> Tensor:
        x = probe.inputs[probe.model.primary]
        return self.size * x.flatten(1).std(1)
