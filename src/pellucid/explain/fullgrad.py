"""The score divided among the image and every bias of the network."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Annotated, ClassVar, cast

import torch
from torch import Tensor, nn

from pellucid.core.card import Ask, Card, Family
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.layers import LayerName
from pellucid.core.model import Inputs, Model
from pellucid.core.probe import Need, Probe
from pellucid.core.space import resize
from pellucid.explain.cells import wide

_AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_GAP = {"float32": 0.01, "bfloat16": 0.1}  # of the score or the largest part: above it the parts do not explain it
_TINY = 1e-30  # of a divisor that is zero only where the dividend is


@dataclass(frozen=True)
class FullGrad(Explainer):
    """Where the score comes from, in the image and in the biases of every layer: fine and coarse maps in one.

    ``|g x| + sum_l up |g_b b_l|``: in a network of linear layers and ReLU the score is ``<g, x> + sum_l <g_b, b_l>``;
    batch normalization counts as a bias too. Each layer's part is spread over the voxels that its cells cover. Biases
    without a place (of the last layer) are left out. Not exact behind GELU, SiLU or instance normalization: told.

    Returns:
        Attribution of magnitudes, never negative, in the target's unit.

    Source:
        srinivas2019fullgrad. ``rescaled`` is the authors' code, where each layer's part is brought to [0, 1]: its
        values have no unit, and maps of two images cannot be compared.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2), torch.nn.Flatten(), torch.nn.Linear(36, 2))
        >>> model, x, method = Model(net), torch.rand(1, 1, 8, 8), FullGrad()
        >>> a = method(Probe(model, x, ClassScore(1), method.needs(model, {"image": x})))
        >>> a.maps["image"].shape, a.warnings
        (torch.Size([1, 1, 8, 8]), ())
    """

    rescaled: Annotated[bool, "bring each layer's part to [0, 1] before the sum, as the authors' code does"] = False

    card: ClassVar[Card] = Card(
        family=Family.CAM,
        shows="how much of the score comes from each place, through the image and through every bias",
        caution="magnitudes: for and against look alike; not exact with GELU, SiLU or instance normalization",
        equation=r"|g \odot x| + \sum_l \mathrm{up}\,|g_{b_l} \odot b_l|",
        source="srinivas2019fullgrad",
        cost_note="none of its own: one forward and one backward to the input, shared with every gradient method",
        asks=frozenset({Ask.OUTPUT, Ask.INPUT_GRADIENT, Ask.LAYER_GRADIENT}),
        signed=False,
    )

    def needs(self, model: Model, inputs: Inputs) -> frozenset[Need]:
        """See ``Explainer.needs``; the gradient at every layer that has a bias."""
        layers = {(Ask.LAYER_GRADIENT, name) for name, _ in _biased(model, inputs)}
        return frozenset({(Ask.OUTPUT, None), (Ask.INPUT_GRADIENT, None), *layers})

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        parts = {name: probe.inputs[name] * wide(g) for name, g in probe.input_gradient.items()}
        maps = {name: self._magnitude(part) for name, part in parts.items()}
        totals = [torch.stack([part.flatten(1).sum(1) for part in parts.values()]).sum(0)]
        cells: dict[tuple[int, ...], Tensor] = {}  # layers of one size are summed before they are enlarged
        rank = probe.grid.rank
        for name, layer in _biased(probe.model, probe.inputs):
            g = wide(probe.layer_gradient(name))
            if isinstance(layer, nn.Linear):
                g = g.movedim(-1, 1)  # features are last there, also in networks that keep the channels last
            part = g * _bias(layer).to(g).view(1, -1, *(1,) * (g.ndim - 2))
            totals.append(part.flatten(1).sum(1))
            if part.ndim == rank + 2:
                size = tuple(part.shape[2:])
                cells[size] = cells[size] + self._magnitude(part) if size in cells else self._magnitude(part)
        primary = probe.model.primary
        shape = maps[primary].shape[2:]
        for size, values in cells.items():  # each cell's value is divided among its voxels
            share = 1.0 if self.rescaled else prod(size) / prod(shape)
            maps[primary] = maps[primary] + share * resize(values, shape)
        return Attribution(
            maps=maps,
            unit="1" if self.rescaled else probe.target.unit,
            signed=False,
            cell=(1.0,) * rank,
            warnings=_incomplete(torch.stack(totals), wide(probe.baseline_score), _GAP[probe.precision]),
        )

    def _magnitude(self, part: Tensor) -> Tensor:
        """Magnitudes of "batch channel *cells", summed over channels; of a vector input they stay apart."""
        size = part.abs()
        if part.ndim == 2:
            return size
        if self.rescaled:
            every = tuple(range(1, part.ndim))
            size = size - size.amin(every, keepdim=True)
            size = size / size.amax(every, keepdim=True).clamp_min(_TINY)
        return size.sum(1, keepdim=True)


def _biased(model: Model, inputs: Inputs) -> Iterator[tuple[str, nn.Module]]:
    """Every call of a layer that adds a constant to what it is given."""
    for shape in model.layers(inputs):
        layer = model.module.get_submodule(LayerName.parse(shape.name).path)
        fixed = isinstance(layer, _NORMS) and layer.running_mean is not None
        if fixed or (isinstance(layer, _AFFINE) and layer.bias is not None):
            yield shape.name, layer


def _bias(layer: nn.Module) -> Tensor:
    """What the layer adds, per channel: its output where its input is zero."""
    if not isinstance(layer, _NORMS):
        return cast(Tensor, layer.bias).detach()
    mean, variance = cast(Tensor, layer.running_mean), cast(Tensor, layer.running_var)
    shift = -mean / (variance + layer.eps).sqrt()
    return layer.bias.detach() + layer.weight.detach() * shift if layer.affine else shift


def _incomplete(totals: Tensor, score: Tensor, tolerance: float) -> tuple[str, ...]:
    """Says so where the parts ("part batch") do not sum to the score."""
    explained = totals.sum(0)
    gap = (explained - score).abs() / torch.maximum(totals.abs().amax(0), score.abs()).clamp_min(_TINY)
    worst = int(gap.argmax())
    if float(gap[worst]) <= tolerance:
        return ()
    return (
        f"image and biases explain {float(explained[worst]):.3g} of the score {float(score[worst]):.3g}: the network "
        "holds something that is not piecewise linear (GELU, instance normalization, the image normalized inside the "
        "network), or constants that are no layer's bias",
    )
