"""What a method cannot explain: each refusal says what was expected, what was got, and the mend."""

import re

import pytest
import torch
from torch import nn

from pellucid.core.errors import (
    BadCard,
    BadOption,
    BadRegion,
    CannotDo,
    NonFinite,
    PellucidError,
    ShapeMismatch,
    UnknownLabel,
    UnknownLayer,
    UnknownName,
)
from pellucid.core.infill import Constant
from pellucid.core.model import Abilities, OutputSpec
from pellucid.core.target import ClassScore, RegionScore
from pellucid.explain.cam import GradCAM, HiResCAM
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.explain.guided import Deconvolution, GuidedBackprop
from pellucid.explain.noise import SmoothGrad, SquareGrad, VarGrad
from pellucid.explain.occlusion import Occlusion
from pellucid.explain.path import IntegratedGradients

EVERY = [
    *(Saliency(), InputXGradient(), SmoothGrad(2), SquareGrad(2), VarGrad(2), GuidedBackprop(), Deconvolution()),
    *(IntegratedGradients(2), GradCAM(), HiResCAM(), Occlusion(4.0)),
]
CAMS = [GradCAM, HiResCAM]
every = pytest.mark.parametrize("method", EVERY, ids=lambda m: m.name)
cams = pytest.mark.parametrize("cam", CAMS)


def refused(kind: type[PellucidError], problem: str, mend: str):
    """The error with both of its halves."""
    return pytest.raises(kind, match=rf"(?s)^{re.escape(problem)}.*\. .*{re.escape(mend)}.*\.$")


@every
@pytest.mark.parametrize("label", [3, -1, "pneumonia"])
def test_label_out_of_range(method, label, subject, explained):
    s = subject("classification", 2)
    with pytest.raises(UnknownLabel, match=r"labels: 0 to 2"):
        explained(method, s.model, s.inputs, ClassScore(label))


@every
def test_label_that_the_model_has_not_lists_those_it_has(method, subject, explained):
    s = subject("single-logit-positive", 2)
    with refused(UnknownLabel, "the model has no label 'pneumonia'", "labels: 0 normal, 1 sick"):
        explained(method, s.model, s.inputs, ClassScore("pneumonia"))


@cams
def test_unknown_layer_lists_the_layers(cam, subject, explained):
    s = subject("classification", 2)
    with refused(UnknownLayer, "layer 'conv9' is not in the model", "Pass one of these, or None for the default") as e:
        explained(cam("conv9"), s.model, s.inputs)
    assert {"front", "front.0", "tail.conv", "tail.pool"} <= set(re.findall(r"[\w.]+\w", e.value.mend))
    assert "tail.fc" not in e.value.mend


@cams
def test_layer_without_spatial_extent(cam, subject, explained):
    s = subject("classification", 3)
    with refused(UnknownLayer, "layer 'tail.fc' has no spatial extent", "layers with it: front.0, front.1"):
        explained(cam("tail.fc"), s.model, s.inputs)


@cams
def test_layer_called_twice_must_name_its_call(cam, subject, explained):
    s = subject("reused-first", 2)
    with refused(UnknownLayer, "layer 'relu' is not in the model", "pass one of relu#1, relu#2"):
        explained(cam("relu"), s.model, s.inputs)
    with refused(UnknownLayer, "layer 'relu#3' is not in the model", "pass one of relu#1, relu#2"):
        explained(cam("relu#3"), s.model, s.inputs)


@cams
def test_layer_that_returns_a_tuple_must_name_its_element(cam, subject, explained):
    s = subject("tuple-layer", 2)
    with refused(UnknownLayer, "layer 'encoder' is not in the model", "pass one of encoder[0], encoder[1]"):
        explained(cam("encoder"), s.model, s.inputs)


@cams
def test_model_without_any_spatial_layer(cam, nets, model_of, explained):
    model = model_of(nets.linear(4, classes=2), 2, channels=(1,))
    with refused(UnknownLayer, "the model has no layer with spatial extent", "use a gradient or perturbation method"):
        explained(cam(), model, nets.noise(1, 1, 4, 4))


@cams
def test_model_without_hooks(cam, subject, model_of, explained):
    s = subject("classification", 2)
    can = Abilities(hooks=False, why={"hooks": "a traced file hides its layers: load the original module"})
    with refused(CannotDo, "this model does not show its layers", "load the original module"):
        explained(cam(), model_of(s.model.module, 2, can=can), s.inputs)


@pytest.mark.parametrize("method", [Saliency(), InputXGradient(), IntegratedGradients(2)], ids=lambda m: m.name)
def test_model_without_gradient_sends_to_occlusion(method, subject, model_of, explained):
    s = subject("classification", 2)
    can = Abilities(gradient=False, hooks=False, why={"gradient": "ONNX has no backward pass"})
    model = model_of(s.model.module, 2, can=can)
    with refused(CannotDo, "the method needs gradient and this model has none: ONNX has no", "perturbation method"):
        explained(method, model, s.inputs)
    assert explained(Occlusion(4.0), model, s.inputs).maps["image"].shape == (2, 1, 8, 10)


