"""Methods that weight each channel of a layer by what the score does with it: no gradient, many forwards."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family, Level
from pellucid.core.errors import BadOption
from pellucid.core.explainer import LayerExplainer
from pellucid.core.explanation import Attribution
from pellucid.core.infill import Infill
from pellucid.core.layers import Edit
from pellucid.core.masking import Stream, free_bytes
from pellucid.core.probe import Probe
from pellucid.core.space import axes, resize
from pellucid.explain.cells import activation, positive_map, weighted, wide

_ONE_WINS = 0.99  # of the softmax weight
_NEGATIVE = (
    "some channels are negative on the whole: at zero they are not absent but stronger, which reverses their part of "
    "the map; choose a layer behind a ReLU"
)
_MOST = 64  # versions of the batch behind the layer at once
_BYTES = 256 * 2**20  # more at once is no faster
_SHARE = 0.25  # of the free memory


@dataclass(frozen=True)
class ScoreCAM(LayerExplainer):
    """Which regions of a layer keep the score up when only they are shown: no gradient, one forward per channel.

    ``ReLU(sum_k w_k A_k)``, ``w = softmax_k S(m_k x + (1 - m_k) fill)``, where ``m_k`` is the upsampled channel brought
    to [0, 1]. (The paper subtracts the score of the fill first; a softmax does not see it.) Weights are never negative,
    so evidence against is not shown, and with large logits one channel takes all. Needs as many forwards as channels.

    Returns:
        Attribution without negative values, in units of the activation.

    Raises:
        BadOption: fewer than one channel.
        UnknownLayer: no such layer, or it has no spatial extent.

    Source:
        wang2020scorecam. A channel that is the same everywhere has no weight, as in the authors' code.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2), torch.nn.Flatten(), torch.nn.Linear(36, 2))
        >>> model, x, method = Model(net), torch.rand(1, 1, 8, 8), ScoreCAM()
        >>> probe = Probe(model, x, ClassScore(1), method.needs(model, {"image": x}))
        >>> method(probe).unit, probe.spent.own.forwards
        ('activation', 4)
    """

    channels: Annotated[int | None, "use only so many channels, those that vary most over the image; None: all"] = None
    infill: Annotated[Infill | None, "what the hidden part shows; None: the modality's first fill"] = None

    card: ClassVar[Card] = Card(
        family=Family.CAM,
        shows="coarse regions of one layer that keep the score up when shown alone",
        caution="depends on the fill; shows nothing against; one channel can take all; many forwards; cell-coarse",
        equation=r"\mathrm{ReLU}\sum_k \mathrm{softmax}_k\big[S(m_k \odot x + (1 - m_k) \odot \mathrm{fill})\big]\,A^k",
        source="wang2020scorecam",
        cost_note="one forward per channel",
        asks=frozenset({Ask.OUTPUT, Ask.ACTIVATION}),
        signed=False,
        level=Level.FEATURE_MAP,
    )

    def __post_init__(self) -> None:
        if self.channels is not None and self.channels < 1:
            raise BadOption(f"expected at least one channel, got {self.channels}", "give a positive number, or None")

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        count = _channels(probe, self.layer)
        return Cost(min(count, self.channels or count))

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        a = activation(probe, self.layer)
        order = a.flatten(2).var(2).argsort(dim=1, descending=True, stable=True)[:, : self.channels]
        chosen = a.gather(1, order.view(*order.shape, *(1,) * len(axes(a))).expand(-1, -1, *a.shape[2:]))
        scores = torch.stack(list(Stream(probe, self.infill).scores(_shown(probe, chosen))), 1)
        varies = chosen.flatten(2).amax(2) > chosen.flatten(2).amin(2)
        weight = torch.where(varies, wide(scores).to(a), -torch.inf).softmax(1)
        weight = torch.where(varies.any(1, keepdim=True), weight, 0)  # a softmax over nothing is not a number
        warnings = []
        if chosen.shape[1] < a.shape[1]:
            left = a.shape[1] - chosen.shape[1]
            warnings.append(f"{left} of {a.shape[1]} channels were left out: those that vary least over the image")
        if chosen.shape[1] > 1 and bool((weight > _ONE_WINS).any()):
            warnings.append(f"one channel of the layer has over {_ONE_WINS:.0%} of the weight: the map is that channel")
        return positive_map(probe, weighted(weight, chosen), "activation", warnings)


@dataclass(frozen=True)
class AblationCAM(LayerExplainer):
    """Which regions of a layer the score loses when a channel is switched off: no gradient.

    ``ReLU(sum_k (S - S_k) A_k)``, ``S_k`` with channel ``k`` set to zero. Only what comes after the layer is computed
    for each channel. Where activations are negative zero is no absence, which is told; two channels that say the same
    cover for each other. No statement is finer than the layer's cells.

    Returns:
        Attribution without negative values, in the target's unit times that of the activation.

    Raises:
        UnknownLayer: no such layer, or it has no spatial extent.

    Source:
        desai2020ablationcam. The paper divides the weights by S, which turns the map around for a negative logit.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2), torch.nn.Flatten(), torch.nn.Linear(36, 2))
        >>> model, x, method = Model(net), torch.rand(1, 1, 8, 8), AblationCAM()
        >>> method(Probe(model, x, ClassScore(1), method.needs(model, {"image": x}))).unit
        'logit x activation'
    """

    card: ClassVar[Card] = Card(
        family=Family.CAM,
        shows="coarse regions of one layer whose channels the score needs",
        caution="misses what two channels say alike; zero is not neutral for signed activations; cell-coarse",
        equation=r"\mathrm{ReLU}\sum_k \big(S - S_{A^k \to 0}\big)\,A^k",
        source="desai2020ablationcam",
        cost_note="one forward, and for each channel the part behind the layer",
        asks=frozenset({Ask.OUTPUT, Ask.ACTIVATION}),
        signed=False,
        level=Level.FEATURE_MAP,
    )

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``; a forward of the part behind the layer counts as one."""
        return Cost(1 + _channels(probe, self.layer))

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        a = activation(probe, self.layer)
        layer = self.layer or probe.model.resolve(None, probe.inputs)
        step, count = _at_once(probe, layer), a.shape[1]
        without: list[Tensor] = []
        for first in range(0, count, step):
            channels = torch.arange(first, min(first + step, count), device=a.device)
            without += probe.behind(layer, _switched_off(channels), len(channels)).view(len(channels), -1)
        weight = wide(probe.baseline_score)[:, None] - wide(torch.stack(without, 1))
        negative = bool(((a.flatten(2).sum(2) < 0) & (weight != 0)).any())
        unit, warnings = f"{probe.target.unit} x activation", (_NEGATIVE,) if negative else ()
        return positive_map(probe, weighted(weight.to(a), a), unit, warnings)


