"""Random logit: closed forms on linear and softmax models, which targets exchange their class, which cannot."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn

from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore, Margin, RegionScore
from pellucid.core.windows import SlidingWindows
from pellucid.explain.cam import GradCAM
from pellucid.explain.eigen import EigenCAM
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.metrics.randomization.classes import RandomLogit
from pellucid.testing import unchanged

GRADIENT = InputXGradient()


class Voxelwise(nn.Module):
    """A segmentation: three scores of each voxel from two channels, not linear."""

    def __init__(self, rank, classes=3):
        super().__init__()
        self.conv = {2: nn.Conv2d, 3: nn.Conv3d}[rank](2, classes, 3, padding=1).double()

    def forward(self, x):
        return torch.tanh(self.conv(x))


def scored(model, x, target, metric=None, method=GRADIENT, scene=None):
    probe = Probe(model, x, target, method.needs(model, {"image": x}), scene)
    answer = method(probe)
    before = probe.spent.own
    score = (metric or RandomLogit())(probe, answer, method, None)
    return score, probe.spent.own.forwards - before.forwards


def rho(one, other):
    return float(spearmanr(one.detach().flatten(), other.detach().flatten())[0])


@pytest.fixture
def linear(nets, model_of):
    """Four classes of 6 x 6, with weights "class 6 6"."""
    net = nets.linear(6, classes=4)
    return model_of(net, 2), net[1].weight.detach().view(4, 6, 6)


@pytest.mark.parametrize("label", [0, 2])
def test_linear_maps_of_all_classes(label, linear, nets, reference):
    """The map of a class is w * x: correlations of these, and their mean."""
    model, w = linear
    x = nets.noise(1, 1, 6, 6)
    score, passes = scored(model, x, ClassScore(label), RandomLogit("all"))
    others = [(label + k) % 4 for k in (1, 2, 3)]
    expected = [rho(w[label] * x[0, 0], w[k] * x[0, 0]) for k in others]
    assert score.detail["similarity"][0] == pytest.approx(expected, abs=1e-9)
    assert score.detail["other"] == [[f"class {k}" for k in others]]
    assert float(score.values) == pytest.approx(sum(expected) / 3, abs=1e-9)
    sizes = [rho((w[label] * x[0, 0]).abs(), (w[k] * x[0, 0]).abs()) for k in others]
    assert score.detail["magnitudes"][0] == pytest.approx(sizes, abs=1e-9)
    assert passes == 3
    same, _ = scored(model, x, ClassScore(label), RandomLogit("all", "ssim"))
    scaled = [m / m.abs().max() for m in (w * x[0, 0]).detach()]
    structure = [reference("random_logit").ssim(scaled[label].numpy(), scaled[k].numpy(), 2.0, 5) for k in others]
    assert same.detail["similarity"][0] == pytest.approx(structure, abs=1e-9)


def test_one_other_class_is_drawn_from_the_seed_and_named(linear, nets):
    model, w = linear
    x, found = nets.noise(1, 1, 6, 6), set()
    for seed in range(12):
        score, passes = scored(model, x, ClassScore(1), scene=Scene(seed=seed))
        again, _ = scored(model, x, ClassScore(1), scene=Scene(seed=seed))
        (name,) = score.detail["other"][0]
        assert float(score.values) == pytest.approx(rho(w[1] * x[0, 0], w[int(name[-1])] * x[0, 0]), abs=1e-9)
        assert torch.equal(score.values, again.values)
        assert passes == 1
        found.add(name)
    assert found == {"class 0", "class 2", "class 3"}


def test_softmax_in_closed_form(linear, nets):
    """The slope of p_y is p_y (w_y - sum p_k w_k)."""
    model, w = linear
    x = nets.noise(1, 1, 6, 6)
    p = model({"image": x}).softmax(1)[0].detach()
    maps = [p[k] * (w[k] - (p.view(-1, 1, 1) * w).sum(0)) * x[0, 0] for k in range(4)]
    score, _ = scored(model, x, ClassScore(1, scale="score"), RandomLogit("all"))
    assert score.detail["similarity"][0] == pytest.approx([rho(maps[1], maps[k]) for k in (2, 3, 0)], abs=1e-5)


def test_a_margin_keeps_its_opponent(linear, nets):
    model, w = linear
    x = nets.noise(1, 1, 6, 6)
    score, _ = scored(model, x, Margin(1, 3), RandomLogit("all"))
    maps = [(w[k] - w[3]) * x[0, 0] for k in range(4)]
    assert score.detail["other"] == [["class 2", "class 0"]]
    assert score.detail["similarity"][0] == pytest.approx([rho(maps[1], maps[k]) for k in (2, 0)], abs=1e-9)


def test_each_item_has_its_own_predicted_class(linear, nets):
    model, _ = linear
    x = nets.noise(6, 1, 6, 6)
    chosen = model({"image": x}).argmax(1)
    assert len(chosen.unique()) > 1
    together, _ = scored(model, x, ClassScore())
    for i, label in enumerate(chosen.tolist()):
        alone, _ = scored(model, x[i : i + 1], ClassScore(label))
        assert alone.detail["other"][0] == together.detail["other"][i]
        assert float(alone.values) == pytest.approx(float(together.values[i]), abs=1e-9)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("region", ["box", None])
def test_a_segmentation_asks_for_the_other_label_over_the_same_voxels(rank, region, nets):
    net, x = nets.seeded(lambda: Voxelwise(rank)), nets.noise(2, 2, *(8,) * rank)
    model = Model(net, (InputSpec(rank=rank, channels=2, order="rgb"),), OutputSpec("segmentation"))
    box = torch.zeros((8,) * rank, dtype=torch.bool)
    box[(slice(1, 6),) * rank] = True
    score, _ = scored(model, x, RegionScore(1, region), RandomLogit("all"), scene=Scene(regions={"box": box}))
    where = box.expand(2, *box.shape) if region else net(x).argmax(1) == 1
    for i in range(2):
        maps = []
        for label in (1, 2, 0):
            one = x[i : i + 1].clone().requires_grad_()
            net(one)[0, label][where[i]].mean().backward()
            maps.append((one.grad * one)[0].sum(0))
        expected = [rho(maps[0], maps[1]), rho(maps[0], maps[2])]
        assert score.detail["similarity"][i] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rank", [2, 3])
def test_a_model_that_predicts_by_windows(rank, nets):
    net, x = nets.seeded(lambda: Voxelwise(rank)), nets.noise(1, 2, *(12,) * rank)
    spec = (InputSpec(rank=rank, channels=2, order="rgb"),)
    whole = Model(net, spec, OutputSpec("segmentation"))
    cut = Model(net, spec, OutputSpec("segmentation"), inference=SlidingWindows((8,) * rank))
    box = torch.zeros((12,) * rank, dtype=torch.bool)
    box[(slice(5, 7),) * rank] = True
    scene = Scene(regions={"box": box})
    one, other = (scored(m, x, RegionScore(1, "box"), scene=scene)[0] for m in (whole, cut))
    assert float(other.values) == pytest.approx(float(one.values), abs=1e-6)
    assert other.detail["other"] == one.detail["other"]


def test_a_map_that_ignores_the_class_stays(nets, model_of):
    model, x = model_of(nets.classifier(2), 2, 2), nets.noise(2, 2, 8, 10)
    score, _ = scored(model, x, ClassScore(1), method=EigenCAM("front"))
    assert score.values.tolist() == pytest.approx([1, 1])
    asked, _ = scored(model, x, ClassScore(1), method=GradCAM("front"))
    assert not (asked.values > 0.99).any()


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 1))
def test_the_more_two_classes_share_the_higher_it_scores(share):
    """Weights of one class mixed into those of the other, by ranks in closed form."""
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 100, generator=draw, dtype=torch.float64)
    net = nn.Sequential(nn.Flatten(), nn.Linear(100, 2, bias=False).double())
    net[1].weight.data = torch.stack([first, share * first + (1 - share) * second])
    model, x = Model(net, (InputSpec(),), OutputSpec()), torch.ones(1, 1, 10, 10, dtype=torch.float64)
    score, _ = scored(model, x, ClassScore(0))
    assert float(score.values) == pytest.approx(rho(first, share * first + (1 - share) * second), abs=1e-9)
    assert float(score.values) >= rho(first, second) - 0.05


@pytest.mark.parametrize(
    ("net", "output", "target", "reason"),
    [
        (nn.Linear(36, 1), OutputSpec(labels=("no", "yes"), activation="sigmoid"), ClassScore("yes"), "single output"),
        (nn.Linear(36, 2), OutputSpec("regression", activation="none", unit="mm"), ClassScore(0), "measured value"),
        (nn.Linear(36, 2), OutputSpec(), Margin(0, 1), "no class beside those that the target compares"),
    ],
)
def test_where_there_is_no_other_class(net, output, target, reason, nets):
    model = Model(nn.Sequential(nn.Flatten(), net.double()), (InputSpec(),), output)
    score, passes = scored(model, nets.noise(2, 1, 6, 6), target)
    assert torch.isnan(score.values).all()
    assert all(reason in r for r in score.reasons)
    assert passes == 0


def test_a_segmentation_of_one_label_has_no_other(nets):
    net = nets.seeded(lambda: Voxelwise(2, classes=1))
    model = Model(net, (InputSpec(channels=2, order="rgb"),), OutputSpec("segmentation", activation="sigmoid"))
    box = torch.ones(8, 8, dtype=torch.bool)
    score, _ = scored(model, nets.noise(1, 2, 8, 8), RegionScore(0, "box"), scene=Scene(regions={"box": box}))
    assert "single output" in score.reasons[0]


def test_a_constant_map_of_the_other_class(linear, nets):
    model, _ = linear
    model.module[1].weight.data[[0, 2, 3]] = 0
    score, _ = scored(model, nets.noise(1, 1, 6, 6), ClassScore(1))
    assert score.reasons == ("a map is constant or not finite, so ranks mean nothing",)


def test_the_model_is_untouched(nets, model_of):
    net, x = nets.classifier(2).train(), nets.noise(2, 2, 8, 10)
    with unchanged(net):
        scored(model_of(net, 2, 2), x, ClassScore(1), RandomLogit("all"), Saliency())
