"""Methods that weight the activations of one layer (class activation maps)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Family, Level
from pellucid.core.explainer import LayerExplainer
from pellucid.core.explanation import Attribution
from pellucid.core.probe import Probe
from pellucid.core.space import axes, resize

_BLANK = "the map is blank: the layer holds no positive evidence for this target"


@dataclass(frozen=True)
class GradCAM(LayerExplainer):
    """Which coarse regions of a layer speak for the target: channels weighted by their mean gradient.

    ``ReLU(sum_k mean(g_k) A_k)``, upsampled linearly. Its voxels are the layer's cells, often centimeters wide: no
    statement is finer than the cell. Averaging the gradient can move evidence to places that do not feed the score,
    and small targets in a segmentation or at a coarse last layer are often missed.

    Returns:
        Attribution without negative values, in the target's unit per cell (up to the layer's averaging).

    Raises:
        UnknownLayer: no such layer, or it has no spatial extent.

    Source:
        selvaraju2017gradcam. The sum is not divided by its maximum: maps of different images stay comparable.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2), torch.nn.Flatten(), torch.nn.Linear(36, 2))
        >>> model, x, method = Model(net), torch.rand(1, 1, 8, 8), GradCAM()
        >>> a = method(Probe(model, x, ClassScore(1), method.needs(model, {"image": x})))
        >>> bool(a.maps["image"].min() >= 0)
        True
    """

    card: ClassVar[Card] = Card(
        family=Family.CAM,
        shows="coarse regions of one layer that speak for the target",
        caution="as coarse as the layer's cells; can highlight places that do not feed the score; misses small targets",
        equation=r"\mathrm{ReLU}\sum_k \Big(\tfrac1Z\sum_{ij} g^k_{ij}\Big) A^k",
        source="selvaraju2017gradcam",
        cost_note="none of its own: one forward and one backward to the layer, shared with every CAM",
        asks=frozenset({Ask.OUTPUT, Ask.ACTIVATION, Ask.LAYER_GRADIENT}),
        signed=False,
        level=Level.FEATURE_MAP,
    )

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        a, g = _wide(probe.activation(self.layer)), _wide(probe.layer_gradient(self.layer))
        combined = (g.mean(axes(g), keepdim=True) * a).sum(1, keepdim=True)
        warnings = () if bool((combined > 0).flatten(1).any(1).all()) else (_BLANK,)
        return _layer_map(probe, combined.relu(), signed=False, warnings=warnings)


@dataclass(frozen=True)
class HiResCAM(LayerExplainer):
    """Which coarse regions of a layer speak for and against the target, without moving evidence between places.

    ``sum_k g_k * A_k``, upsampled linearly. Where a single linear layer follows, the cells sum to the score (less the
    bias). Its voxels are the layer's cells: no statement is finer.

    Returns:
        Signed attribution in the target's unit per cell.

    Raises:
        UnknownLayer: no such layer, or it has no spatial extent.

    Source:
        draelos2020hirescam. The sign is kept; the authors' ReLU is a matter of display.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2), torch.nn.Flatten(), torch.nn.Linear(36, 2))
        >>> model, x, method = Model(net), torch.rand(1, 1, 8, 8), HiResCAM()
        >>> method(Probe(model, x, ClassScore(1), method.needs(model, {"image": x}))).cell
        (2.6666666666666665, 2.6666666666666665)
    """

    card: ClassVar[Card] = Card(
        family=Family.CAM,
        shows="coarse regions of one layer that speak for (positive) and against (negative) the target",
        caution="as coarse as the layer's cells; exact only where a single linear layer follows",
        equation=r"\sum_k g^k \odot A^k",
        source="draelos2020hirescam",
        cost_note="none of its own: one forward and one backward to the layer, shared with every CAM",
        asks=frozenset({Ask.OUTPUT, Ask.ACTIVATION, Ask.LAYER_GRADIENT}),
        signed=True,
        level=Level.FEATURE_MAP,
    )

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        a, g = _wide(probe.activation(self.layer)), _wide(probe.layer_gradient(self.layer))
        return _layer_map(probe, (g * a).sum(1, keepdim=True), signed=True)


def _wide(x: Tensor) -> Tensor:
    """Float32 at least, before products and sums: after autocast a layer's output has 8 bits."""
    return x if x.dtype == torch.float64 else x.float()


def _layer_map(probe: Probe, values: Tensor, signed: bool, warnings: tuple[str, ...] = ()) -> Attribution:
    """A layer's map on the primary input's grid; every CAM ends here, so all are upsampled alike."""
    name = probe.model.primary
    shape = probe.inputs[name].shape[2:]
    cell = tuple(n / m for n, m in zip(shape, values.shape[2:], strict=True))
    maps = {name: resize(values, shape)}
    return Attribution(maps=maps, unit=probe.target.unit, signed=signed, cell=cell, warnings=warnings)
