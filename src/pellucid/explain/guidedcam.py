"""Guided backpropagation, kept only where Grad-CAM is."""

from dataclasses import dataclass
from typing import ClassVar

from pellucid.core.card import Ask, Card, Cost, Family
from pellucid.core.explainer import LayerExplainer
from pellucid.core.explanation import Attribution
from pellucid.core.probe import Probe
from pellucid.core.space import axes
from pellucid.explain.cells import positive_map, read, weighted
from pellucid.explain.guided import guided


@dataclass(frozen=True)
class GuidedGradCAM(LayerExplainer):
    """Fine structures that excite the network, kept only in the coarse regions that speak for the target.

    ``guided gradient * up(Grad-CAM)``: the coarse map is brought to the image's size linearly, then multiplied. The
    fine lines are those of guided backpropagation, close to an edge detector: only the coarse factor depends on the
    class, so a sharp edge here is no sign that the network used it.

    Returns:
        Signed values without a unit; channels are summed.

    Raises:
        CannotDo: the network calls no ReLU, or a smooth activation (GELU, SiLU ...).
        UnknownLayer: no such layer, or it has no spatial extent.

    Source:
        selvaraju2017gradcam, section 3.2.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> head = (torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 2))
        >>> model, x = Model(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2), *head)), torch.rand(1, 1, 8, 8)
        >>> method = GuidedGradCAM()
        >>> method(Probe(model, x, ClassScore(1), method.needs(model, {"image": x}))).maps["image"].shape
        torch.Size([1, 1, 8, 8])
    """

    card: ClassVar[Card] = Card(
        family=Family.CAM,
        shows="fine structures that excite the network, kept in the coarse regions that speak for the target",
        caution="its fine lines hardly depend on the class or on what was learned: an edge shown is not an edge used",
        equation=r"R_{\mathrm{guided}} \odot \mathrm{up}\,\mathrm{ReLU}\sum_k \Big(\tfrac1Z\sum_{ij} g^k_{ij}\Big) A^k",
        source="selvaraju2017gradcam",
        cost_note="one forward and backward with changed ReLUs; the pass to the layer is shared with every CAM",
        asks=frozenset({Ask.OUTPUT, Ask.ACTIVATION, Ask.LAYER_GRADIENT}),
        signed=True,
    )

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        return Cost(1, 1)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        a, g = read(probe, self.layer)
        coarse = positive_map(probe, weighted(g.mean(axes(g)), a))
        fine = guided(probe)
        shown = coarse.maps[probe.model.primary]
        alike = {name: x for name, x in fine.gradient.items() if x.shape[2:] == shown.shape[2:]}
        others = [f"input {name!r} has no map: it has another shape" for name in fine.gradient if name not in alike]
        return Attribution(
            maps={name: x * shown for name, x in alike.items()},
            unit="a.u. (rectified gradient)",
            signed=True,
            cell=(1.0,) * probe.grid.rank,
            warnings=(*coarse.warnings, *fine.warnings, *others),
        )
