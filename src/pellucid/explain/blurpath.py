"""A path from a blurred copy to the image: the reference is the image itself without its structure."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import pi, prod
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family
from pellucid.core.errors import BadOption, CannotDo
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.masking import Stream
from pellucid.core.probe import Probe
from pellucid.core.space import axes
from pellucid.explain.path import gap_warning

_SHARE = 1 / 6  # of the image's edge: what is smaller than a third of the image across has gone


@dataclass(frozen=True)
class BlurIG(Explainer):
    """The contribution of each voxel while structure comes back from a blurred copy of the image, coarse to fine.

    The integral of ``dS/dL * dL/ds`` over the blur ``s`` from ``sigma_max`` to 0, where ``L(s)`` is the image blurred:
    between neighboring blurs the path is straight, the gradient that of its midpoint. The values sum to
    ``S(x) - S(L(sigma_max))`` up to the completeness gap. No fill is chosen, yet a blurred brain can look like edema,
    and what is broader than the blur (a whole opaque lung) gets nothing. No gray value beyond the image's own arises.

    Returns:
        Signed attribution in the target's unit; none for inputs without space, which are held fixed.

    Raises:
        BadOption: fewer than one step, or a blur that is not positive.
        CannotDo: no input is an image.

    Source:
        xu2020attribution. The blur is diffusion on the voxels themselves (lindeberg1990scale), with closed edges.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> model, x = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))), torch.rand(1, 1, 4, 4)
        >>> a = BlurIG(steps=2, sigma_max=3.0)(Probe(model, x, ClassScore(1)))
        >>> bool(torch.allclose(a.maps["image"].sum(), a.difference, atol=1e-5))
        True
    """

    steps: Annotated[int, "pieces of the path, equal in the root of sigma: finer toward the sharp end"] = 32
    sigma_max: Annotated[
        float | None, "the strongest blur's standard deviation, in the grid's unit (mm, or px); None: 1/6 of the edge"
    ] = None

    card: ClassVar[Card] = Card(
        family=Family.PATH,
        shows="the contribution of each voxel as the image sharpens, to the score's difference from its blurred copy",
        caution="blind to what is broader than the blur, and a blurred image can itself look like disease; noisy",
        equation=r"\int_{\sigma_{\max}}^{0} \frac{\partial S(L_\sigma)}{\partial L_\sigma}\odot"
        r"\frac{\partial L_\sigma}{\partial \sigma}\,\mathrm{d}\sigma",
        source="xu2020attribution",
        cost_note="one forward and backward per step, and one forward of the blurred image",
        asks=frozenset({Ask.OUTPUT}),
        signed=True,
        completes=True,
    )

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadOption(f"expected at least 1 step, got {self.steps}", "32 is usual")
        if self.sigma_max is not None and not self.sigma_max > 0:
            raise BadOption(
                f"expected a blur above 0, got {self.sigma_max}", "give a length in mm (or px) of many voxels"
            )

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        return Cost(self.steps + 1, self.steps)

    def stand_in(self, probe: Probe) -> str | None:
        """See ``Explainer``."""
        return f"blur, sigma {self._strongest(probe):g}"

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        spaces = {
            n: scale_space(x, self._spacing(probe, n))
            for n, x in probe.inputs.items()
            if x.ndim > 2 and x.is_floating_point()
        }
        if not spaces:
            raise CannotDo(f"none of the inputs {list(probe.inputs)} is an image to blur", "use IntegratedGradients")
        sigmas = [self._strongest(probe) * (1 - i / self.steps) ** 2 for i in range(self.steps + 1)]
        maps = {n: torch.zeros_like(probe.inputs[n]) for n in spaces}
        changes: deque[Mapping[str, Tensor]] = deque()  # of the points whose gradients are still to come
        points = _midpoints(spaces, sigmas, changes)
        gradients = Stream(probe, gradient=True).gradients({**probe.inputs, **point} for point in points)
        for gradient in gradients:
            for n, change in changes.popleft().items():
                maps[n].addcmul_(gradient[n], change)
        blurred = {**probe.inputs, **{n: space.at(sigmas[0]) for n, space in spaces.items()}}
        answer = Attribution(
            maps=maps,
            unit=probe.target.unit,
            signed=True,
            cell=(1.0,) * probe.grid.rank,
            difference=probe.baseline_score - probe.score(blurred),
        )
        fixed = tuple(f"input {n!r} was held fixed: it cannot be blurred" for n in probe.inputs if n not in spaces)
        return replace(answer, warnings=gap_warning(answer, f"{self.steps} steps", "use more steps") + fixed)

    def _strongest(self, probe: Probe) -> float:
        """The strongest blur in the grid's unit."""
        grid = probe.grid
        edge = prod(n * s for n, s in zip(grid.shape, grid.spacing, strict=True)) ** (1 / grid.rank)
        return self.sigma_max or float(f"{_SHARE * edge:.2g}")

    def _spacing(self, probe: Probe, name: str) -> Sequence[float]:
        grid = probe.scene.grids.get(name)
        return grid.spacing if grid else (1.0,) * (probe.inputs[name].ndim - 2)


