"""One bank of noisy copies for every metric of robustness: equal settings ask for the same inputs, once in a sweep."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.card import Cost, shared_cost
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.intensity import body_range
from pellucid.core.metric import Score
from pellucid.core.probe import Probe
from pellucid.core.sweep import Again, Asking, SweptMetric
from pellucid.metrics.maps import NO_MAP, on_grid

NO_NOISE = "the image has no range of intensities, so noise has no unit"
_NOT_FINITE = "the map of a noisy copy is not finite"


@dataclass(frozen=True)
class Bank:
    """Noise of both signs for every image of a case, the same for all items of a batch.

    Args:
        shape: uniform in a box around the image (an L-infinity ball), or Gaussian.
        size: half width of the box, or standard deviation, as a share of the intensity range of each channel's body.
        samples: noisy copies.
    """

    shape: Literal["uniform", "gaussian"]
    size: float
    samples: int

    @property
    def words(self) -> str:
        """For the detail of a score."""
        kind = "uniform within" if self.shape == "uniform" else "Gaussian, standard deviation"
        return f"{kind} {self.size:g} of the intensity range of the body, {self.samples} copies"

    def spread(self, probe: Probe) -> Mapping[str, Float[Tensor, "batch channel"]]:
        """Size of the noise by image, in network units; 0 where an image has a single value."""
        images = images_of(probe.inputs)
        ranges = probe.once("intensity ranges", lambda: {n: body_range(x) for n, x in images.items()})
        return {n: self.size * r for n, r in ranges.items()}

    def inputs(self, probe: Probe) -> Iterator[Mapping[str, Tensor]]:
        """Noisy versions of the batch, drawn on the CPU from the scene's seed, so that every device draws alike."""
        generator, spread = torch.Generator().manual_seed(probe.scene.seed), self.spread(probe)
        for _ in range(self.samples):
            drawn = {n: self._draw(probe.inputs[n].shape[1:], generator) for n in spread}
            yield {
                n: x + spread[n].view(*x.shape[:2], *(1,) * (x.ndim - 2)) * drawn[n].to(x) if n in drawn else x
                for n, x in probe.inputs.items()
            }

    def keys(self, probe: Probe) -> tuple[str, ...]:
        """A name for each noisy version of a probe's batch, the same where the version is."""
        words = f"{self.shape} noise {self.size!r} seed {probe.scene.seed}"
        return tuple(f"{words} copy {i}" for i in range(self.samples))

    def _draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        if self.shape == "gaussian":
            return torch.randn(shape, generator=generator)
        return 2 * torch.rand(shape, generator=generator) - 1

    def report(self, probe: Probe) -> dict[str, Any]:
        """What the noise was, in words and numbers: per item and channel, in the image's own unit where it is known."""
        spread, affine = self.spread(probe), probe.scene.affine
        known = {n: s.cpu() * torch.tensor(affine[n][1]) for n, s in spread.items() if n in affine}
        found: dict[str, Any] = {
            "noise": self.words,
            "noise in network units": {n: s.tolist() for n, s in spread.items()},
        }
        return found | ({"noise in the unit of the image": {n: s.tolist() for n, s in known.items()}} if known else {})


