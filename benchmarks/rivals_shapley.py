"""captum's and shap's estimators of Shapley values, as their users call them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

Paid = Callable[[np.ndarray], np.ndarray]  # rows of 0 and 1, one column for each player, to their payoffs


def captum_kernel_shap(paid: Paid, count: int, samples: int, seed: int) -> np.ndarray:
    """KernelShap of one game, all samples in one call."""
    from captum.attr import KernelShap

    def score(rows: Tensor) -> Tensor:
        return torch.from_numpy(paid(rows.round().numpy()))

    torch.manual_seed(seed)
    found = KernelShap(score).attribute(
        torch.ones(1, count), torch.zeros(1, count), n_samples=samples, perturbations_per_eval=samples
    )
    return found[0].double().numpy()


def shap_kernel(paid: Paid, count: int, samples: int, seed: int) -> np.ndarray:
    """KernelExplainer of one game as it comes: it keeps ten players."""
    return _shap_kernel(paid, count, samples, seed, "num_features(10)")


def shap_kernel_plain(paid: Paid, count: int, samples: int, seed: int) -> np.ndarray:
    """KernelExplainer of one game without the selection that it makes by itself: all players are kept."""
    return _shap_kernel(paid, count, samples, seed, False)


def _shap_kernel(paid: Paid, count: int, samples: int, seed: int, selection: str | bool) -> np.ndarray:
    import shap

    np.random.seed(seed)  # noqa: NPY002 -- the peer draws from it
    explainer = shap.KernelExplainer(paid, np.zeros((1, count)))
    return explainer.shap_values(np.ones((1, count)), nsamples=samples, l1_reg=selection, silent=True)[0]


def shap_partition(network: nn.Module, x: Tensor, samples: int, batch: int, tree: np.ndarray) -> Tensor:
    """PartitionExplainer on an image ("1 channel row column"), black where hidden.

    Its pixels are joined by our ``tree``: the one that it makes by itself lies point-reflected on the image.
    """
    import shap

    def score(pictures: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(pictures).movedim(-1, 1).float())[:, -1:].numpy()

    picture = x[0].movedim(0, -1).numpy()
    masker = shap.maskers.Image(np.zeros_like(picture), picture.shape)
    masker.clustering = tree
    found = shap.Explainer(score, masker, output_names=["score"])(
        picture[None], max_evals=samples, batch_size=batch, silent=True
    )
    return torch.from_numpy(found.values[..., 0]).movedim(-1, 1)
