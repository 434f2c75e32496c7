"""Maps as torchcam makes them: on the layer's cells, not divided by their maximum, under ``map``."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Given = dict[str, Any]
Found = dict[str, Tensor]


def _cam(name: str) -> Callable[..., Found]:
    """One of torchcam's extractors."""

    def call(net: nn.Module, x: Tensor, labels: list[int], layer: str, given: Given) -> Found:
        from torchcam import methods

        options = {"fc_layer": given["head"]} if name == "CAM" else {}
        with getattr(methods, name)(net, layer, input_shape=tuple(x.shape[1:]), **options) as extractor:
            return {"map": extractor(labels, net(x), normalized=False)[0].detach()[:, None]}

    return call


NAMES = ("CAM", "GradCAM", "GradCAMpp", "XGradCAM", "LayerCAM", "ScoreCAM")
CALLS: dict[str, Callable[..., Found]] = {name: _cam(name) for name in NAMES}