def _switched_off(channels: Tensor) -> Edit:
    """An edit that sets another one of ``channels`` to zero in each version of the batch."""

    def edit(output: Tensor) -> Tensor:
        versions = output.clone().view(len(channels), -1, *output.shape[1:])
        versions[torch.arange(len(channels), device=channels.device), :, channels] = 0
        return versions.flatten(0, 1)

    return edit


def _shown(probe: Probe, a: Tensor) -> Iterator[Tensor]:
    """For each channel what it shows of the image: upsampled, and brought to [0, 1] for each item."""
    for k in range(a.shape[1]):
        up = resize(a[:, k : k + 1], probe.inputs[probe.model.primary].shape[2:])
        low, high = up.amin(axes(up), keepdim=True), up.amax(axes(up), keepdim=True)
        yield ((up - low) / torch.where(high > low, high - low, 1)).squeeze(1)


def _channels(probe: Probe, layer: str | None) -> int:
    name = probe.model.resolve(layer, probe.inputs)
    return probe.model.find(name, probe.inputs).shape[1]


def _at_once(probe: Probe, layer: str) -> int:
    """Versions of the batch that are computed together: the inputs (copied), and all that comes after the layer."""
    shapes = probe.model.layers(probe.inputs)
    place = [s.name for s in shapes].index(layer)
    each = 4 * (sum(prod(s.shape) for s in shapes[place:]) + 3 * sum(x[:1].numel() for x in probe.inputs.values()))
    free = min(_BYTES, int(_SHARE * free_bytes(probe.model.device)))
    return max(1, min(_MOST, free // (each * probe.batch)))