def images_of(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs that are images, not covariates."""
    return {n: x for n, x in inputs.items() if x.ndim > 2 and x.is_floating_point()}


def moved_by(probe: Probe, inputs: Mapping[str, Tensor]) -> Float[Tensor, "batch entry"]:
    """How far every image of a case was moved, entry by entry, in network units."""
    images = images_of(probe.inputs)
    return torch.cat([(inputs[n].to(x) - x).flatten(1).cpu().double() for n, x in images.items()], 1)


def entries(probe: Probe) -> Float[Tensor, "batch entry"]:
    """Every image of a case, entry by entry, in network units."""
    return torch.cat([x.flatten(1).cpu().double() for x in images_of(probe.inputs).values()], 1)


def same_decision(probe: Probe, output: Tensor) -> Bool[Tensor, " batch"]:
    """Whether a classifier decides as at the unperturbed input; of independent labels, the explained one counts.

    A segmentation or a measured value has no one decision: always so.
    """
    spec, label = probe.model.output, probe.target.label
    if spec.task != "classification":
        return torch.ones(len(output), dtype=torch.bool)
    before, after = spec.predicted(probe.output), spec.predicted(output)
    if spec.activation == "sigmoid" and label is not None and label < before.shape[1]:
        before, after = before[:, [label]], after[:, [label]]
    return (before == after).flatten(1).all(1).cpu()


@dataclass(frozen=True)
class NoiseMetric(SweptMetric, ABC, abstract=""):
    """A number from how the map differs at noisy copies of the image."""

    def __post_init__(self) -> None:
        bank = self._bank()
        if bank.samples < 1 or not 0 < bank.size <= 1:
            raise BadOption(
                f"expected at least 1 noisy copy and noise above 0 and at most 1 of the intensity range, "
                f"got {bank.samples} and {bank.size}",
                "10 copies and 0.05 are usual",
            )

    @abstractmethod
    def _bank(self) -> Bank:
        """The noise."""

    @abstractmethod
    def _scored(self, probe: Probe, maps: Float[Tensor, "batch *space"], bank: Bank) -> Asking:
        """Ask, and score a map that is there."""

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``."""
        return (shared_cost(explainer.card.asks) + explainer.cost(probe)) * self._bank().samples

    def asking(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Asking:
        """See ``SweptMetric``."""
        maps = on_grid(answer, probe)
        if maps is None:
            return Score.undefined(self, probe.batch, NO_MAP)
        bank = self._bank()
        reasons = unfit(probe, maps, bank)
        if all(reasons):
            return replace(Score.undefined(self, probe.batch, ""), reasons=reasons)
        score = yield from self._scored(probe, maps.double(), bank)
        reasons = tuple(r or said for r, said in zip(reasons, score.reasons, strict=True))
        score.values[[bool(r) for r in reasons]] = torch.nan
        return replace(score, reasons=reasons)


@dataclass(frozen=True)
class BoxNoise(NoiseMetric, ABC, abstract=""):
    """Uniform noise within a small box around the image: the bank that most metrics share."""

    samples: Annotated[int, "noisy copies"] = 10
    radius: Annotated[float, "half width of the uniform noise, as a share of the intensity range of the body"] = 0.05

    def _bank(self) -> Bank:
        return Bank("uniform", self.radius, self.samples)


def unfit(probe: Probe, maps: Float[Tensor, "batch *space"], bank: Bank) -> tuple[str, ...]:
    """Why the change of a map under noise means nothing, by item; empty where it means something."""
    spans = torch.cat([s.cpu() for s in bank.spread(probe).values()], 1).amax(1).tolist()
    return tuple(
        "the map is not finite"
        if not bool(torch.isfinite(m).all())
        else "the map is zero everywhere: its change has no unit"
        if not bool(m.any())
        else ""
        if span > 0
        else NO_NOISE
        for m, span in zip(maps, spans, strict=True)
    )


@dataclass(frozen=True, eq=False)
class Seen:
    """What is kept of one noisy copy, per item.

    Args:
        value: of the metric.
        same: whether the decision is that of the image.
    """

    value: Float[Tensor, " batch"]
    same: Bool[Tensor, " batch"]


def difference(probe: Probe, again: Again, maps: Float[Tensor, "batch *space"]) -> Float[Tensor, "batch voxel"]:
    """The map there less the map here, voxel by voxel; NaN where there is no map on the grid."""
    there = on_grid(again.answer, probe)
    here = maps.flatten(1)
    return torch.full_like(here, torch.nan) if there is None else there.double().flatten(1) - here


def tabled(seen: list[Seen], what: str) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Values and decisions as "copy batch", and what the detail says of them.

    Args:
        seen: of every copy.
        what: the values are, for the detail.
    """
    values, same = torch.stack([s.value for s in seen]), torch.stack([s.same for s in seen])
    return values, same, {what: values.T.tolist(), "copies that change the decision": (~same).sum(0).tolist()}


def broken(values: Float[Tensor, "copy batch"]) -> tuple[str, ...]:
    """Why copies gave no value, by item."""
    return tuple("" if ok else _NOT_FINITE for ok in torch.isfinite(values).all(0).tolist())
