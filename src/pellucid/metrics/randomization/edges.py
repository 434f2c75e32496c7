"""The control that must fail: edges of the image, which know nothing of a model."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from pellucid.core.card import Card, Family
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.probe import Probe
from pellucid.metrics.randomization.alike import Measure

_SIGMA = 1.0  # voxels of the smoothing before the slope is taken
_ROUNDING = 1e-9  # of the largest value: a flat background has ties, not an order that rounding gave it


def edge_map(probe: Probe) -> Float[Tensor, "batch *space"]:
    """How steep the primary image is, over a Gaussian of one voxel, summed over channels."""
    images = probe.inputs[probe.model.primary].detach().cpu().double().numpy()
    steep = np.stack(
        [sum(ndimage.gaussian_gradient_magnitude(channel, _SIGMA) for channel in image) for image in images]
    )
    largest = np.abs(images).reshape(len(images), -1).max(1).reshape(-1, *(1,) * (steep.ndim - 1))
    return torch.from_numpy(np.where(steep > _ROUNDING * largest, steep, 0.0))


def likeness_to_edges(measure: Measure, maps: Float[Tensor, "batch *space"], probe: Probe) -> list[float]:
    """The similarity of a map's magnitude to the edges of its image, for the detail of a score: 1 is an edge map."""
    return Measure(measure.by, signed=False).between(maps.abs(), probe.once("edges", lambda: edge_map(probe))).tolist()


@dataclass(frozen=True)
class EdgeDetector(Explainer, abstract=""):
    """Show the edges of the image, whatever the model: a control that every randomization metric must fail.

    It is no method and is listed nowhere; a map that scores as this one does says as little about the model.

    Example:
        >>> EdgeDetector().name
        'EdgeDetector'
    """

    card: ClassVar[Card] = Card(
        family=Family.GRADIENT,
        shows="where the image changes",
        caution="knows nothing of the model",
        equation=r"\Vert \nabla (G_1 * x) \Vert",
        source="adebayo2018sanity",
        cost_note="none",
        asks=frozenset(),
        signed=False,
    )

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        shape: Any = probe.inputs[probe.model.primary].shape[2:]
        maps = {probe.model.primary: probe.once("edges", lambda: edge_map(probe))[:, None]}
        return Attribution(maps, probe.target.unit, signed=False, cell=(1.0,) * len(shape))
