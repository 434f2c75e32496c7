"""Maps as shap, lime and SALib make them, under ``map``: of parts of an image painted on its voxels, or of voxels.

The parts ("players") are handed over as a label map for each item, and so is what ours drew; the hidden are black.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Given = dict[str, Any]
Found = dict[str, Tensor]
Score = Callable[[np.ndarray], np.ndarray]
Values = Callable[[Score, int, int, Given], np.ndarray]  # of a game, its number of players, the item, what was given
_AT_ONCE = 64


def _game(net: nn.Module, image: Tensor, label: int, players: Tensor) -> Score:
    """The score of one image with the players of each row shown and the others black."""

    def score(rows: np.ndarray) -> np.ndarray:
        keeps = torch.as_tensor(np.asarray(rows), dtype=image.dtype)[:, players][:, None]
        with torch.no_grad():
            return torch.cat([net(image * part)[:, label] for part in keeps.split(_AT_ONCE)]).numpy()

    return score


def _painted(values: Values, shared: bool) -> Callable[..., Found]:
    """A call that asks for the players' values of each item and paints them, ``shared`` out among their voxels."""

    def call(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
        maps = []
        for item, (image, label, players) in enumerate(zip(x, labels, given["players"], strict=True)):
            sizes = torch.bincount(players.flatten())
            found = values(_game(net, image, label, players), len(sizes), item, given)
            worth = torch.as_tensor(np.asarray(found), dtype=x.dtype)
            maps.append((worth / sizes if shared else worth)[players][None])
        return {"map": torch.stack(maps)}

    return call


def _exact(score: Score, count: int, _item: int, _given: Given) -> np.ndarray:
    """Every coalition."""
    import shap

    explainer = shap.ExactExplainer(score, np.zeros((1, count)))
    return explainer(np.ones((1, count)), max_evals=2**count, silent=True).values[0]


def _kernel(score: Score, count: int, _item: int, given: Given) -> np.ndarray:
    """As many samples as asked, without the penalty that the peer adds by itself."""
    import shap

    np.random.seed(0)  # noqa: NPY002 -- the peer draws from it
    explainer = shap.KernelExplainer(score, np.zeros((1, count)))
    return explainer.shap_values(np.ones((1, count)), nsamples=given["samples"], l1_reg=False, silent=True)[0]


def _partition(score: Score, count: int, item: int, given: Given) -> np.ndarray:
    """Owen values on the hierarchy that ours has cut."""
    import shap

    masker = shap.maskers.Partition(np.zeros((1, count)), clustering=given["linkage"][item].numpy())
    explainer = shap.PartitionExplainer(score, masker)
    return explainer(np.ones((1, count)), max_evals=given["samples"], batch_size=16, silent=True).values[0]


def _morris(score: Score, count: int, item: int, given: Given) -> np.ndarray:
    """A statistic of the elementary effects along the trajectories that ours has drawn."""
    from SALib.analyze import morris

    states = given["shown"][:, item].double().numpy()
    problem = {"num_vars": count, "names": [str(p) for p in range(count)], "bounds": [[0.0, 1.0]] * count}
    return np.asarray(morris.analyze(problem, states, score(states), num_levels=2, seed=0)[given["statistic"]])


class _Told(np.random.RandomState):
    """Tosses from a list instead of draws."""

    tosses: np.ndarray

    def randint(self, *_positional: Any, **_named: Any) -> np.ndarray:
        return self.tosses.copy()


def _lime(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """The peer's explainer for pictures as it comes, on our players and tosses; gray becomes three equal channels."""
    from lime.lime_image import LimeImageExplainer

    channels, tosses = x.shape[1], _Told(0)
    picture = x[0].movedim(0, -1).numpy()
    tosses.tosses = given["shown"][:, 0].long().flatten().numpy()

    def scores(pictures: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.as_tensor(pictures[..., :channels]).movedim(-1, 1)).numpy()

    players = given["players"][0]
    found = LimeImageExplainer(random_state=tosses).explain_instance(
        picture if channels > 1 else picture[..., 0],
        scores,
        labels=(labels[0],),
        top_labels=None,
        hide_color=0,
        num_samples=len(given["shown"]),
        segmentation_fn=lambda _: players.numpy(),
    )
    worth = torch.zeros(int(players.max()) + 1, dtype=x.dtype)
    for player, value in found.local_exp[labels[0]]:
        worth[player] = float(value)
    return {"map": worth[players][None, None]}


def _lime_base(score: Score, _count: int, item: int, given: Given) -> np.ndarray:
    """The peer's fit alone, which knows no picture: for volumes."""
    from lime.lime_base import LimeBase
    from sklearn.metrics import pairwise_distances

    shown = given["shown"][:, item].double().numpy()
    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)), random_state=np.random.RandomState(0))
    away = pairwise_distances(shown, shown[:1], metric="cosine").ravel()
    _, found, *_ = base.explain_instance_with_data(shown, score(shown)[:, None], away, 0, shown.shape[1])
    return np.array([value for _, value in sorted(found)])


def _deep(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """Each item against its references, else against black, and whether the peer refuses its own sum."""
    import shap

    references = given.get("references", torch.zeros_like(x)[None])
    maps, refused = [], False
    for item, label in enumerate(labels):
        made = shap.DeepExplainer(net, references[:, item].clone())
        try:
            made.shap_values(x[item : item + 1], check_additivity=True)
        except AssertionError:
            refused = True
        values = made.shap_values(x[item : item + 1], check_additivity=False)
        maps.append(torch.as_tensor(np.asarray(values))[..., label])
    return {"map": torch.cat(maps), "refused": torch.tensor(refused)}


CALLS: dict[str, Callable[..., Found]] = {
    "ExactExplainer": _painted(_exact, shared=True),
    "KernelExplainer": _painted(_kernel, shared=True),
    "PartitionExplainer": _painted(_partition, shared=True),
    "DeepExplainer": _deep,
    "morris.analyze": _painted(_morris, shared=False),
    "LimeImageExplainer": _lime,
    "LimeBase": _painted(_lime_base, shared=False),
}
