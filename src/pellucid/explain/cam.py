"""Methods that weight the activations of one layer (class activation maps)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Family, Level
from pellucid.core.explainer import LayerExplainer
from pellucid.core.explanation import Attribution
from pellucid.core.probe import Probe
from pellucid.core.space import axes
from pellucid.explain.cells import layer_map, positive_map, read, weighted

_ASKS = frozenset({Ask.OUTPUT, Ask.ACTIVATION, Ask.LAYER_GRADIENT})
_SHARED = "none of its own: one forward and one backward to the layer, shared with every CAM"
_TINY = 1e-30  # of a divisor that is zero only where the dividend is
_SINGULAR = 1e-12  # of alpha's denominator, which has no unit
_CANCELED = 1e-6  # of the sum of magnitudes: below it a channel's sum is rounding error
_CLOSE = 1e-2  # of the sum of magnitudes: below it the reader is warned
_LEAST_DENOMINATOR = 0.5  # it is 2 or more where a channel's sum is not negative; at 0 alpha turns through infinity
_REVERSED = (
    "the layer's activations are negative on the whole in some channels, where GradCAMPlusPlus's weights are huge "
    "or reversed: choose a layer behind a ReLU"
)
_CANCELING = (
    "some channels' activations nearly cancel or are negative on the whole, where XGradCAM's weights are arbitrarily "
    "large or reversed: choose a layer behind a ReLU"
)


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
        cost_note=_SHARED,
        asks=_ASKS,
        signed=False,
        level=Level.FEATURE_MAP,
    )

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        a, g = read(probe, self.layer)
        return positive_map(probe, weighted(g.mean(axes(g)), a))


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
        cost_note=_SHARED,
        asks=_ASKS,
        signed=True,
        level=Level.FEATURE_MAP,
    )

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        a, g = read(probe, self.layer)
        return layer_map(probe, (g * a).sum(1, keepdim=True), signed=True)


@dataclass(frozen=True)
class GradCAMPlusPlus(LayerExplainer):
    """Which coarse regions of a layer speak for the target, also where it appears more than once.

    ``ReLU(sum_k w_k A_k)``, ``w_k = sum_ij alpha_ij ReLU(g_ij)``, ``alpha_ij = g^2 / (2 g^2 + (sum_ab A_ab) g^3)``.
    The weights assume that the score passes through an exponential, and falling gradients do not count. On a layer
    with negative activations alpha can be reversed or huge, which is told. No statement is finer than the cells.

    Returns:
        Attribution without negative values, in the target's unit per cell (up to the method's weights).

    Raises:
        UnknownLayer: no such layer, or it has no spatial extent.

    Source:
        chattopadhay2018gradcampp, without the positive factor exp(S), which overflows.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2), torch.nn.Flatten(), torch.nn.Linear(36, 2))
        >>> model, x, method = Model(net), torch.rand(1, 1, 8, 8), GradCAMPlusPlus(layer="0")
        >>> a = method(Probe(model, x, ClassScore(1), method.needs(model, {"image": x})))
        >>> a.maps["image"].shape
        torch.Size([1, 1, 8, 8])
    """

    normalized: Annotated[
        bool, "divide alpha by its sum over the cells of rising gradient, as the authors' code does; the paper does not"
    ] = False

    card: ClassVar[Card] = Card(
        family=Family.CAM,
        shows="coarse regions of one layer that speak for the target, several appearances alike",
        caution="as coarse as the layer's cells; ignores falling gradients, so it shows less what speaks against",
        equation=r"\mathrm{ReLU}\sum_k A^k \sum_{ij} \frac{(g^k_{ij})^2\,\mathrm{ReLU}(g^k_{ij})}"
        r"{2(g^k_{ij})^2 + (g^k_{ij})^3 \sum_{ab} A^k_{ab}}",
        source="chattopadhay2018gradcampp",
        cost_note=_SHARED,
        asks=_ASKS,
        signed=False,
        level=Level.FEATURE_MAP,
    )

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        a, g = read(probe, self.layer)
        rising = g.relu()
        # alpha with g^2 cut out of the fraction: no power of a small gradient underflows, and no epsilon is needed
        denominator = 2 + a.sum(axes(a), keepdim=True) * rising
        warnings = () if bool((denominator >= _LEAST_DENOMINATOR).all()) else (_REVERSED,)
        denominator = _off_zero(denominator, _SINGULAR) if warnings else denominator
        weight = (rising / denominator).sum(axes(g))
        if self.normalized:
            weight = weight / _off_zero(((rising > 0) / denominator).sum(axes(g)), _SINGULAR)
        return positive_map(probe, weighted(weight, a), warnings=warnings)


@dataclass(frozen=True)
class XGradCAM(LayerExplainer):
    """Which coarse regions of a layer speak for the target: channels weighted by the gradient where they are active.

    ``ReLU(sum_k w_k A_k)`` with ``w_k = sum_ij g_ij A_ij / sum_ij A_ij``. Before the ReLU the cells sum to ``sum g A``,
    which is the score itself for a ReLU tail without bias. Where a channel's activations cancel or are negative on the
    whole the weight is huge or reversed, which is told. No statement is finer than the layer's cells.

    Returns:
        Attribution without negative values, in the target's unit per cell.

    Raises:
        UnknownLayer: no such layer, or it has no spatial extent.

    Source:
        fu2020axiom.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2), torch.nn.Flatten(), torch.nn.Linear(36, 2))
        >>> model, x, method = Model(net), torch.rand(1, 1, 8, 8), XGradCAM(layer="0")
        >>> bool(method(Probe(model, x, ClassScore(1), method.needs(model, {"image": x}))).maps["image"].min() >= 0)
        True
    """

    card: ClassVar[Card] = Card(
        family=Family.CAM,
        shows="coarse regions of one layer that speak for the target, each channel weighted where it is active",
        caution="as coarse as the layer's cells; weights are huge or reversed where activations are not positive",
        equation=r"\mathrm{ReLU}\sum_k \frac{\sum_{ij} g^k_{ij} A^k_{ij}}{\sum_{ij} A^k_{ij}} A^k",
        source="fu2020axiom",
        cost_note=_SHARED,
        asks=_ASKS,
        signed=False,
        level=Level.FEATURE_MAP,
    )

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        a, g = read(probe, self.layer)
        total, size = a.sum(axes(a)), a.abs().sum(axes(a))
        weight = (g * a).sum(axes(a)) / _off_zero(total, _CANCELED * size)
        canceling = ((total < _CLOSE * size) & (weight != 0)).any()
        return positive_map(probe, weighted(weight, a), warnings=(_CANCELING,) if bool(canceling) else ())


@dataclass(frozen=True)
class LayerCAM(LayerExplainer):
    """Which regions of any layer speak for the target, cell by cell: finer than Grad-CAM on an early layer.

    ``ReLU(sum_k ReLU(g_k) * A_k)``: each cell has a weight of its own, and falling gradients are dropped. So evidence
    against is not subtracted and cells of early layers are noisy; no statement is finer than the layer's cells.

    Returns:
        Attribution without negative values, in the target's unit per cell.

    Raises:
        UnknownLayer: no such layer, or it has no spatial extent.

    Source:
        jiang2021layercam. Not scaled by tanh and its maximum, as the authors do for early layers.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2), torch.nn.Flatten(), torch.nn.Linear(36, 2))
        >>> model, x, method = Model(net), torch.rand(1, 1, 8, 8), LayerCAM(layer="0")
        >>> bool(method(Probe(model, x, ClassScore(1), method.needs(model, {"image": x}))).maps["image"].min() >= 0)
        True
    """

    card: ClassVar[Card] = Card(
        family=Family.CAM,
        shows="regions of one layer, early ones too, where more activation would raise the score",
        caution="evidence against is dropped, not subtracted; noisy on early layers; as coarse as the layer's cells",
        equation=r"\mathrm{ReLU}\sum_k \mathrm{ReLU}(g^k) \odot A^k",
        source="jiang2021layercam",
        cost_note=_SHARED,
        asks=_ASKS,
        signed=False,
        level=Level.FEATURE_MAP,
    )

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        a, g = read(probe, self.layer)
        return positive_map(probe, (g.relu() * a).sum(1, keepdim=True))


def _off_zero(x: Tensor, least: Tensor | float) -> Tensor:
    """A divisor kept at least so far from zero, on its own side of it; zero itself counts as positive."""
    return torch.where(x < 0, -1.0, 1.0).to(x) * torch.maximum(x.abs(), torch.as_tensor(least).to(x).clamp_min(_TINY))
