"""Quantus as its users call it; only called, in the environment of the peers.

``numpy.trapz``, which Quantus 0.6.0 calls and numpy 2.4 removed, is put back here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import rivals  # noqa: F401 -- what makes torchvision importable, which Quantus imports by way of zennit
import torch
from torch import Tensor, nn

PATCHED = "numpy.trapz, removed in numpy 2.4, is put back for Quantus 0.6.0"
PLAIN = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}


def metric(name: str, **chosen: Any) -> Any:
    """One metric, made without warnings and bars; the map is taken as it is."""
    np.__dict__.setdefault("trapz", np.trapezoid)
    import quantus

    return getattr(quantus, name)(**PLAIN, **chosen)


def ask(made: Any, network: nn.Module, x: Tensor, label: int, **more: Any) -> Any:
    """The metric of one image: logits, as ours."""
    given = {"softmax": False, "channel_first": True, "device": "cpu"} | more
    return made(model=network, x_batch=x.numpy().copy(), y_batch=np.array([label]), **given)


def curve(network: nn.Module, x: Tensor, label: int, ranks: Tensor, fill: float, steps: int, deleting: bool) -> Tensor:
    """Scores after each step of hiding (or showing on the fill) the highest of a map, by PixelFlipping.

    Quantus only hides; insertion is hiding the fill behind the image, by a perturbation of one's own.

    Args:
        network: to logits.
        x: image, "1 1 row column".
        label: whose logit.
        ranks: map without ties.
        fill: value.
        steps: points after the first; they must divide the pixels.
        deleting: whether pixels are hidden.
    """
    each = {"features_in_step": x[0].numel() // steps}
    maps = ranks.numpy()
    if deleting:
        made = metric("PixelFlipping", perturb_baseline=fill, **each)
        return torch.tensor(ask(made, network, x, label, a_batch=maps)[0])
    made = metric("PixelFlipping", perturb_func=_shown(x.numpy().reshape(1, -1)), **each)
    return torch.tensor(ask(made, network, torch.full_like(x, fill), label, a_batch=maps)[0])


def _shown(image: np.ndarray) -> Callable[..., np.ndarray]:
    def show(arr: np.ndarray, indices: np.ndarray, **_named: object) -> np.ndarray:
        out = arr.copy()
        out[0, indices[0]] = image[0, indices[0]]
        return out

    return show


def road(network: nn.Module, x: Tensor, label: int, maps: Tensor) -> Any:
    """ROAD at 10, 20 ... 90 percent."""
    made = metric("ROAD", percentages=list(range(10, 100, 10)))
    return ask(made, network, x, label, a_batch=maps.numpy())


def suite(blocks: int, block: int, subsets: int, copies: int) -> Mapping[str, Any]:
    """Settings by metric, for an image of ``blocks`` squares of ``block`` pixels along an edge."""
    squares, pixels = {"patch_size": block, "perturb_baseline": "black"}, block**2
    step = {"features_in_step": pixels, "perturb_baseline": "black"}
    moved = ("MaxSensitivity", "AvgSensitivity", "LocalLipschitzEstimate")
    moved += ("RelativeInputStability", "RelativeOutputStability", "RelativeRepresentationStability")
    return {
        "PixelFlipping": step,
        "RegionPerturbation": squares | {"regions_evaluation": blocks**2},
        "Selectivity": squares,
        "IROF": {},
        "FaithfulnessCorrelation": {"nr_runs": subsets, "subset_size": pixels * blocks**2 // 5},
        "FaithfulnessEstimate": step,
        "Monotonicity": step,
        "Infidelity": {"perturb_patch_sizes": [block], "n_perturb_samples": 1},
        "ROAD": {"percentages": list(range(10, 100, 10))},
        **{name: {"nr_samples": copies} for name in moved},
        "Sparseness": {},
        "Complexity": {},
    }


def gradient(model: nn.Module, inputs: Any, targets: Any, **_named: object) -> np.ndarray:
    """The absolute gradient, which metrics that explain again call."""
    x = torch.as_tensor(np.asarray(inputs), dtype=torch.float32).requires_grad_()
    total = model(x)[torch.arange(len(x)), torch.as_tensor(np.asarray(targets))].sum()
    return torch.autograd.grad(total, x)[0].abs().numpy()


def run(name: str, settings: Mapping[str, Any], network: nn.Module, x: Tensor, label: int, maps: Tensor) -> Any:
    """One metric of the suite on one image."""
    return ask(metric(name, **settings), network, x, label, a_batch=maps.numpy(), explain_func=gradient)
