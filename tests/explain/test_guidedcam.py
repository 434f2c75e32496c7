"""GuidedGradCAM: the product of two methods that are tested for themselves, enlarged linearly first."""

import warnings

import pytest
import torch
from torch import nn

from pellucid.core.card import Cost
from pellucid.core.errors import CannotDo
from pellucid.core.model import OutputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore, RegionScore
from pellucid.explain.cam import GradCAM
from pellucid.explain.cells import AGAINST
from pellucid.explain.guided import GuidedBackprop
from pellucid.explain.guidedcam import GuidedGradCAM

RANKS = (2, 3)
SHAPE = {2: (6, 8), 3: (4, 6, 4)}
MODE = {2: "bilinear", 3: "trilinear"}


class Net(nn.Module):
    """Two convolutions with a ReLU between, and a linear layer."""

    def __init__(self, nets, rank, behind=nn.ReLU):
        super().__init__()
        conv = nets.CONV[rank]
        self.one, self.two = conv(2, 4, 3, padding=1), conv(4, 3, 3, stride=2, padding=1)
        self.relu, self.behind, self.pool = nn.ReLU(), behind(), nets.POOL[rank](2)
        self.head = nn.Sequential(self.pool, nn.Flatten(), nn.Linear(3 * 2**rank, 3))

    def forward(self, x):
        return self.head(self.behind(self.two(self.relu(self.one(x)))))


@pytest.fixture
def net(nets):
    """A seeded network by rank."""
    return lambda rank, behind=nn.ReLU: nets.seeded(lambda: Net(nets, rank, behind))


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    return float((ours - theirs).abs().max()) <= relative * float(theirs.abs().max())


@pytest.mark.parametrize("rank", RANKS)
def test_equal_to_the_second_implementation(rank, net, nets, model_of, explained, reference):
    module, x = net(rank), nets.noise(2, 2, *SHAPE[rank])
    maps = explained(GuidedGradCAM("two"), model_of(module, rank), x).maps["image"]
    assert float(maps.abs().max()) > 0
    weights = torch.eye(3, dtype=torch.float64)[1:2]
    for i in range(2):
        one = x[i : i + 1]
        guided = reference("guided_backprop").guided_backprop([module.one, module.two, module.head], one, weights)
        cells = reference("grad_cam").grad_cam(
            lambda a: module.head(torch.relu(a))[:, 1].detach(), module.two(torch.relu(module.one(one))).detach()
        )
        slow = reference("guided_grad_cam").guided_grad_cam(
            guided.view(2, *SHAPE[rank]), cells, reference("upsample").upsample
        )
        assert close(maps[i], torch.from_numpy(slow), 1e-6)


@pytest.mark.parametrize("rank", RANKS)
def test_equal_to_captum_where_it_enlarges_linearly(rank, net, nets, model_of, explained):
    """Its default is the nearest cell."""
    from captum.attr import GuidedGradCam

    module = net(rank)
    x = nets.noise(2, 2, *SHAPE[rank])
    ours = explained(GuidedGradCAM("two"), model_of(module, rank), x).maps["image"]
    peer = GuidedGradCam(module, module.two)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells that it sets hooks and gradients
        linear = peer.attribute(x, target=1, interpolate_mode=MODE[rank]).detach()
        nearest = peer.attribute(x, target=1).detach()
    assert close(ours, linear, 1e-6)
    assert not close(ours, nearest, 0.05)


@pytest.mark.parametrize("rank", RANKS)
def test_the_product_of_its_two_factors(rank, net, nets, model_of, explained):
    model, x = model_of(net(rank), rank), nets.noise(2, 2, *SHAPE[rank])
    fine, coarse = (explained(m, model, x).maps["image"] for m in (GuidedBackprop(), GradCAM("two")))
    answer = explained(GuidedGradCAM("two"), model, x)
    assert torch.allclose(answer.maps["image"], fine * coarse, rtol=1e-10)
    assert answer.signed
    assert answer.cell == (1.0,) * rank


def test_cost(net, nets, model_of):
    model, x, method = model_of(net(2), 2), nets.noise(2, 2, *SHAPE[2]), GuidedGradCAM("two")
    probe = Probe(model, x, ClassScore(1), method.needs(model, {"image": x}))
    method(probe)
    assert (probe.spent.shared, probe.spent.own) == (Cost(2, 2), Cost(2, 2))


def test_smooth_activations_are_refused(net, nets, model_of, explained):
    with pytest.raises(CannotDo, match="gelu"):
        explained(GuidedGradCAM("two"), model_of(net(2, nn.GELU), 2), nets.noise(1, 2, *SHAPE[2]))


def test_doubts_about_either_factor_are_told(net, nets, model_of, explained):
    module, x = net(2, nn.LeakyReLU), nets.noise(1, 2, *SHAPE[2])
    module.head[2].weight.data[1] = -1
    module.two.bias.data[:] = 10
    answer = explained(GuidedGradCAM("two"), model_of(module, 2), x)
    assert AGAINST in answer.warnings
    assert any("LeakyReLU" in w for w in answer.warnings)
    assert float(answer.maps["image"].abs().max()) == 0


def test_a_segmentation_and_an_input_of_another_shape(nets, model_of, explained):
    box = torch.zeros(6, 8, dtype=torch.bool)
    box[1:4, 2:6] = True
    module = nets.seeded(lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)))
    model = model_of(module, 2, OutputSpec("segmentation"))
    target, scene = RegionScore(1, "box"), Scene(regions={"box": box})
    maps = explained(GuidedGradCAM("0"), model, nets.noise(1, 2, 6, 8), target, scene).maps["image"]
    outside = torch.nn.functional.max_pool2d(box[None].float(), 3, 1, 1)[0] == 0
    assert float(maps.abs().max()) > 0 == float(maps[..., outside].abs().max())

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(5, 3)

        def forward(self, image, covariates):
            return (self.conv(image).relu().flatten(2).mean(2) * self.fc(covariates).relu()).repeat(1, 2)

    inputs = {"image": nets.noise(1, 2, 6, 8), "covariates": nets.noise(1, 5)}
    pair = model_of(nets.seeded(Pair), (2, 0), names=("image", "covariates"), channels=(2, 5))
    answer = explained(GuidedGradCAM("conv"), pair, inputs)
    assert list(answer.maps) == ["image"]
    assert "input 'covariates' has no map: it has another shape" in answer.warnings
