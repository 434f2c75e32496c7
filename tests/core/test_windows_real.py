"""A trained network on a brain volume, by windows, for a region that crosses seams: as MONAI's blend under autograd."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

import pellucid.demo
from pellucid.core.card import Ask
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.infill import Constant
from pellucid.core.model import Model
from pellucid.core.perwindow import answered
from pellucid.core.prepare import prepare
from pellucid.core.probe import Probe
from pellucid.core.target import RegionScore
from pellucid.core.windows import SlidingWindows
from pellucid.explain.cam import GradCAM
from pellucid.explain.deeplift import DeepLIFT
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.explain.guided import GuidedBackprop
from pellucid.explain.occlusion import Occlusion
from pellucid.explain.path import IntegratedGradients
from pellucid.io.models import load_model
from pellucid.io.reader import read_image

WINDOWS = SlidingWindows((24, 32, 24), 0.5)
LABEL = "anterior hippocampus"


class Monai(nn.Module):
    """The whole prediction as one module, whose windows autograd keeps all at once."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.handed = network, False
        self.weights = WINDOWS.layout(WINDOWS.size).weight(torch.device("cpu"))[0, 0]

    def forward(self, x: Tensor) -> Tensor:
        # with its weights as a map: DeepLIFT would ask for a rule for each operation that computes them
        found = sliding_window_inference(
            x,
            WINDOWS.size,
            1,
            self.network,
            WINDOWS.overlap,
            WINDOWS.blend,
            roi_weight_map=self.weights if self.handed else None,
        )
        assert isinstance(found, Tensor)
        return found


@pytest.fixture(scope="module")
def models(shared_data: Path) -> tuple[Model, Model, Tensor]:
    """The demonstration's network told to slide, the same by MONAI, and a volume of its training source at 1 mm."""
    loaded = load_model(Path(pellucid.demo.__file__).parent / "models" / "hippocampus" / "model.toml")
    path = sorted((shared_data / "mri_hippocampus" / "images").glob("*.nii.gz"))[0]
    spec = replace(loaded.model.inputs[0], size=None)
    x = prepare(read_image(path), spec).tensor[None]
    whole = replace(loaded.model, inputs=(spec,), module=Monai(loaded.model.module), _traces={}, _defaults={})
    return replace(whole, module=loaded.model.module, inference=WINDOWS, _traces={}), whole, x


def asked(model: Model, x: Tensor, method: Explainer) -> Attribution:
    answer = answered(method, Probe(model, x, RegionScore(LABEL), method.needs(model, {"image": x})))
    assert isinstance(answer, Attribution)
    return answer


def test_the_blend_is_monais_and_the_region_crosses_seams(models: tuple[Model, Model, Tensor]) -> None:
    ours, whole, x = models
    probe, other = (Probe(m, x, RegionScore(LABEL), ((Ask.OUTPUT, None),)) for m in (ours, whole))
    assert float((probe.output - other.output).abs().max() / other.output.abs().max()) < 1e-6
    region = probe.output.argmax(1)[0] == ours.output.labels.index(LABEL)
    layout = WINDOWS.of(probe.inputs)
    assert len(layout.starts) >= 12
    assert sum(bool(region[layout.at(s)[2:]].any()) for s in layout.starts) >= 4


@pytest.mark.parametrize(
    "method",
    [
        Saliency(),
        InputXGradient(),
        IntegratedGradients(steps=2, baseline=Constant(0.0), rule="gauss"),
        GuidedBackprop(),
        DeepLIFT(baseline=Constant(0.0)),
        Occlusion(window=24, stride=24, infill=Constant(0.0)),
    ],
    ids=lambda m: m.name,
)
def test_maps_are_those_of_the_whole(models: tuple[Model, Model, Tensor], method: Explainer) -> None:
    ours, whole, x = models
    module = whole.module
    assert isinstance(module, Monai)
    module.handed = isinstance(method, DeepLIFT)
    found, wanted = (asked(m, x, method).maps["image"] for m in (ours, whole))
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5


def test_a_class_activation_map_says_that_it_is_per_window(models: tuple[Model, Model, Tensor]) -> None:
    answer = asked(models[0], models[2], GradCAM())
    assert answer.warnings[0].startswith("per window: the model predicts by windows of 24 x 32 x 24 voxels")
    assert float(answer.maps["image"].max()) > 0
