"""The control that must fail: edges of the image get the worst value of every metric here; orders and draws."""

import copy
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from pellucid.core.errors import BadOption, CannotDo
from pellucid.core.model import Abilities, Model, OutputSpec
from pellucid.core.perwindow import answered
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore, RegionScore
from pellucid.core.windows import SlidingWindows
from pellucid.explain.cam import GradCAM
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.metrics.randomization.classes import RandomLogit
from pellucid.metrics.randomization.edges import EdgeDetector, edge_map
from pellucid.metrics.randomization.efficient import EfficientMPRT
from pellucid.metrics.randomization.weights import ModelParameterRandomization
from pellucid.workbench.registry import explainers

WORST = [
    (ModelParameterRandomization(), 1.0),
    (ModelParameterRandomization(order="independent", draws=2), 1.0),
    (ModelParameterRandomization(similarity="ssim"), 1.0),
    (EfficientMPRT(draws=2), 0.0),
    (RandomLogit(), 1.0),
    (RandomLogit("all", "ssim"), 1.0),
]


def scored(metric, model, x, method, target=None, scene=None):
    probe = Probe(model, x, target or ClassScore(1), method.needs(model, {"image": x}), scene)
    return metric(probe, answered(method, probe), method, None)


@pytest.fixture(scope="module")
def images(shared_data):
    """A dermoscopy image and an MR volume, as networks take them."""
    import nibabel
    from PIL import Image

    path = sorted((shared_data / "dermoscopy_ph2" / "images").glob("*.jpg"))[0]
    skin = np.asarray(Image.open(path).convert("RGB").resize((48, 40)), dtype=np.float64) / 255
    path = sorted((shared_data / "mri_hippocampus" / "images").glob("*.nii.gz"))[0]
    brain = np.asarray(nibabel.load(path).dataobj, dtype=np.float64)[:24, :32, :20]
    brain = (brain - brain.mean()) / brain.std()
    return {2: torch.from_numpy(skin).permute(2, 0, 1)[None].contiguous(), 3: torch.from_numpy(brain)[None, None]}


def network(rank, channels, nets):
    conv, pool = {2: (nn.Conv2d, nn.AdaptiveAvgPool2d), 3: (nn.Conv3d, nn.AdaptiveAvgPool3d)}[rank]
    return nets.seeded(
        lambda: nn.Sequential(
            conv(channels, 4, 3, 2),
            nn.ReLU(),
            conv(4, 4, 3),
            nn.ReLU(),
            pool(2),
            nn.Flatten(),
            nn.Linear(4 * 2**rank, 3),
        )
    )


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(("metric", "worst"), WORST, ids=lambda v: getattr(v, "name", ""))
def test_edges_of_a_real_image_get_the_worst_value(metric, worst, rank, images, nets, model_of):
    x = images[rank]
    model = model_of(network(rank, x.shape[1], nets), rank, x.shape[1])
    score = scored(metric, model, x, EdgeDetector())
    assert score.values.tolist() == pytest.approx([worst], abs=1e-9)
    assert score.detail["similar to edges"] == pytest.approx([1.0])
    method = InputXGradient()
    other = scored(metric, model, x, method)
    assert float(other.values) < 0.8 if worst else abs(float(other.values)) > 0.01
    assert other.detail["similar to edges"][0] < 0.8


def test_the_control_is_no_method():
    assert "EdgeDetector" not in explainers()


@pytest.mark.parametrize("rank", [2, 3])
def test_edges_of_a_ramp_are_its_slope(rank, model_of, nets):
    """Away from the border, whatever is added to the image; channels add up."""
    ramp = 0.25 * torch.arange(12.0).view(-1, *(1,) * (rank - 1)).expand(*(12,) * rank)
    x = torch.stack([ramp, 5 - 2 * ramp])[None].double()
    probe = Probe(model_of(nets.classifier(rank), rank, 2), x, ClassScore(0))
    middle = edge_map(probe)[(0, *(slice(4, 8),) * rank)]
    assert torch.allclose(middle, torch.full_like(middle, 0.75), rtol=1e-3)
    flat = Probe(model_of(nets.classifier(rank), rank, 2), 0 * x + 0.3, ClassScore(0))
    assert not edge_map(flat).any()