@every
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_model_that_gives_no_number(method, bad, nets, model_of, explained):
    net = nets.classifier(2)
    net.tail.fc.bias.data[1] = bad
    with refused(NonFinite, "the model's score of 'class 1' is NaN or infinite", "check the input's intensities"):
        explained(method, model_of(net, 2), nets.noise(1, 2, 8, 10))


@every
def test_a_voxel_that_is_no_number(method, subject, explained):
    s = subject("classification", 2)
    x = s.inputs["image"].clone()
    x[0, 0, 3, 3] = torch.nan
    with refused(NonFinite, "the model's score of 'class 1' is NaN or infinite", "check the input's intensities"):
        explained(method, s.model, x)


@every
@pytest.mark.parametrize("shape", [(2, 8, 10), (1, 2, 8, 10, 4), (1, 3, 8, 10), (1, 1, 8, 10)])
def test_wrong_rank_or_channel_count(method, shape, subject, explained):
    s = subject("classification", 2)
    problem = "the model's input 'image' expects (batch, 2 channel(s), space, space), got"
    with refused(ShapeMismatch, problem, "put batch and channel first and match the channel count"):
        explained(method, s.model, torch.zeros(shape, dtype=torch.float64))


@every
def test_missing_input(method, subject, explained):
    s = subject("two-images", 2)
    with refused(ShapeMismatch, "the model takes inputs ['pet', 'ct'], got ['pet']", "add "):
        explained(method, s.model, {"pet": s.inputs["pet"]})


@pytest.mark.parametrize("method", [IntegratedGradients, Occlusion])
def test_fill_in_a_unit_the_image_does_not_have(method, subject, explained):
    s, fill = subject("classification", 2), Constant(-800.0, physical=True)
    made = method(baseline=fill) if method is IntegratedGradients else method(infill=fill)
    problem = "the fill -800.0 is in image units, and this input's intensity scale is not known"
    with refused(BadOption, problem, "give the fill in network units"):
        explained(made, s.model, s.inputs)


def test_a_segmentation_is_not_a_class(subject, explained):
    s = subject("segmentation", 2)
    with refused(ShapeMismatch, "a class score needs an output (batch, class), got (2, 3, 8, 10)", "use RegionScore"):
        explained(Saliency(), s.model, s.inputs, ClassScore(1))
    s = subject("classification", 2)
    with refused(ShapeMismatch, "a region score needs an output (batch, class, *space), got (2, 3)", "use ClassScore"):
        explained(Saliency(), s.model, s.inputs, RegionScore(1))


def test_a_region_that_is_not_there(subject, nets, model_of, explained):
    s = subject("segmentation", 2)
    with refused(UnknownName, "no region 'tumor'", "regions: box"):
        explained(GradCAM("front"), s.model, s.inputs, RegionScore(1, "tumor"), s.scene)
    net = nets.segmenter(2)
    net.tail[1].bias.data[1] = -100.0
    with refused(BadRegion, "the model predicts no voxel of 'class 1' here", "give a region with --region"):
        explained(GradCAM("front"), model_of(net, 2, OutputSpec("segmentation")), s.inputs, RegionScore(1))


def test_an_output_that_is_no_tensor(subject, model_of, explained):
    s = subject("dict-head", 2)
    with refused(BadCard, "expected a tensor from the model, got a dict with ['features', 'out']", "set output.head"):
        explained(Saliency(), model_of(s.model.module, 2), s.inputs)
    with refused(BadCard, "the output has no 'logits': a dict with ['features', 'out']", "correct output.head"):
        explained(Saliency(), model_of(s.model.module, 2, OutputSpec(head="logits")), s.inputs)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_options_outside_their_range(value):
    with refused(BadOption, f"expected a positive window, got {value}", "give a length in mm (or px)"):
        Occlusion(window=value)
    with refused(BadOption, f"expected a positive stride, got {value}", "give a length in mm (or px)"):
        Occlusion(stride=value)
    with refused(BadOption, f"expected at least 1 step, got {int(value)}", "16 to 64 is usual"):
        IntegratedGradients(int(value))


def test_a_model_that_does_not_depend_on_its_input(model_of, explained):
    """A constant has no gradient to read; hiding a block of the image changes nothing."""

    class Deaf(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 3, dtype=x.dtype)

    x = torch.randn(1, 2, 8, 10)
    assert bool((explained(Occlusion(4.0), model_of(Deaf(), 2), x).maps["image"] == 0).all())
    for method in (Saliency(), InputXGradient(), IntegratedGradients(2)):
        with refused(CannotDo, "the score of 'class 1' has no gradient", "use a perturbation method (Occlusion)"):
            explained(method, model_of(Deaf(), 2), x)
