"""Morris screening over how an image was acquired: noise, blur, contrast, shading."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from pellucid.core.acquiring import gamma, shaded
from pellucid.core.card import Ask, Card, Family, Level
from pellucid.core.cohort import Batch, Cohort
from pellucid.core.errors import BadOption
from pellucid.core.explainer import CohortExplainer
from pellucid.core.explanation import Effects
from pellucid.core.model import Model
from pellucid.core.space import axes, blur
from pellucid.explain.cohort import INTERVAL, effect, ranked

_LEVELS = 4
_STEP = 2 / 3  # of the range of a knob: Morris' choice for four levels
_APART = 1_000_003  # seeds of cases: those of two runs with neighboring seeds do not meet
_KNOBS = ("noise", "blur", "gamma", "bias field")


@dataclass(frozen=True)
class AcquisitionSensitivity(CohortExplainer):
    """How much the score moves when images are noisier, blurred, darker or shaded, as another scanner makes them.

    Each knob runs from 0 (as acquired) to 1 (the strength given). Along each of ``r`` random trajectories on four
    levels every knob is moved by 2/3 once: ``EE = (S(after) - S(before)) / (2/3)``. A row is the mean magnitude (mu*)
    over cases and trajectories; mu is signed, and sigma above mu means that knobs act together or bend. Changes are
    made on the network's grid, after the preparation of the image.

    Returns:
        Effects in the target's unit for the whole range of a knob, with a bootstrap interval over cases.

    Raises:
        BadOption: one case, fewer than two trajectories, or a strength that is negative (gamma: below 1).

    Source:
        morris1991factorial, with campolongo2007effective for mu*.

    Example:
        >>> from pellucid.core.cohort import blocks_of
        >>> from pellucid.core.target import ClassScore
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)))
        >>> cases = Cohort({"image": torch.rand(5, 1, 8, 8)}, ClassScore(1), blocks_of((8, 8), 2))
        >>> sorted(row.name for row in AcquisitionSensitivity(trajectories=2)(model, cases).rows)
        ['bias field', 'blur', 'gamma', 'noise']
    """

    trajectories: Annotated[int, "random orders in which all knobs are moved"] = 6
    noise: Annotated[float, "standard deviation of added noise, in those of the image itself"] = 0.2
    blur: Annotated[float, "standard deviation of a Gaussian blur, in voxels of the network's grid"] = 1.0
    gamma: Annotated[float, "exponent of the intensities between the image's minimum and maximum, from 1"] = 1.5
    bias: Annotated[float, "share by which a smooth field makes one side brighter and the other darker"] = 0.2

    card: ClassVar[Card] = Card(
        family=Family.PERTURBATION,
        shows="how much the score moves when images are noisier, blurred, of another contrast or shaded",
        caution="knobs are simulated on the prepared image and simpler than a scanner; strengths are a choice",
        equation=r"\mu^*_j = \frac{1}{Nr}\sum_{n,t} |S(x_n;\, q_t + \Delta e_j) - S(x_n;\, q_t)| / \Delta",
        source="morris1991factorial",
        cost_note="five forwards per case and trajectory",
        asks=frozenset({Ask.OUTPUT}),
        signed=False,
        stochastic=True,
        scope="global",
        level=Level.PIXEL,
        attribution=False,
        agnostic=True,
    )

    def __post_init__(self) -> None:
        if self.trajectories < 2:
            raise BadOption(f"expected at least 2 trajectories, got {self.trajectories}", "6 to 20 are usual")
        if min(self.noise, self.blur, self.bias) < 0 or self.gamma < 1:
            raise BadOption("expected strengths of at least 0 (gamma: 1)", "a knob of strength 0 is not moved")

    def __call__(self, model: Model, cases: Cohort) -> Effects:
        """See ``CohortExplainer``."""
        cases.require(2, self.name)
        opening, seed = cases.opened(model), cases.scene.seed
        paths = designs(len(_KNOBS), self.trajectories, seed)
        scores = opening.each("acquired", lambda batch: self._along(batch, model.primary, paths, seed), str)
        found: list[list[Tensor]] = [[] for _ in _KNOBS]
        for path, values in zip(paths, scores.view(cases.size, len(paths), -1).unbind(1), strict=True):
            for place, (low, high) in enumerate(pairwise(path)):
                knob = int((high != low).nonzero()[0])
                found[knob].append((values[:, place + 1] - values[:, place]) / float(high[knob] - low[knob]))
        rows = []
        for knob, effects in zip(_KNOBS, found, strict=True):
            each = torch.stack(effects)  # trajectory, case
            more = {"mu": float(each.mean()), "sigma over trajectories": float(each.std(0).mean())}
            rows.append(effect(knob, each.abs().mean(0), seed, more))
        strengths = f"noise {self.noise:g} sd, blur {self.blur:g} voxels, gamma {self.gamma:g}, bias {self.bias:.0%}"
        return Effects(
            rows=ranked(rows),
            measure="mean magnitude of the score's change over the range of a knob (mu*)",
            unit=opening.unit,
            interval=INTERVAL,
            said=(f"ranges: {strengths}; {self.trajectories} trajectories on {_LEVELS} levels",),
            warnings=("the knobs are simulated on the prepared image: a scanner changes more than these",),
            spent=opening.spent,
        )

    def _along(self, batch: Batch, name: str, paths: Tensor, seed: int) -> Tensor:
        """The score of each case at every stop of every path: "case stop"."""
        x = batch.inputs[name]
        stain = torch.stack([noise_of(case, x[0], seed) for case in batch.cases]).to(x)
        stops = (self.acquired(x, row.tolist(), stain) for row in paths.flatten(0, 1))  # never all of them in memory
        return torch.stack([batch.probe.score({**batch.inputs, name: stop}) for stop in stops], 1)

    def acquired(self, x: Tensor, knobs: list[float], stain: Tensor) -> Tensor:
        """Images with every knob at its place in [0, 1]: contrast, shading, blur, noise, in this order.

        Args:
            x: "case channel *space".
            knobs: noise, blur, gamma, bias field.
            stain: noise of unit standard deviation, shaped as ``x``.
        """
        noise, soft, dark, shade = knobs
        y = gamma(x, 1 + dark * (self.gamma - 1)) if dark else x
        y = shaded(y, shade * self.bias) if shade else y
        if soft and self.blur:
            y = blur(y, [soft * self.blur] * (x.ndim - 2))
        return y + noise * self.noise * x.std(axes(x), keepdim=True) * stain if noise else y


def noise_of(case: int, like: Tensor, seed: int) -> Tensor:
    """Noise of unit standard deviation for one case, the same whatever cases are with it.

    Args:
        case: its place.
        like: its image.
        seed: of the draws.
    """
    draw = torch.Generator().manual_seed(seed * _APART + case)
    return torch.randn(like.shape, generator=draw, dtype=like.dtype)


def designs(count: int, repeats: int, seed: int) -> Tensor:
    """Trajectories on four levels in [0, 1], each knob moved once by 2/3: "trajectory count + 1 knob".

    Args:
        count: of knobs.
        repeats: trajectories.
        seed: of the draws.
    """
    draw, paths = torch.Generator().manual_seed(seed), []
    for _ in range(repeats):
        low = torch.randint(0, 2, (count,), generator=draw).double() / (_LEVELS - 1)
        up = torch.rand(count, generator=draw) < 0.5
        state = torch.where(up, low, low + _STEP)
        path = [state.clone()]
        for knob in torch.randperm(count, generator=draw):
            state[knob] = low[knob] + (_STEP if up[knob] else 0.0)
            path.append(state.clone())
        paths.append(torch.stack(path))
    return torch.stack(paths)
