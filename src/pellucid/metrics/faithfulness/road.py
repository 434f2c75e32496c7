"""Removal whose trace is hard to see: hidden voxels show a noisy linear mean of their neighbors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
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
from pellucid.core.sweep import Asking, Placed, SweptMetric
from pellucid.metrics.faithfulness.filled import whole_score, without
from pellucid.metrics.faithfulness.imputation import impute
from pellucid.metrics.maps import NO_MAP, blank_reasons, on_grid, ranked


@dataclass(frozen=True)
class ROAD(SweptMetric):
    """How far the score falls when the map's top voxels are replaced by a noisy mean of their neighbors.

    ``mean over t = 10 ... 90 % of S(x) - S(x with the top t imputed)``: hidden voxels solve one linear system, so that
    the shape of what was removed says little by itself. Smooth structures survive wherever their surroundings remain.

    Returns:
        Score in the target's unit; higher is better (``least``: lower). Undefined for a constant map.

    Raises:
        BadOption: no steps, negative noise or an unknown order.

    Source:
        rong2022road. Deviations: the fall of a case's score, not the accuracy over cases; in a volume 26 neighbors.

    Example:
        >>> ROAD(steps=4).settings()["order"]
        'most'
    """

    steps: Annotated[int, "shares of voxels that are imputed, even between 0 and 1 without both"] = 9
    noise: Annotated[float, "on imputed voxels, as a share of the image's standard deviation"] = 0.01
    order: Annotated[Literal["most", "least"], "which voxels go first: the most relevant, or the least"] = "most"

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.FAITHFULNESS,
        shows="how far the score falls when the map's top voxels are replaced by a noisy mean of their neighbors",
        caution="smooth structures grow back from their surroundings; large shares leave a blur",
        equation=r"\frac{1}{L}\sum_{k=1}^{L} (S(x) - S(x_{\mathrm{top}\,t_k\;\mathrm{imputed}}))",
        source="rong2022road",
        cost_note="one forward per step, and a sparse linear system",
        direction="higher",
        unit="target's unit",
        interval="any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.noise >= 0 or self.order not in ("most", "least"):
            raise BadOption(
                f"expected at least 1 step, noise of 0 or more and order most or least, "
                f"got {self.steps}, {self.noise} and {self.order!r}",
                "9 steps and noise 0.01 are the defaults",
            )

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``."""
        return Cost(self.steps)

    def asking(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Asking:
        """See ``SweptMetric``."""
        maps = on_grid(answer, probe)
        if maps is None:
            return Score.undefined(self, probe.batch, NO_MAP)
        reasons = blank_reasons(maps)
        if all(reasons):
            return replace(Score.undefined(self, probe.batch, ""), reasons=reasons)
        values = ranked(without(maps, reasons)).flatten(1)
        order = values.argsort(dim=1, descending=True, stable=True)
        order = order if self.order == "most" else order.flip(1)

        @cache  # a system is solved once, however often the sweep looks at the question
        def made(step: int) -> Mapping[str, Tensor]:
            return self._imputed(probe, order, step)

        def inputs() -> Iterator[Mapping[str, Tensor]]:
            return map(made, range(1, self.steps + 1))

        (rows,) = yield (Placed(inputs),)
        falls = whole_score(probe) - rows
        falls[:, [bool(r) for r in reasons]] = torch.nan
        share = [step / (self.steps + 1) for step in range(1, self.steps + 1)]
        fill = f"noisy linear imputation, noise {self.noise:g} of the image's standard deviation"
        detail = {"share": share, "falls": falls.T.tolist(), "infill": fill, "unit": probe.target.unit}
        return Score(self.name, falls.mean(0), reasons, self.settings(), detail)

    def _imputed(self, probe: Probe, order: Tensor, step: int) -> Mapping[str, Tensor]:
        """Every image input on the map's grid, with the same voxels imputed."""
        count = min(order.shape[1] - 1, max(1, round(step * order.shape[1] / (self.steps + 1))))
        hidden = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :count], True)
        hidden = hidden.view(-1, *probe.grid.shape)
        draw = torch.Generator().manual_seed(probe.scene.seed * 1000 + step)
        return {
            name: self._filled(x, hidden, probe.grid.spacing, draw) if x.shape[2:] == hidden.shape[1:] else x
            for name, x in probe.inputs.items()
        }

    def _filled(self, x: Tensor, hidden: Tensor, spacing: tuple[float, ...], draw: torch.Generator) -> Tensor:
        """The noise is one field for all items, so that an item alone gets what it gets in a batch."""
        field = torch.randn(x.shape[1:], generator=draw, dtype=torch.float64)
        out = x.detach().cpu().double().clone()
        for item, where in zip(out, hidden, strict=True):
            spread = self.noise * float(item.std())
            values = torch.from_numpy(impute(item.numpy(), where.numpy(), spacing))
            item[:, where] = values.T + spread * field[:, where]
        return out.to(x)
