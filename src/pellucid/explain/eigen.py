"""Methods that show the first principal component of a layer."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Family, Level
from pellucid.core.explainer import LayerExplainer
from pellucid.core.explanation import Attribution
from pellucid.core.probe import Probe
from pellucid.explain.cells import activation, positive_map, read

_TIED = 0.9  # second eigenvalue as a share of the first, above which the direction is arbitrary
_FLAT = 1e-12  # variance as a share of the mean square, below which it is rounding error


@dataclass(frozen=True)
class EigenCAM(LayerExplainer):
    """Where a layer varies most, whatever the target: the first principal component of its activations.

    ``ReLU(A_c v)``: cells by channels, each channel centered, ``v`` the first right singular vector; the sign is the
    one that correlates with the summed positive activations. It knows nothing of the target: two classes have the same
    map, and a bright artifact can be all of it. Says what stands out to the network, not why it decided.

    Returns:
        Attribution without negative values, in units of the activation; zero is the mean over the image.

    Raises:
        UnknownLayer: no such layer, or it has no spatial extent.

    Source:
        muhammad2020eigencam. The centering is that of the usual code; the paper leaves it open, and the sign too.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2), torch.nn.Flatten(), torch.nn.Linear(36, 2))
        >>> model, x, method = Model(net), torch.rand(1, 1, 8, 8), EigenCAM()
        >>> method(Probe(model, x, ClassScore(1), method.needs(model, {"image": x}))).unit
        'activation'
    """

    card: ClassVar[Card] = Card(
        family=Family.CAM,
        shows="where one layer varies most over the image, the same for every target",
        caution="knows nothing of the target or class; an artifact that stands out can be all of it; cell-coarse",
        equation=r"\mathrm{ReLU}\big(\pm(A - \bar{A})\,v_1\big)",
        source="muhammad2020eigencam",
        cost_note="none of its own: one forward, shared with every CAM",
        asks=frozenset({Ask.OUTPUT, Ask.ACTIVATION}),
        signed=False,
        level=Level.FEATURE_MAP,
        attribution=False,
    )

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        cells, warnings = first_component(activation(probe, self.layer))
        return positive_map(probe, cells, "activation", warnings)


@dataclass(frozen=True)
class EigenGradCAM(LayerExplainer):
    """Where a layer's evidence for the target varies most: the first principal component of gradient times activation.

    ``ReLU(M_c v)`` with ``M = g * A``, cells by channels, each channel centered, ``v`` the first right singular vector;
    the sign is the one that correlates with the summed positive evidence. One direction of many channels: how much of
    the score it carries is not told, and evidence against can be part of it. No statement is finer than the cells.

    Returns:
        Attribution without negative values, in the target's unit per cell; zero is the mean over the image.

    Raises:
        UnknownLayer: no such layer, or it has no spatial extent.

    Source:
        gildenblat2021gradcam. There is no paper: that code is the definition, less its arbitrary sign.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2), torch.nn.Flatten(), torch.nn.Linear(36, 2))
        >>> model, x, method = Model(net), torch.rand(1, 1, 8, 8), EigenGradCAM()
        >>> method(Probe(model, x, ClassScore(1), method.needs(model, {"image": x}))).maps["image"].shape
        torch.Size([1, 1, 8, 8])
    """

    card: ClassVar[Card] = Card(
        family=Family.CAM,
        shows="where the evidence in one layer varies most over the image",
        caution="one direction of many: how much of the score it carries is not told; as coarse as the layer's cells",
        equation=r"\mathrm{ReLU}\big(\pm(M - \bar{M})\,v_1\big),\quad M = g \odot A",
        source="gildenblat2021gradcam",
        cost_note="none of its own: one forward and one backward to the layer, shared with every CAM",
        asks=frozenset({Ask.OUTPUT, Ask.ACTIVATION, Ask.LAYER_GRADIENT}),
        signed=False,
        level=Level.FEATURE_MAP,
    )

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        a, g = read(probe, self.layer)
        cells, warnings = first_component(g * a)
        return positive_map(probe, cells, warnings=warnings)


def first_component(x: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Projection of each cell on the first principal direction of the channels, and doubts about it.

    The smaller of the two Gram matrices (cells or channels) has the same first component as the full decomposition.
    The sign is that of the covariance with the summed positive part, so that what stands out is high, never low.

    Args:
        x: "batch channel *cells".
    """
    rows = x.flatten(2).mT.double()  # cells by channels; a Gram matrix squares the condition, so 16 digits
    centered = rows - rows.mean(1, keepdim=True)
    small = centered.shape[1] <= centered.shape[2]
    gram = centered @ centered.mT if small else centered.mT @ centered
    values, vectors = torch.linalg.eigh(gram)
    first, second = values[:, -1], values[:, -2] if values.shape[1] > 1 else torch.zeros_like(values[:, -1])
    flat = first <= _FLAT * rows.square().sum((1, 2))
    along = vectors[..., -1:]
    projected = (along * first.clamp_min(0).sqrt()[:, None, None] if small else centered @ along).squeeze(2)
    sign = torch.where((projected * rows.relu().sum(2)).sum(1) < 0, -1.0, 1.0)
    oriented = torch.where(flat, 0.0, sign)[:, None] * projected
    tied = bool(((second > _TIED * first) & ~flat).any())
    warnings = ("the first two components of the layer are about equally strong: the map shows one of them, by chance",)
    return oriented.to(x.dtype).view(len(x), 1, *x.shape[2:]), warnings if tied else ()
