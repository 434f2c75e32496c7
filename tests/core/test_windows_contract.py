"""Every method for segmentations keeps its card where the prediction is blended from windows."""

import pytest

from pellucid.core.explainer import Explainer
from pellucid.core.windows import SlidingWindows
from pellucid.testing import check_explainer
from pellucid.workbench.registry import explainers, make_explainer

WINDOWS = {2: SlidingWindows((12, 16), 0.5), 3: SlidingWindows((12, 8, 12), 0.25)}  # two or three windows
FEWER = {  # samples: what is asked is whether they are counted and shared out among windows rightly
    "ExactShapley": "players=grid:2",
    "ExpectedGradients": "samples=4",
    "BlurIG": "steps=4",
    "DeepSHAP": "references=2",
    "IntegratedGradients": "steps=4",
    "KernelSHAP": "players=grid:2,samples=20",
    "LIME": "players=grid:2,samples=20",
    "MorrisSensitivity": "players=grid:2,trajectories=2",
    "OneAtATime": "players=grid:2",
    "PartitionSHAP": "players=grid:2,samples=20",
    "RISE": "masks=32",
    "SmoothGrad": "samples=4",
    "SquareGrad": "samples=4",
    "VarGrad": "samples=4",
}
METHODS = [
    pytest.param(name, rank, id=f"{name}-{rank}d")
    for name, cls in explainers().items()
    for rank in sorted(cls.card.space)
    if "segmentation" in cls.card.tasks
]


@pytest.mark.parametrize(("name", "rank"), METHODS)
def test_method_keeps_its_card_in_windows(name: str, rank: int) -> None:
    method: Explainer = make_explainer(f"{name}:{FEWER[name]}" if name in FEWER else name)
    check_explainer(method, rank, "segmentation", WINDOWS[rank])
