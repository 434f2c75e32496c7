"""Whether the map stays when the image is acquired a little differently."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from pellucid.core.acquiring import gamma, resampled, shaded, smeared, window
from pellucid.core.card import Ask, Cost, MetricCard, Property, shared_cost
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.metric import Score
from pellucid.core.probe import Probe
from pellucid.core.space import blur
from pellucid.core.sweep import Again, Asking, Moved, SweptMetric
from pellucid.metrics.maps import NO_MAP, on_grid
from pellucid.metrics.robustness.noise import Bank, difference, images_of, same_decision, unfit

_Knob = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AcquisitionStability(SweptMetric):
    """How far the map moves at worst when the image is noisier, softer, of another contrast, shaded or smeared.

    ``max over knobs q of ||A(q(x)) - A(x)||_2 / ||A(x)||_2``, one knob turned at a time by the strength given. Beside
    each knob's change of the map the detail has that of the score: a map may move where the model does. Knobs are
    simulated on the prepared image and simpler than a scanner; a strength without effect (0, or 1) leaves one out.

    Returns:
        Score from 0, lower is more stable; undefined for a map of zeros or an image of one value.

    Raises:
        BadOption: a strength outside its range, or no knob left.

    Source:
        hendrycks2019benchmarking, for corruptions of graded strength; the knobs are ours.

    Example:
        >>> sorted(AcquisitionStability(motion=1).knobs(0))
        ['bias field', 'blur', 'gamma', 'resampling', 'window']
    """

    noise: Annotated[float, "standard deviation of added noise, as a share of the intensity range of the body"] = 0.02
    blur: Annotated[float, "standard deviation of a Gaussian blur, in voxels of the network's grid"] = 0.7
    gamma: Annotated[float, "exponent of the intensities between the image's minimum and maximum"] = 1.2
    window: Annotated[float, "share of the intensity range that a narrower window cuts, half at either end"] = 0.05
    bias: Annotated[float, "share by which a smooth field makes one side brighter and the other darker"] = 0.1
    resampling: Annotated[float, "by how much coarser the grid is, in voxels of the network's"] = 1.5
    motion: Annotated[int, "odd number of voxels along the last axis that the image is smeared over"] = 3

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.ROBUSTNESS,
        shows="how far the map moves at worst when the image is acquired a little differently",
        caution="knobs are simulated and simpler than a scanner; a map that ignores the model may hardly move",
        equation=r"\max_q\, \Vert A(q(x)) - A(x) \Vert_2 \,/\, \Vert A(x) \Vert_2",
        source="hendrycks2019benchmarking",
        cost_note="one more explanation per knob",
        direction="lower",
        interval="0 to any",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def __post_init__(self) -> None:
        shares = (self.noise, self.window, self.bias)
        if not all(0 <= s < 1 for s in shares) or self.blur < 0 or self.gamma <= 0 or self.resampling < 1:
            raise BadOption(
                f"expected noise, window and bias within [0, 1), blur of at least 0, gamma above 0 and resampling of "
                f"at least 1, got {shares}, {self.blur}, {self.gamma} and {self.resampling}",
                "see the defaults",
            )
        if self.motion < 1 or self.motion % 2 == 0:
            raise BadOption(f"expected an odd number of voxels of motion, got {self.motion}", "3 is the default")
        if not self.knobs(0) and not self.noise:
            raise BadOption("no knob is left to turn", "give one a strength")

    def knobs(self, rank: int) -> dict[str, _Knob]:
        """What is done to an image, by name; noise is not among them, for it is drawn.

        Args:
            rank: spatial axes.
        """
        every: dict[str, tuple[bool, _Knob]] = {
            "blur": (self.blur > 0, lambda x: blur(x, [self.blur] * rank)),
            "gamma": (self.gamma != 1, lambda x: gamma(x, self.gamma)),
            "window": (self.window > 0, lambda x: window(x, self.window)),
            "bias field": (self.bias > 0, lambda x: shaded(x, self.bias)),
            "resampling": (self.resampling > 1, lambda x: resampled(x, self.resampling)),
            "motion": (self.motion > 1, lambda x: smeared(x, self.motion)),
        }
        return {name: knob for name, (on, knob) in every.items() if on}

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``."""
        turned = len(self.knobs(probe.grid.rank)) + (self.noise > 0)
        return (shared_cost(explainer.card.asks) + explainer.cost(probe)) * turned

    def asking(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Asking:
        """See ``SweptMetric``."""
        maps = on_grid(answer, probe)
        if maps is None:
            return Score.undefined(self, probe.batch, NO_MAP)
        reasons = unfit(probe, maps, Bank("gaussian", 1.0, 1))
        if all(reasons):
            return replace(Score.undefined(self, probe.batch, ""), reasons=reasons)
        here, knobs = maps.double(), self.knobs(probe.grid.rank)
        size, before = here.flatten(1).norm(dim=1), probe.baseline_score.double().cpu()

        def turned() -> Iterator[Mapping[str, Tensor]]:
            if self.noise:
                yield from Bank("gaussian", self.noise, 1).inputs(probe)
            for knob in knobs.values():
                yield {**probe.inputs, **{n: knob(x) for n, x in images_of(probe.inputs).items()}}

        def reduce(again: Again) -> tuple[Tensor, Tensor, Tensor]:
            change = difference(probe, again, here).norm(dim=1) / size
            return change, again.score.double().cpu() - before, same_decision(probe, again.output)

        (found,) = yield (Moved(turned, reduce),)
        names = [*(["noise"] if self.noise else []), *knobs]
        values = torch.stack([change for change, _, _ in found]).amax(0)
        reasons = tuple(
            r or ("" if ok else "the map of a changed image is not finite")
            for r, ok in zip(reasons, torch.isfinite(values).tolist(), strict=True)
        )
        values[[bool(r) for r in reasons]] = torch.nan
        detail = {name: _row(*one) for name, one in zip(names, found, strict=True)}
        return Score(self.name, values, reasons, self.settings(), {"knobs": detail, "unit": probe.target.unit})


def _row(change: Tensor, score: Tensor, same: Tensor) -> dict[str, Any]:
    return {
        "change of the map": change.tolist(),
        "change of the score": score.tolist(),
        "changes the decision": (~same).tolist(),
    }