@pytest.mark.parametrize("rank", [2, 3])
def test_layers_one_by_one_are_the_second_implementation_s(rank, nets, model_of, reference):
    net, x = nets.classifier(rank), nets.noise(1, 2, *{2: (8, 10), 3: (4, 6, 8)}[rank])
    model, method = model_of(net, rank, 2), InputXGradient()
    layers = ["tail.fc", "tail.conv", "front.3", "front.1", "front.0"]
    score = scored(ModelParameterRandomization(5, "independent"), model, x, method, scene=Scene(seed=4))

    def explain(module):
        fresh = Model(module, model.inputs, OutputSpec())
        return method(Probe(fresh, x, ClassScore(1), method.needs(fresh, {"image": x}))).collapsed()[0].numpy()

    slow = reference("model_parameter_randomization").one_by_one(copy.deepcopy(net), explain, layers, 4)
    assert score.detail["layers"] == [[name] for name in layers]
    assert [row[0] for row in score.detail["curve"]] == pytest.approx(slow, abs=1e-9)
    assert float(score.values) == pytest.approx(np.mean(slow), abs=1e-9)


def test_fresh_weights_of_a_linear_model_leave_nothing(model_of, nets):
    """E[rho] = 0 with standard deviation 1 / sqrt(d - 1), over 60 draws of a map of 12 x 12."""
    model, x = model_of(nets.linear(12, classes=2), 2), torch.ones(1, 1, 12, 12, dtype=torch.float64)
    score = scored(ModelParameterRandomization(1, draws=60), model, x, InputXGradient())
    each, sd = np.array(score.detail["draws"])[:, 0], 1 / 143**0.5
    assert len(np.unique(each)) == 60
    assert abs(each.mean()) < 3 * sd / 60**0.5
    assert each.std(ddof=1) == pytest.approx(sd, rel=0.25)
    assert score.detail["standard error"][0] == pytest.approx(each.std(ddof=1) / 60**0.5)
    assert float(score.values) == pytest.approx(each.mean())
    assert score.detail["chance"]["high"][0] == pytest.approx(1.96 * sd, rel=0.35)


def test_the_first_of_several_draws_is_the_only_one_of_one(nets, model_of):
    model, x = model_of(nets.classifier(2), 2, 2), nets.noise(2, 2, 8, 10)
    one, many = (scored(ModelParameterRandomization(2, draws=n), model, x, Saliency()) for n in (1, 3))
    assert many.detail["draws"][0] == one.values.tolist()
    assert "draws" not in one.detail
    assert np.array(many.detail["curve"]).shape == (2, 2)


def test_a_map_that_only_changes_its_sign_shows_in_the_magnitudes(nets, model_of, stand):
    values = nets.noise(2, 1, 6, 6)
    method = stand(lambda p: values if p.model.identity.name != "randomized" else -values)
    score = scored(
        ModelParameterRandomization(2), model_of(nets.linear(6, classes=2), 2), nets.noise(2, 1, 6, 6), method
    )
    assert score.values.tolist() == pytest.approx([-1, -1])
    assert np.allclose(score.detail["magnitudes"], 1)
    assert score.detail["of the magnitudes"] == pytest.approx([1, 1])


def test_a_draw_that_cannot_be_compared_is_left_out_of_the_mean(nets, model_of, stand):
    calls = []

    def answer(probe):
        calls.append(probe)
        return nets.noise(1, 1, 6, 6, seed=0) if len(calls) != 4 else torch.zeros(1, 1, 6, 6)

    score = scored(
        ModelParameterRandomization(1, draws=3),
        model_of(nets.linear(6, classes=2), 2),
        nets.noise(1, 1, 6, 6),
        stand(answer),
    )
    assert score.values.tolist() == pytest.approx([1])
    assert np.isnan(score.detail["draws"]).flatten().tolist() == [False, False, True]
    assert np.isfinite(score.detail["chance"]["high"]).all()


def test_running_statistics_start_anew_and_layers_without_a_start_are_named(stand):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3)
            self.norm.running_mean += 5
            self.gain = nn.Parameter(torch.randn(4))

        def forward(self, x):
            return self.conv(self.norm(x)).flatten(2).mean(2) * self.gain.sum()

    seen = []
    method = stand(lambda p: (seen.append(float(p.model.module.norm.running_mean)), p.inputs["image"])[1])
    net = Net()
    score = scored(
        ModelParameterRandomization(1), Model(net, (InputSpec(),), OutputSpec()), torch.rand(1, 1, 8, 8), method
    )
    assert seen == [5, 0]
    assert float(net.norm.running_mean) == 5
    assert score.detail["without an initialization of their own"] == [""]
    assert "running statistics" in score.detail["buffers"]


