"""What scikit-learn finds on a cohort of images, through an estimator that is the network; one row, under ``map``.

A part of the images is a column of the table: of numbers that say from which case it comes, or of its mean intensity.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from torch import Tensor, nn

Given = dict[str, Any]
Found = dict[str, Tensor]
Built = Callable[[np.ndarray], Tensor]  # a table to images


class _Network(RegressorMixin, BaseEstimator):
    """The network as an estimator of one score.

    Args:
        net: to logits.
        built: from a table to its images.
        label: whose score.
        share: whether after a softmax.
    """

    def __init__(self, net: nn.Module, built: Built, label: int, share: bool) -> None:
        self.net, self.built, self.label, self.share = net, built, label, share
        self.fitted_ = True

    def fit(self, _x: object, _y: object) -> "_Network":
        """Nothing to learn."""
        return self

    def predict(self, table: np.ndarray) -> np.ndarray:
        """The score of each row."""
        with torch.no_grad():
            out = self.net(self.built(np.asarray(table)))
        return (out.softmax(1) if self.share else out)[:, self.label].numpy()


class _Orders:
    """Stands for a random state: leaves a column in the orders that ours has drawn, one after the other."""

    def __init__(self, orders: np.ndarray) -> None:
        self._orders, self._now = iter(orders), np.arange(orders.shape[1])

    def shuffle(self, places: np.ndarray) -> None:
        """The peer shuffles what the repeat before has shuffled."""
        wanted = next(self._orders)
        places[:] = np.argsort(self._now)[wanted]
        self._now = wanted


def _masks(parts: Tensor) -> list[Tensor]:
    """Voxels of each part."""
    return [parts == k for k in range(int(parts.max()) + 1)]


def _importance(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """Permutation importance of each part, on the permutations that ours has drawn."""
    from sklearn.inspection import _permutation_importance as room
    from sklearn.metrics import log_loss, mean_squared_error

    masks, orders = _masks(given["parts"]), given["orders"].numpy()

    def collage(table: np.ndarray) -> Tensor:
        made = x.clone()
        for k, mask in enumerate(masks):
            made[:, :, mask] = x[torch.from_numpy(table[:, k])][:, :, mask]
        return made

    logged = given["loss"] == "log"
    network = _Network(net, collage, labels[0], share=logged)
    table = np.tile(np.arange(len(x))[:, None], (1, len(masks)))
    truth = given["truth"].numpy() if logged else network.predict(table)

    def scored(estimator: _Network, rows: np.ndarray, y: np.ndarray) -> float:
        said = estimator.predict(rows)
        return -float(log_loss(y, said) if logged else mean_squared_error(y, said))

    original = room.check_random_state
    room.check_random_state = lambda seed: np.random.RandomState(0) if seed is None else _Orders(orders)
    try:
        found = room.permutation_importance(network, table, truth, scoring=scored, n_repeats=len(orders))
    finally:
        room.check_random_state = original
    return {"map": torch.from_numpy(found.importances_mean)[None]}


def _means(x: Tensor, masks: list[Tensor]) -> np.ndarray:
    return np.stack([x[:, :, mask].flatten(1).mean(1).numpy() for mask in masks], 1)


def _dependence(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """The mean curve and each case's own along the mean intensity of each part, at the values that ours has set."""
    from sklearn.inspection import partial_dependence

    masks = _masks(given["parts"])
    now = _means(x, masks)

    def brightened(table: np.ndarray) -> Tensor:
        made = x.clone()
        for k, mask in enumerate(masks):
            made[:, :, mask] += torch.from_numpy(table[:, k] - now[:, k])[:, None, None]
        return made

    network, curves = _Network(net, brightened, labels[0], share=False), []
    for k, values in enumerate(given["values"].numpy()):
        found = partial_dependence(network, now, [k], kind="both", method="brute", custom_values={k: values})
        curves += [found["average"].ravel(), found["individual"].ravel()]
    return {"map": torch.from_numpy(np.concatenate(curves))[None]}


def _surrogate(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """Held-out R2 of the surrogate and of the mean, and what moves the surrogate that is fitted to all cases."""
    from sklearn.inspection import partial_dependence
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.tree import DecisionTreeRegressor

    masks = _masks(given["parts"])
    spreads = [x.mean(1)[:, mask].std(1, correction=0).numpy() for mask in masks]
    table = np.stack([c for pair in zip(_means(x, masks).T, spreads, strict=True) for c in pair], 1)
    with torch.no_grad():
        score = net(x)[:, labels[0]].numpy()
    tree = DecisionTreeRegressor(max_depth=given["depth"], random_state=0)
    model = LinearRegression() if given["form"] == "linear" else tree
    folds = KFold(5, shuffle=True, random_state=0)
    found = [r2_score(score, cross_val_predict(model, table, score, cv=folds))]
    model.fit(table, score)
    points = np.quantile(table, (np.arange(11) + 0.5) / 11, axis=0)
    for k in range(table.shape[1]):
        curve = partial_dependence(model, table, [k], method="brute", custom_values={k: points[:, k]})
        found.append(np.std(curve["average"]))
    return {"map": torch.tensor(np.array(found))[None]}


CALLS: dict[str, Callable[..., Found]] = {
    "permutation_importance": _importance,
    "partial_dependence": _dependence,
    "cross_val_predict": _surrogate,
}
