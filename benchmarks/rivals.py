"""The peers as their users call them: one map at a time, with the parameters' gradients left on."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from subjects import Subject
from torch import Tensor, nn

# torchvision has no build beside a CPU torch and does not import for want of its operators, which grad-cam never calls
_ABSENT = "torchvision._meta_registrations"
sys.modules.setdefault(_ABSENT, ModuleType(_ABSENT))
CAMS = ("GradCAM", "GradCAMPlusPlus", "XGradCAM", "HiResCAM", "LayerCAM", "EigenCAM", "EigenGradCAM")


@dataclass(frozen=True, eq=False)
class Cells:
    """What grad-cam computed at the layer, before its ReLU, scaling and enlargement."""

    map: Tensor
    activation: Tensor
    gradient: Tensor


def grad_cam_map(method: str, network: nn.Module, subject: Subject, label: int) -> np.ndarray:
    """One map of grad-cam."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layers = [] if method == "FullGrad" else [network.get_submodule(subject.layer)]
    with getattr(pytorch_grad_cam, method)(model=network, target_layers=layers) as made:
        made.batch_size = 8
        return made(input_tensor=subject.image.clone(), targets=[ClassifierOutputTarget(label)] * len(subject.image))


def grad_cam_cells(method: str, network: nn.Module, subject: Subject, label: int) -> Cells:
    """One map of grad-cam on the layer's own cells, to compare maps without anyone's enlargement."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    found: list[Cells] = []
    with getattr(pytorch_grad_cam, method)(model=network, target_layers=[network.get_submodule(subject.layer)]) as made:
        original = made.get_cam_image

        def kept(x: Tensor, layer: object, targets: object, a: np.ndarray, g: np.ndarray, smooth: bool) -> np.ndarray:
            cells = original(x, layer, targets, a, g, smooth)
            gradient = torch.zeros(a.shape) if g is None else torch.as_tensor(g)
            found.append(Cells(torch.as_tensor(cells)[:, None], torch.as_tensor(a), gradient))
            return cells

        made.get_cam_image = kept
        made(input_tensor=subject.image.clone(), targets=[ClassifierOutputTarget(label)] * len(subject.image))
    return found[0]


def plus_plus(cells: Cells, added: float) -> Tensor:
    """Grad-CAM++ on the layer's cells; grad-cam adds a constant to a denominator as small (defect B3)."""
    a, g = cells.activation.double(), cells.gradient.double()
    space = tuple(range(2, a.ndim))
    denominator = 2 * g**2 + a.sum(space, keepdim=True) * g**3 + added
    alpha = torch.where(g == 0, torch.zeros_like(g), g**2 / denominator)
    return ((alpha * g.relu()).sum(space, keepdim=True) * a).sum(1, keepdim=True)


def working(methods: Sequence[str], network: nn.Module, subject: Subject, label: int) -> tuple[list[str], dict]:
    """The methods of grad-cam that run on a network, and what the others say."""
    runs: list[str] = []
    fails: dict[str, str] = {}
    for method in methods:
        try:
            grad_cam_map(method, network, subject, label)
        except Exception as raised:  # a peer may raise anything; the reader is told what
            fails[method] = f"{type(raised).__name__}: {raised}"[:200]
        else:
            runs.append(method)
    return runs, fails


def monai_map(method: str, network: nn.Module, subject: Subject, label: int) -> Tensor:
    """One map of MONAI, as it shows it."""
    from monai import visualize

    return getattr(visualize, method)(nn_module=network, target_layers=subject.layer)(
        x=subject.image.clone(), class_idx=label
    )


def monai_cells(method: str, network: nn.Module, subject: Subject, label: int) -> Tensor:
    """One map of MONAI on the layer's own cells."""
    from monai import visualize

    made = getattr(visualize, method)(nn_module=network, target_layers=subject.layer)
    return made.compute_map(subject.image.clone().requires_grad_(), class_idx=label).detach()


def captum_maps(network: nn.Module, subject: Subject, label: int) -> dict[str, Callable[[], Tensor]]:
    """Captum's counterpart of each gradient map, by the name of ours."""
    from captum import attr

    def made(name: str, **options: bool) -> Callable[[], Tensor]:
        def one() -> Tensor:
            x = subject.image.clone().requires_grad_()
            return getattr(attr, name)(network).attribute(x, target=label, **options).detach()

        return one

    return {
        "Saliency": made("Saliency"),
        "Saliency:sign=kept": made("Saliency", abs=False),
        "InputXGradient": made("InputXGradient"),
    }


def captum_integrated(network: nn.Module, subject: Subject, label: int, steps: int) -> Tensor:
    """Captum's integrated gradients from zero as they come: all steps in one batch."""
    from captum.attr import IntegratedGradients

    return IntegratedGradients(network).attribute(subject.image.clone(), target=label, n_steps=steps).detach()
