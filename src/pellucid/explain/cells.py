"""A layer's cells: how the class activation methods read them, and draw them on the image's grid."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.core.explanation import Attribution
from pellucid.core.probe import Probe
from pellucid.core.space import resize

BLANK = "the map is blank: the layer holds no positive evidence for this target"
AGAINST = (
    "the map is blank: everything in this layer speaks against the target, and the method shows only what is for it"
)


def wide(x: Tensor) -> Tensor:
    """Float32 at least, before products and sums: after autocast a layer's output has 8 bits."""
    return x if x.dtype == torch.float64 else x.float()


def activation(probe: Probe, layer: str | None) -> Tensor:
    """Output of a layer from the shared pass: "batch channel *cells"."""
    return wide(probe.activation(layer))


def read(probe: Probe, layer: str | None) -> tuple[Tensor, Tensor]:
    """Output of a layer and the target's gradient with respect to it, from the shared pass."""
    return activation(probe, layer), wide(probe.layer_gradient(layer))


def weighted(weight: Tensor, a: Tensor) -> Tensor:
    """Sum over channels of ``weight`` ("batch channel") times activation: "batch 1 *cells"."""
    return torch.einsum("bc,bc...->b...", weight, a).unsqueeze(1)


def layer_map(
    probe: Probe, cells: Tensor, signed: bool, unit: str | None = None, warnings: Sequence[str] = ()
) -> Attribution:
    """A layer's map on the primary input's grid; every CAM ends here, so all are upsampled alike.

    Args:
        probe: of the answer.
        cells: "batch 1 *cells".
        signed: whether negative values mean evidence against.
        unit: of a value; None: the target's.
        warnings: doubts about the result.
    """
    name = probe.model.primary
    shape = probe.inputs[name].shape[2:]
    return Attribution(
        maps={name: resize(cells, shape)},
        unit=unit or probe.target.unit,
        signed=signed,
        cell=tuple(n / m for n, m in zip(shape, cells.shape[2:], strict=True)),
        warnings=tuple(warnings),
    )


def positive_map(probe: Probe, cells: Tensor, unit: str | None = None, warnings: Sequence[str] = ()) -> Attribution:
    """``layer_map`` of the positive part; the ReLU comes before the upsampling, and a blank map says why.

    Args:
        probe: of the answer.
        cells: "batch 1 *cells", before the ReLU.
        unit: of a value; None: the target's.
        warnings: doubts about the result.
    """
    highest, lowest = cells.flatten(1).amax(1), cells.flatten(1).amin(1)
    blank = highest <= 0
    if bool((blank & (lowest < 0)).any()):
        warnings = (*warnings, AGAINST)
    elif bool(blank.any()):
        warnings = (*warnings, BLANK)
    return layer_map(probe, cells.relu(), False, unit, warnings)
