"""Maps as MONAI makes them, under ``map``; and its defects, as numbers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Given = dict[str, Any]
Found = dict[str, Any]


def _cam(name: str) -> Callable[..., Found]:
    """One of MONAI's class activation maps, on the layer's cells; one item has a class by number (see B4)."""

    def call(net: nn.Module, x: Tensor, labels: list[int], layer: str, given: Given) -> Found:
        from monai import visualize

        options = {"fc_layers": given["head"]} if name == "CAM" else {}
        chosen: Any = labels if name == "CAM" else torch.tensor(labels) if len(labels) > 1 else labels[0]
        made = getattr(visualize, name)(net, layer, **options)
        return {"map": made.compute_map(x.clone().requires_grad_(), class_idx=chosen).detach()}

    return call


def _vanilla(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """The gradient of one item, asked for once or several times."""
    from monai.visualize import VanillaGrad

    made, x = VanillaGrad(net), x.clone()
    for _ in range(given["times"]):
        found = made(x, index=labels[0])
    return {"map": found.detach()}


def _smooth(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """SmoothGrad of one item, with the noise that ours has drawn."""
    from monai.visualize import SmoothGrad

    made = SmoothGrad(net, n_samples=given["draws"], magnitude=given["magnitude"], verbose=False)
    return {"map": made(x, index=labels[0]).detach()}


def _guided(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """Guided backpropagation; only modules named ``relu`` are replaced, so ReLU modules are named so first."""
    from monai.visualize import GuidedBackpropGrad

    return {"map": GuidedBackpropGrad(_RenamedReLU(net))(x.clone(), index=labels[0]).detach()}


class _RenamedReLU(nn.Module):
    """A network whose ReLU modules have ``relu`` in their names."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        for name, module in list(net.named_modules()):
            if type(module) is nn.ReLU:
                parent, _, _ = name.rpartition(".")
                net.get_submodule(parent)._modules[name.rpartition(".")[2]] = nn.Sequential()  # noqa: SLF001
                net.get_submodule(name).add_module("relu", module)

    def forward(self, x: Tensor) -> Tensor:
        """As before."""
        return self.net(x)


def _occlusion(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """The class's value where a black block hides the voxel: lower means more important."""
    from monai.visualize import OcclusionSensitivity

    made = OcclusionSensitivity(
        net, mask_size=given["window"], n_batch=4, verbose=False, mode=0.0, overlap=0.0, activate=given["activate"]
    )
    with torch.no_grad():
        found = torch.as_tensor(made(x)[0])
    return {"map": found[:, labels[0] : labels[0] + 1], "sums": found.sum(1)}


def _overflown(net: nn.Module, x: Tensor, labels: list[int], layer: str, given: Given) -> Found:
    """B5: Grad-CAM++ of several items, and of one with a large logit."""
    call = _cam("GradCAMpp")
    try:
        call(net, x, labels, layer, given)
        raised = False
    except RuntimeError:
        raised = True
    with torch.no_grad():
        net.get_submodule(given["head"]).bias += 1000
    found = call(net, x[:1], labels[:1], layer, given)["map"]
    return {"raised": raised, "finite": bool(torch.isfinite(found).all())}


def _left_hooks(net: nn.Module, _x: Tensor, _labels: list[int], layer: str, _given: Given) -> Found:
    """B9: hooks on the network before and after three explainers have come and gone."""
    from monai.visualize import GradCAM

    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._backward_hooks) for m in net.modules())  # noqa: SLF001 -- no public count

    before = hooks()
    for _ in range(3):
        GradCAM(net, layer)
    return {"before": before, "after": hooks()}


CALLS: dict[str, Callable[..., Found]] = {
    "GradCAM": _cam("GradCAM"),
    "GradCAMpp": _cam("GradCAMpp"),
    "CAM": _cam("CAM"),
    "VanillaGrad": _vanilla,
    "SmoothGrad": _smooth,
    "GuidedBackpropGrad": _guided,
    "OcclusionSensitivity": _occlusion,
    "overflown": _overflown,
    "left hooks": _left_hooks,
}