def _midpoints(
    spaces: Mapping[str, "ScaleSpace"], sigmas: Sequence[float], changes: deque[Mapping[str, Tensor]]
) -> Iterator[dict[str, Tensor]]:
    """The middle of each piece of the path; how far the piece goes is left in ``changes``."""
    start = {n: space.at(sigmas[0]) for n, space in spaces.items()}
    for sigma in sigmas[1:]:
        end = {n: space.at(sigma) for n, space in spaces.items()}
        changes.append({n: end[n] - start[n] for n in spaces})
        yield {n: torch.lerp(start[n], end[n], 0.5) for n in spaces}
        start = end


@dataclass(frozen=True, eq=False)
class ScaleSpace:
    """An image at every scale: what diffusion makes of it when nothing leaves through its edges.

    Args:
        image: "batch channel *space".
        spacing: of the voxels, along each axis.
        waves: cosines along each axis, one a row.
        shares: of each product of cosines in the image.
    """

    image: Tensor
    spacing: Sequence[float]
    waves: Sequence[Tensor]
    shares: Tensor

    def at(self, sigma: float) -> Tensor:
        """The image blurred by ``sigma``, in the unit of the spacing: positive weights, exactly this variance.

        The wave k of n voxels decays by ``exp((sigma / spacing)^2 (cos(pi k / n) - 1))``: sampled Gaussians are too
        narrow below one voxel, and fold into the image where they reach beyond it.
        """
        if sigma == 0:
            return self.image
        out = self.shares
        for axis, wave, spacing in zip(axes(out), self.waves, self.spacing, strict=True):
            steps = torch.arange(len(wave), dtype=torch.float64)
            decay = torch.exp((sigma / spacing) ** 2 * (torch.cos(pi * steps / len(wave)) - 1))
            out = _along(out, wave.T * decay.to(wave), axis)
        return out


def scale_space(x: Tensor, spacing: Sequence[float]) -> ScaleSpace:
    """Prepare an image for blurs of any strength.

    Args:
        x: "batch channel *space".
        spacing: of its voxels, along each axis.
    """
    waves = [_cosines(n).to(x) for n in x.shape[2:]]
    shares = x
    for axis, wave in zip(axes(x), waves, strict=True):
        shares = _along(shares, wave, axis)
    return ScaleSpace(x, spacing, waves, shares)


def _cosines(n: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II) of ``n`` voxels, one wave a row."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    waves = torch.cos(pi * k * (i + 0.5) / n) * (2 / n) ** 0.5
    waves[0] /= 2**0.5
    return waves


def _along(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """A matrix applied along one axis."""
    return (x.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
