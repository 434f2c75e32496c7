"""The peers' formulas over coalitions of players, see ``formulas``."""

from math import comb

import torch
from torch import Tensor

from pellucid.verify.evidence import Evidence
from pellucid.verify.formulas import Defects, Formula

_ENDS = 1e6  # the weight that captum gives nobody and everybody


def _kernel_shap(evidence: Evidence, defects: Defects) -> Tensor:
    """Lundberg and Lee (2017): the weighted regression over all coalitions, through nobody and everybody.

    B20: coalitions are drawn one by one, again and again, though all would fit; the two ends have a large weight.
    """
    players = evidence.given["players"][0]
    count = int(players.max()) + 1
    if "B20" in defects:
        shown = evidence.given["drawn"].double()
        ends = (shown.sum(1) == 0) | (shown.sum(1) == count)
        weight = torch.where(ends, _ENDS, 1.0).double()
    else:
        shown = (torch.arange(2**count)[:, None] >> torch.arange(count) & 1).double()[1:-1]
        kernel = [(count - 1) / (comb(count, s) * s * (count - s)) for s in range(1, count)]
        weight = torch.tensor(kernel, dtype=torch.float64)[shown.sum(1).long() - 1]
    paid = _paid(evidence, players, shown)
    if "B20" in defects:
        rows = torch.cat([shown, torch.ones_like(shown[:, :1])], 1)
        values = _least_squares(rows, paid, weight)[:count]
    else:
        nobody, everybody = _paid(evidence, players, torch.tensor([[0.0] * count, [1.0] * count]).double())
        rest = paid - nobody - shown[:, -1] * (everybody - nobody)
        first = _least_squares(shown[:, :-1] - shown[:, -1:], rest, weight)
        values = torch.cat([first, (everybody - nobody - first.sum())[None]])
    return (values / torch.bincount(players.flatten()))[players][None, None]


def _paid(evidence: Evidence, players: Tensor, shown: Tensor) -> Tensor:
    """The score of each coalition, the hidden black."""
    with torch.no_grad():
        images = evidence.x * shown[:, players][:, None]
        return torch.cat([evidence.scores(part, evidence.prepared.labels * len(part)) for part in images.split(64)])


def _least_squares(rows: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    root = weight.sqrt()[:, None]
    return torch.linalg.lstsq(root * rows, root * values[:, None], driver="gelsd").solution[:, 0]


GAME_FORMULAS: dict[str, Formula] = {"captum KernelShap": Formula(frozenset({"B20"}), _kernel_shap)}
