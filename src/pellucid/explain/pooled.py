"""Methods that need a certain head: a pooled linear layer (CAM), or a gradient that is spatial (SegXResCAM)."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family, Level
from pellucid.core.errors import BadOption, CannotDo, NonFinite
from pellucid.core.explainer import LayerExplainer
from pellucid.core.explanation import Attribution
from pellucid.core.probe import Probe
from pellucid.core.space import axes, resize
from pellucid.explain.cells import layer_map, positive_map, read, wide

_CONSTANT = 1e-3  # spread of the gradient over the cells, relative to its largest value
_FAR = 1000.0  # times the activation: so far away nothing that bends looks straight
_LINEAR = 1e-3  # relative error of the predicted change of the score
_DIGITS = {"float32": 1e-5, "bfloat16": 1e-2}  # rounding of the score itself, as a share of what it is summed from


@dataclass(frozen=True)
class CAM(LayerExplainer):
    """Which regions add how much to the score of a network that ends in a global mean and one linear layer.

    ``sum_k w_k A_k``: the class's own weights on the last features, exact. The mean over the cells is the score less
    the bias. Other heads have no such map: they are refused, by a test on the score and not by the names of layers.
    No statement is finer than the layer's cells, and each cell has seen far more of the image than it covers.

    Returns:
        Signed attribution in the target's unit; its mean over the cells is the score less the bias.

    Raises:
        CannotDo: the head is not a global mean followed by one linear layer.
        UnknownLayer: no such layer, or it has no spatial extent.

    Source:
        zhou2016learning.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> head = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
        >>> model, method = Model(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1), *head)), CAM()
        >>> x = torch.rand(1, 1, 8, 8)
        >>> probe = Probe(model, x, ClassScore(1), method.needs(model, {"image": x}))
        >>> bool(torch.isclose(method(probe).maps["image"].mean(), probe.baseline_score))
        True
    """

    card: ClassVar[Card] = Card(
        family=Family.CAM,
        shows="how much each region of the last features adds to (or takes from) the score",
        caution="only for a head of global mean and one linear layer; as coarse as the layer's cells",
        equation=r"\sum_k w_k A^k",
        source="zhou2016learning",
        cost_note="one forward that checks the head; one forward and one backward to the layer, shared with every CAM",
        asks=frozenset({Ask.OUTPUT, Ask.ACTIVATION, Ask.LAYER_GRADIENT}),
        signed=True,
        tasks=frozenset({"classification", "regression"}),
        level=Level.FEATURE_MAP,
    )

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        return Cost(1)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        a, g = read(probe, self.layer)
        behind_relu = _check_pooled(a, g)
        self._check_linear(probe, a, g, behind_relu)
        evidence = (g * a).sum(1, keepdim=True)
        count = a[0, 0].numel()  # the gradient of a mean is the weight divided by the number of cells
        warnings = () if bool((evidence > 0).flatten(1).any(1).all()) else (_AGAINST,)
        return layer_map(probe, count * evidence, signed=True, warnings=warnings)

    def _check_linear(self, probe: Probe, a: Tensor, g: Tensor, positive: bool) -> None:
        """Whether the score follows random scaling of the channels as the gradient says, by one own forward."""
        generator = torch.Generator().manual_seed(probe.scene.seed)
        drawn = torch.rand(a.shape[1], generator=generator)
        # behind a ReLU the sign must stay; elsewhere its turn also turns every hidden unit on or off
        scale = _FAR * (drawn if positive else -0.5 - drawn).to(a).view(1, -1, *(1,) * (a.ndim - 2))
        layer = self.layer or probe.model.resolve(None, probe.inputs)
        try:
            changed = wide(probe.run(edits={layer: lambda out: out * scale.to(out)}).score[probe.aim])
        except NonFinite as error:
            raise _refusal("the score overflows where the channels grow") from error
        before = wide(probe.baseline_score)
        parts = (g * a * (1 - scale)).sum(axes(a))
        size = parts.abs().sum(1) + before.abs() + changed.abs()
        allowed = _LINEAR * parts.sum(1).abs() + _DIGITS[probe.precision] * size
        if bool(((before - changed) - parts.sum(1)).abs().gt(allowed).any()):
            raise _refusal("the score is not linear in this layer's channels")


@dataclass(frozen=True)
class SegXResCAM(LayerExplainer):
    """Which regions of a layer speak for a segmented part, with the gradient smoothed over a few cells.

    ``ReLU(sum_k up(pool(g_k)) * A_k)``: one cell is HiResCAM, a window as wide as the layer is Grad-CAM. Between them
    it keeps where in the image the gradient comes from, which Grad-CAM loses for a small structure, and less of its
    noise than HiResCAM. The window is a choice without a right value; no statement is finer than the layer's cells.

    Returns:
        Attribution without negative values, in the target's unit per cell.

    Raises:
        BadOption: a window below one cell.
        UnknownLayer: no such layer, or it has no spatial extent.

    Source:
        hasany2023segxrescam, with the mean over a window (the authors also take the maximum).

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model, OutputSpec
        >>> from pellucid.core.target import RegionScore
        >>> layers = torch.nn.Conv2d(1, 4, 2, 2), torch.nn.Conv2d(4, 2, 1), torch.nn.Upsample(scale_factor=2)
        >>> layers[1].bias.data[1] = 9.0  # so that the class is predicted
        >>> model = Model(torch.nn.Sequential(*layers), output=OutputSpec("segmentation"))
        >>> x, method = torch.rand(1, 1, 8, 8), SegXResCAM(layer="0")
        >>> method(Probe(model, x, RegionScore(1), method.needs(model, {"image": x}))).cell
        (2.0, 2.0)
    """

    window: Annotated[int, "edge of the window over which the gradient is averaged, in cells of the layer"] = 2

    card: ClassVar[Card] = Card(
        family=Family.CAM,
        shows="regions of one layer that speak for a segmented part, near and far from it",
        caution="the window has no right value; as coarse as the layer's cells",
        equation=r"\mathrm{ReLU}\sum_k \mathrm{up}(\mathrm{pool}(g^k)) \odot A^k",
        source="hasany2023segxrescam",
        cost_note="none of its own: one forward and one backward to the layer, shared with every CAM",
        asks=frozenset({Ask.OUTPUT, Ask.ACTIVATION, Ask.LAYER_GRADIENT}),
        signed=False,
        tasks=frozenset({"segmentation"}),
        level=Level.FEATURE_MAP,
    )

    def __post_init__(self) -> None:
        if self.window < 1:
            raise BadOption(f"expected a window of at least 1 cell, got {self.window}", "1 is HiResCAM")

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        a, g = read(probe, self.layer)
        blocks = [-(-n // self.window) for n in g.shape[2:]]
        pool: Any = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(blocks)]
        smooth = resize(pool(g, blocks), g.shape[2:])
        return positive_map(probe, (smooth * a).sum(1, keepdim=True))


_AGAINST = "the map is nowhere positive: everything in this layer speaks against the target"


def _check_pooled(a: Tensor, g: Tensor) -> bool:
    """Whether a ReLU lies between the layer and the pooling; the gradient must be constant where the ReLU is open.

    Raises:
        CannotDo: it is not.
    """
    largest = g.abs().amax(axes(g), keepdim=True)
    top = largest.amax(1, keepdim=True)

    def even(where: Tensor) -> bool:
        high = torch.where(where, g, -torch.inf).amax(axes(g), keepdim=True)
        low = torch.where(where, g, torch.inf).amin(axes(g), keepdim=True)
        return bool(((high - low) <= _CONSTANT * top).all())

    if even(torch.ones_like(a, dtype=torch.bool)):
        return False
    shut = torch.where(a > 0, 0, g).abs() <= _CONSTANT * top
    if bool(shut.all()) and even(a > 0):
        return True
    raise _refusal("the score's gradient differs between the places of this layer")


def _refusal(reason: str) -> CannotDo:
    return CannotDo(
        f"CAM without a pooled head: {reason}, and the method is defined only for a global mean and one linear layer",
        "use GradCAM or HiResCAM, or name the layer before the pooling",
    )
