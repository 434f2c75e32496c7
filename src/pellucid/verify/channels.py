"""The peers' formulas that weight a layer's channels by forwards, or sum over every bias; see ``formulas``."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.verify.bridges import enlarged, ranged
from pellucid.verify.evidence import Evidence, over_space
from pellucid.verify.formulas import Defects, Formula, grad_cam, weighted


def _unit(x: Tensor) -> Tensor:
    """Each channel of each item brought to 0..1; one that is the same everywhere to 0."""
    low, high = x.amin(over_space(x), keepdim=True), x.amax(over_space(x), keepdim=True)
    return (x - low) / torch.where(high > low, high - low, 1)


def _score_cam(evidence: Evidence, masks: Tensor, defects: Defects) -> Tensor:
    """Wang et al. (2020): channels weighted by the softmax of the scores of the image seen through them.

    C7: a channel that is the same everywhere, and so shows nothing, takes its share of the weight all the same.
    """
    a = evidence.cells[0]
    with torch.no_grad():
        scores = torch.stack([evidence.scores(evidence.x * masks[:, k : k + 1]) for k in range(masks.shape[1])], 1)
    flat = a.flatten(2).amax(2) == a.flatten(2).amin(2)
    weights = scores.softmax(1) if "C7" in defects else scores.masked_fill(flat, -torch.inf).softmax(1)
    return weighted(weights, a)


def _torchcam_score_cam(evidence: Evidence, defects: Defects) -> Tensor:
    """C2: a channel is brought to 0..1 before it is enlarged, not after, so that its mask does not reach 1."""
    a = evidence.cells[0]
    masks = enlarged(_unit(a), evidence) if "C2" in defects else _unit(enlarged(a, evidence))
    return _score_cam(evidence, masks, defects).relu()


def _gradcam_score_cam(evidence: Evidence, defects: Defects) -> Tensor:
    """C3: channels are enlarged corner to corner, and the map itself by half-pixel centers."""
    a, shape = evidence.cells[0], evidence.x.shape[2:]
    corners = functional.interpolate(a, shape, mode="bilinear", align_corners=True) if "C3" in defects else None
    return _score_cam(evidence, _unit(enlarged(a, evidence) if corners is None else corners), defects)


def _x_grad_cam(evidence: Evidence, defects: Defects) -> Tensor:
    """Fu et al. (2020), equation 8. C8: an absolute constant is added to a sum that may have either sign."""
    a, g = evidence.cells
    below = a.sum(over_space(a)) + (1e-8 if "C8" in defects else 0.0)
    share = (g * a).sum(over_space(a)) / torch.where(below == 0, torch.ones_like(below), below)
    return weighted(share, a).relu()


def _ablation_cam(evidence: Evidence, defects: Defects) -> Tensor:
    """Desai and Ramaswamy (2020). C4: signed channels are set to their minimum less ten million, not to zero."""
    a = evidence.cells[0]
    off = float(a.min()) - 1e7 if "C4" in defects else 0.0
    falls = []
    for k in range(a.shape[1]):
        changed = a.clone()
        changed[:, k] = off
        falls.append(evidence.score - evidence.scores_behind(changed))
    values = weighted(torch.stack(falls, 1) / evidence.score[:, None], a).relu()
    return ranged(enlarged(values, evidence), evidence)


def _full_grad(evidence: Evidence, defects: Defects) -> Tensor:
    """Srinivas and Fleuret (2019) over the image and every bias with a place. C5: each channel is brought to 0..1."""
    x = evidence.x
    total = _part((evidence.gradient() * x).abs(), evidence, defects)
    layers = [(n, m) for n, m in evidence.net.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    biases = {name: bias for name, layer in layers if (bias := _bias(layer)) is not None}
    for name, (_, g) in evidence.cells_of(list(biases)).items():
        total = total + _part((g * biases[name].view(1, -1, 1, 1)).abs(), evidence, defects)
    return ranged(total, evidence)


def _bias(layer: nn.Conv2d | nn.BatchNorm2d) -> Tensor | None:
    """What the layer adds; batch normalization adds its mean too."""
    if isinstance(layer, nn.Conv2d):
        return None if layer.bias is None else layer.bias.detach()
    return (layer.bias - layer.running_mean * layer.weight / (layer.running_var + layer.eps).sqrt()).detach()


def _part(size: Tensor, evidence: Evidence, defects: Defects) -> Tensor:
    """A layer's part on the image's grid: each cell's value is divided among its voxels."""
    if "C5" in defects:
        low, high = size.amin(over_space(size), keepdim=True), size.amax(over_space(size), keepdim=True)
        return enlarged((size - low) / (high - low + 1e-7), evidence).sum(1, keepdim=True)
    share = size[0, 0].numel() / evidence.x[0, 0].numel()
    return share * enlarged(size.sum(1, keepdim=True), evidence)


def _guided_grad_cam(evidence: Evidence, defects: Defects) -> Tensor:
    """Selvaraju et al. (2017). C6: the coarse map is enlarged by nearest neighbor unless told otherwise."""
    cells, shape = grad_cam(*evidence.cells), evidence.x.shape[2:]
    large = functional.interpolate(cells, shape) if "C6" in defects else enlarged(cells, evidence)
    return evidence.guided() * large


CHANNEL_FORMULAS: dict[str, Formula] = {
    "torchcam XGrad-CAM": Formula(frozenset({"C8"}), _x_grad_cam),
    "torchcam Score-CAM": Formula(frozenset({"C2", "C7"}), _torchcam_score_cam),
    "grad-cam Score-CAM": Formula(frozenset({"C3", "C7"}), _gradcam_score_cam),
    "grad-cam Ablation-CAM": Formula(frozenset({"C4"}), _ablation_cam),
    "grad-cam FullGrad": Formula(frozenset({"C5"}), _full_grad),
    "captum nearest": Formula(frozenset({"C6"}), _guided_grad_cam),
}
