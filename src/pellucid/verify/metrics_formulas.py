"""The peers' formulas of metrics, written anew from the papers, each with a set of defects that it may have.

As in ``formulas``: nothing here calls a metric. A deviation is explained only if the formula with the defects gives the
peer's numbers, and the formula without them gives ours.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from pellucid.verify.evidence import Evidence
from pellucid.verify.formulas import Defects, Formula

_PATCH, _STEPS, _SIZES = 8, {"flipping": 21, "sensitivity": 24}, 4


def _scores(evidence: Evidence, images: Tensor) -> Tensor:
    """Of "draw item channel *space": "draw item"."""
    with torch.no_grad():
        return torch.stack([evidence.scores(image) for image in images])


def _hidden_in_turn(evidence: Evidence, order: Tensor, steps: int, over: int) -> Tensor:
    """Images with more and more hidden: "step item channel *space".

    Args:
        evidence: with the image.
        order: "item entry", the first to be hidden first.
        steps: in which all is hidden.
        over: channels that an entry is hidden in.
    """
    x, size = evidence.x, order.shape[1] // steps
    place = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order).contiguous())
    place = place.view(len(x), x.shape[1] // over, *x.shape[2:]).expand_as(x)
    return torch.stack([torch.where(place < size * k, 0.0, x) for k in range(1, steps + 1)])


def _flipping(evidence: Evidence, defects: Defects) -> Tensor:
    """Bach et al. (2015). M1: the channels of a voxel are hidden one by one, in whatever order ties fall."""
    x, a, channels = evidence.x, evidence.given["map"], evidence.x.shape[1]
    if "M1" in defects:
        entries = np.ascontiguousarray(a.expand_as(x).flatten(1).numpy())
        steps = _STEPS["flipping"] * channels
        images = _hidden_in_turn(evidence, torch.from_numpy(np.argsort(-entries, axis=1)), steps, 1)
    else:
        order = a.flatten(1).argsort(dim=1, descending=True, stable=True)
        images = _hidden_in_turn(evidence, order, _STEPS["flipping"], channels)
    return _scores(evidence, images).T


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """Over the first axis."""
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / (a.square().sum(0) * b.square().sum(0)).sqrt()


def _sensitivity(evidence: Evidence, defects: Defects) -> Tensor:
    """Ancona et al. (2018): over random parts of n units, within a case.

    Q3: over the cases of the first batch, for the n highest entries that are left; M1 with it.
    """
    x, a, steps = evidence.x, evidence.given["map"], _STEPS["sensitivity"]
    if "Q3" in defects:
        entries = np.ascontiguousarray(a.expand_as(x).flatten(1).numpy())
        order = torch.from_numpy(np.argsort(-entries, axis=1))
        falls = evidence.score - _scores(evidence, _hidden_in_turn(evidence, order, steps, 1))
        sums = torch.from_numpy(entries).gather(1, order).unflatten(1, (steps, -1)).sum(2)
        most = int(0.8 * x[0, 0].numel() // (x[0].numel() // steps))  # of the voxels, though entries are counted
        return _pearson(falls.T, sums)[:most, None]
    seen = evidence.given["seen"]
    falls = evidence.score - _scores(evidence, seen)
    sums = torch.stack([(a * (one != x).any(1, keepdim=True)).flatten(1).sum(1) for one in seen])
    parts = zip(falls.chunk(_SIZES), sums.chunk(_SIZES), strict=True)
    return torch.stack([_pearson(f, s) for f, s in parts]).mean(0)[:, None]


def _drift(evidence: Evidence, defects: Defects) -> Tensor:
    """Rieger and Hansen (2020), the share of the score that is gone, the mean over the pieces.

    Q10: the mean that stands for what is hidden is taken of what is left. M3: areas of whole steps are summed, so that
    the number grows with that of the pieces, and the score of the empty image is taken for none.
    """
    x, a, pieces = evidence.x, evidence.given["map"], evidence.given["pieces"]
    count, score = int(pieces.max()) + 1, evidence.score
    order = torch.stack([a[0, 0][pieces[0] == k].mean() for k in range(count)]).argsort(descending=True, stable=True)
    whole, left, images = x.mean(), x, []
    for piece in order:
        left = torch.where(pieces[0] == piece, left.mean() if "Q10" in defects else whole, left)
        images.append(left)
    scores = _scores(evidence, torch.stack(images))
    if "M3" in defects:
        return (count - torch.trapezoid(scores / score, dim=0))[:, None]
    return ((score - scores) / (score - scores[-1])).mean(0)[:, None]


def _cumulative(evidence: Evidence, defects: Defects) -> Tensor:
    """Yeh et al. (2019), every change from the image itself, the map first brought to the unit of the score.

    Q7: over patches of one grid that stay hidden while the next is, without a unit, the map for slopes.
    """
    x, a, score = evidence.x, evidence.given["map"], evidence.score
    if "Q7" not in defects:
        images = evidence.given["seen"]
        falls = score - _scores(evidence, images)
        sums = torch.stack([(a * (one != x).any(1, keepdim=True)).flatten(1).sum(1) for one in images])
        beta = (sums * falls).mean(0) / sums.square().mean(0)
        return (beta * sums - falls).square().mean(0)[:, None]
    left, images = x.clone(), []
    for row in range(0, x.shape[2], _PATCH):
        for column in range(0, x.shape[3], _PATCH):
            left = left.clone()
            left[:, :, row : row + _PATCH, column : column + _PATCH] = 0
            images.append(left)
    sums = torch.stack([((x - one) * a).flatten(1).sum(1) for one in images])
    return (score - _scores(evidence, torch.stack(images)) - sums).square().mean(0)[:, None]


def _signed_sums(evidence: Evidence, defects: Defects) -> Tensor:
    """Arras et al. (2022), of the evidence for the target. M2: evidence against it is taken off both sums."""
    a = evidence.given["map"] if "M2" in defects else evidence.given["map"].clamp_min(0)
    inside = (a * evidence.given["region"]).flatten(1).sum(1)
    return (inside / a.flatten(1).sum(1))[:, None]


def _whole_batch(evidence: Evidence, defects: Defects) -> Tensor:
    """Alvarez-Melis and Jaakkola (2018). Q9: each map is divided by the largest value of the whole batch."""

    def made(x: Tensor) -> Tensor:
        values = (evidence.gradient(x) * x).sum(1, keepdim=True)
        return values / values.abs().max() if "Q9" in defects else values

    here, x = made(evidence.x), evidence.x
    slopes = [
        (made(one) - here).flatten(1).norm(dim=1) / (one - x).flatten(1).norm(dim=1) for one in evidence.given["seen"]
    ]
    return torch.stack(slopes).amax(0)[:, None]


def _added(evidence: Evidence, defects: Defects) -> Tensor:
    """Chalasani et al. (2020), the Gini coefficient. M4: an absolute constant is added to each value of the map."""
    values = evidence.given["map"].flatten(1).abs().sort(dim=1).values + (1e-7 if "M4" in defects else 0.0)
    count = values.shape[1]
    weight = 2 * torch.arange(1, count + 1, dtype=torch.float64) - count - 1
    return ((weight * values).sum(1) / (count * values.sum(1)))[:, None]


def _flattened(evidence: Evidence, defects: Defects) -> Tensor:
    """Sixt et al. (2020), by SSIM. Q12: of the maps as lines of numbers, so that no neighborhood is one."""
    maps = []
    for labels in (evidence.prepared.labels, tuple(evidence.given["other"].tolist())):
        leaf = evidence.x.clone().requires_grad_()
        slopes = torch.autograd.grad(evidence.scores(leaf, labels).sum(), leaf)[0]
        maps.append((slopes * evidence.x).sum(1))
    pairs = zip(*maps, strict=True)
    return torch.tensor([_alike(a.numpy(), b.numpy(), "Q12" in defects) for a, b in pairs], dtype=torch.float64)[
        :, None
    ]


def _alike(a: NDArray[np.float64], b: NDArray[np.float64], flat: bool) -> float:
    if flat:
        both = np.stack([a.ravel(), b.ravel()])
        return float(structural_similarity(*both, data_range=float(both.max() - both.min())))
    return float(structural_similarity(a / np.abs(a).max(), b / np.abs(b).max(), data_range=2.0))


METRIC_FORMULAS: dict[str, Formula] = {
    "entries": Formula(frozenset({"M1"}), _flipping),
    "sensitivity": Formula(frozenset({"Q3"}), _sensitivity),
    "drift": Formula(frozenset({"Q10", "M3"}), _drift),
    "cumulative": Formula(frozenset({"Q7"}), _cumulative),
    "signed sums": Formula(frozenset({"M2"}), _signed_sums),
    "added": Formula(frozenset({"M4"}), _added),
    "flattened": Formula(frozenset({"Q12"}), _flattened),
    "whole batch": Formula(frozenset({"Q9"}), _whole_batch),
}