def test_a_layer_without_a_start_keeps_its_mean(stand):
    """A scale of ones stays, for of mean 0 it would leave a dead network."""

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, x):
            return x * self.weight.view(1, 2, 1, 1)

    net = nn.Sequential(nn.Conv2d(1, 2, 3), Scale(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    model = Model(net, (InputSpec(),), OutputSpec())
    score = scored(ModelParameterRandomization(1), model, torch.rand(1, 1, 8, 8), InputXGradient())
    assert torch.isfinite(score.values).all()
    assert score.detail["without an initialization of their own"] == ["1"]


def test_a_scripted_model_is_drawn_anew():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(net, torch.rand(1, 1, 8, 8))
    model = Model(script, (InputSpec(),), OutputSpec(), can=Abilities(hooks=False, edits=False, rules=False))
    before = {k: v.clone() for k, v in script.state_dict().items()}
    for metric in (ModelParameterRandomization(2), EfficientMPRT()):
        score = scored(metric, model, torch.rand(1, 1, 8, 8), InputXGradient())
        assert torch.isfinite(score.values).all()
        assert abs(float(score.values)) < 0.9
        assert score.detail["without an initialization of their own"] == ["0", "3"]
    assert all(torch.equal(before[k], v) for k, v in script.state_dict().items())


@pytest.mark.parametrize("metric", [ModelParameterRandomization(2), EfficientMPRT()], ids=lambda m: m.name)
@pytest.mark.parametrize("method", [Saliency(), GradCAM("0"), EdgeDetector()], ids=lambda m: m.name)
def test_a_model_that_predicts_by_windows(metric, method, nets):
    net = nets.seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1)))
    model = Model(net, (InputSpec(),), OutputSpec("segmentation"), inference=SlidingWindows((8, 8)))
    box = torch.zeros(12, 14, dtype=torch.bool)
    box[3:9, 4:11] = True
    score = scored(metric, model, nets.noise(1, 1, 12, 14), method, RegionScore(1, "box"), Scene(regions={"box": box}))
    assert torch.isfinite(score.values).all()
    worst = 1.0 if isinstance(metric, ModelParameterRandomization) else 0.0
    assert (float(score.values) == pytest.approx(worst)) == isinstance(method, EdgeDetector)


def test_structure_of_the_map_s_own_grid(images, nets, model_of, stand, reference):
    x, seen = images[3][..., :10, :12, :9].clone(), []

    def answer(probe):
        seen.append(probe.input_gradient["image"])
        return seen[-1]

    metric = ModelParameterRandomization(1, similarity="ssim")
    score = scored(metric, model_of(network(3, 1, nets), 3), x, stand(answer))
    first, fresh = ((v / v.abs().max())[0, 0].numpy() for v in seen)
    assert float(score.values) == pytest.approx(reference("random_logit").ssim(first, fresh, 2.0), abs=1e-9)
    assert float(score.values) != pytest.approx(float(spearmanr(first.ravel(), fresh.ravel())[0]), abs=0.01)


@pytest.mark.parametrize(
    "metric", [ModelParameterRandomization(1), EfficientMPRT(), RandomLogit()], ids=lambda m: m.name
)
def test_a_method_that_refuses_elsewhere_is_undefined_with_its_reason(metric, nets, model_of, stand):
    asked = []

    def answer(probe):
        asked.append(probe)
        if len(asked) > 1:
            raise CannotDo("there is nothing to see", "look elsewhere")
        return nets.noise(2, 1, 6, 6)

    score = scored(metric, model_of(nets.linear(6, classes=2), 2), nets.noise(2, 1, 6, 6), stand(answer))
    assert torch.isnan(score.values).all()
    assert score.reasons == ("Stand refuses there: there is nothing to see",) * 2
    assert score.detail["refused"] == ["Stand refuses there: there is nothing to see"]


@pytest.mark.parametrize(
    "metric", [ModelParameterRandomization(), EfficientMPRT(), RandomLogit()], ids=lambda m: m.name
)
def test_a_constant_map_costs_nothing(metric, nets, model_of, stand):
    method = stand(lambda p: torch.full((2, 1, 6, 6), 3.0))
    probe = Probe(model_of(nets.linear(6, classes=2), 2), nets.noise(2, 1, 6, 6), ClassScore(1))
    score = metric(probe, method(probe), method, None)
    assert torch.isnan(score.values).all()
    assert all("constant" in reason for reason in score.reasons)
    assert probe.spent.own.forwards == 0


@pytest.mark.parametrize("draws", [0, -1])
def test_draws_outside_their_range(draws):
    with pytest.raises(BadOption, match="at least 1 draw"):
        ModelParameterRandomization(draws=draws)
