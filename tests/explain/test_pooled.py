"""CAM on heads that pool, refused on all others; SegXResCAM between HiResCAM and Grad-CAM."""

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.card import Cost
from pellucid.core.errors import BadOption, CannotDo
from pellucid.core.model import OutputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore, Margin
from pellucid.explain.cam import GradCAM, HiResCAM
from pellucid.explain.pooled import CAM, SegXResCAM

RANKS = (2, 3)
SIZE = (8, 10, 6)


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max()) <= relative * float(np.abs(theirs).max())


class Mean(nn.Module):
    """A global mean that is no pooling layer."""

    def forward(self, x):
        return x.flatten(2).mean(2)


class Exponential(nn.Module):
    """Overflows where a sigmoid would saturate."""

    def forward(self, x):
        return x.abs().exp()


HEADS = {
    "pool": lambda nets, r: nn.Sequential(nets.POOL[r](1), nn.Flatten(), nn.Linear(6, 3)),
    "functional mean": lambda nets, r: nn.Sequential(Mean(), nn.Linear(6, 3)),
    "convolution, then mean": lambda nets, r: nn.Sequential(nets.CONV[r](6, 3, 1), Mean()),
    "two linear layers": lambda nets, r: nn.Sequential(Mean(), nn.Linear(6, 4), nn.Dropout(), nn.Linear(4, 3)),
}
REFUSED = {
    "hidden layer": lambda nets, r: nn.Sequential(Mean(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
    "sigmoid": lambda nets, r: nn.Sequential(Mean(), nn.Linear(6, 3), nn.Sigmoid()),
    "softmax": lambda nets, r: nn.Sequential(Mean(), nn.Linear(6, 3), nn.Softmax(1)),
    "exponential": lambda nets, r: nn.Sequential(Mean(), nn.Linear(6, 3), Exponential()),
    "pool of 2": lambda nets, r: nn.Sequential(nets.POOL[r](2), nn.Flatten(), nn.Linear(6 * 2**r, 3)),
    "maximum": lambda nets, r: nn.Sequential({2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}[r](1), *_linear()),
    "convolution of 3": lambda nets, r: nn.Sequential(nets.CONV[r](6, 6, 3, padding=1), Mean(), nn.Linear(6, 3)),
    "tanh before the mean": lambda nets, r: nn.Sequential(nn.Tanh(), Mean(), nn.Linear(6, 3)),
    "norm of the features": lambda nets, r: nn.Sequential(Mean(), nn.LayerNorm(6), nn.Linear(6, 3)),
}


def _linear():
    return nn.Flatten(), nn.Linear(6, 3)


def network(nets, rank, head, relu=True):
    behind = nn.ReLU() if relu else nn.Identity()
    return nets.seeded(lambda: nets.Split(nn.Sequential(nets.front(rank), behind), head(nets, rank)))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("target", [ClassScore(1), Margin(2, 0)])
def test_equal_to_the_second_implementation(target, head, rank, nets, model_of, explained, reference):
    net, x = network(nets, rank, HEADS[head]), nets.noise(2, 2, *SIZE[:rank])
    maps = explained(CAM("front"), model_of(net, rank), x, target).maps["image"]
    for i in range(2):
        score = (lambda a: net.tail(a)[:, 1]) if isinstance(target, ClassScore) else _margin(net)
        slow = reference("cam").cam(lambda a, s=score: s(a).detach(), net.front(x[i : i + 1]).detach())
        assert close(maps[i, 0], reference("upsample").upsample(slow, x.shape[2:]), 1e-9)


def _margin(net):
    return lambda a: net.tail(a)[:, 2] - net.tail(a)[:, 0]


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("relu", [True, False])
def test_the_mean_is_the_score_less_the_bias(relu, rank, nets, model_of, explained):
    """sum over the cells = Z (S - b), with negative activations too."""
    net, x = network(nets, rank, HEADS["pool"], relu), nets.noise(2, 2, *(8,) * rank)
    maps = explained(CAM("front"), model_of(net, rank), x).maps["image"]
    expected = (net(x)[:, 1] - net.tail[2].bias[1]).detach()
    assert torch.allclose(maps.flatten(1).mean(1), expected, rtol=1e-10)


@pytest.mark.parametrize("rank", RANKS)
def test_z_times_grad_cam_before_the_relu(rank, nets, model_of, explained):
    net, x = network(nets, rank, HEADS["pool"]), nets.noise(2, 2, *(8,) * rank)
    net.tail[2].weight.data.abs_()
    cam, grad = (explained(m("front"), model_of(net, rank), x).maps["image"] for m in (CAM, GradCAM))
    assert torch.allclose(cam, 4**rank * grad, rtol=1e-10)


@pytest.mark.parametrize("rank", RANKS)
def test_a_relu_between_layer_and_mean_is_no_hindrance(rank, nets, model_of, explained):
    """The layer before the ReLU has the map of the layer behind it: also where the ReLU is no module."""

    class Rectified(nn.Module):
        def forward(self, a):
            return torch.relu(a).flatten(2).mean(2)

    net = network(nets, rank, lambda _n, _r: nn.Sequential(Rectified(), nn.Linear(6, 3)), relu=False)
    behind = nets.Split(nn.Sequential(net.front, nn.ReLU()), nn.Sequential(Mean(), net.tail[1]))
    x = nets.noise(2, 2, *(8,) * rank)
    before = explained(CAM("front"), model_of(net, rank), x).maps["image"]
    assert torch.allclose(before, explained(CAM("front"), model_of(behind, rank), x).maps["image"], rtol=1e-10)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("head", REFUSED)
@pytest.mark.parametrize("relu", [True, False])
def test_other_heads_are_refused_with_the_mend(relu, head, rank, nets, model_of, explained):
    net, x = network(nets, rank, REFUSED[head], relu), nets.noise(1, 2, *SIZE[:rank])
    with pytest.raises(CannotDo, match="CAM without a pooled head") as refused:
        explained(CAM("front"), model_of(net, rank), x)
    assert "GradCAM" in refused.value.mend


def test_a_segmentation_is_no_task_of_cam():
    assert "segmentation" not in CAM.card.tasks
    assert SegXResCAM.card.tasks == {"segmentation"}


def test_the_check_is_one_own_forward_and_seeded(nets, model_of):
    model, x = model_of(network(nets, 2, HEADS["pool"]), 2), nets.noise(2, 2, 8, 10)
    method = CAM("front")
    probe = Probe(model, x, ClassScore(1), method.needs(model, {"image": x}))
    method(probe)
    assert (probe.spent.shared, probe.spent.own) == (Cost(2, 2), Cost(2))
    assert method.cost(probe) * 2 == Cost(2)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank", RANKS)
def test_low_precision_is_neither_refused_nor_too_lenient(rank, precision, nets, model_of, explained):
    x = nets.noise(2, 2, *(8,) * rank).float()
    net = network(nets, rank, HEADS["pool"])
    full = explained(CAM("front"), model_of(net, rank), x.double()).maps["image"]
    ours = explained(CAM("front"), model_of(net.float(), rank), x, precision=precision).maps["image"]
    assert ours.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(ours.flatten(), full.float().flatten(), 0) > 0.99
    deep = network(nets, rank, REFUSED["sigmoid"]).float()
    deep.tail[1].weight.data *= 10
    with pytest.raises(CannotDo):
        explained(CAM("front"), model_of(deep, rank), x, precision=precision)


def test_monai_adds_the_bias_at_every_cell(nets, model_of, explained):
    """Its map less the bias is ours."""
    from monai.networks.nets import DenseNet121
    from monai.visualize import CAM as Peer

    net = nets.seeded(lambda: DenseNet121(spatial_dims=2, in_channels=1, out_channels=3))
    x = nets.noise(2, 1, 64, 96)
    peer = Peer(net, "class_layers.relu", "class_layers.out").compute_map(x, class_idx=[0, 0]).detach()
    cells = peer - net.class_layers.out.bias[0].detach()
    expected = torch.nn.functional.interpolate(cells, size=(64, 96), mode="bilinear", align_corners=False)
    for layer in ("class_layers.relu", None):
        answer = explained(CAM(layer), model_of(net, 2, channels=(1,)), x, ClassScore(0))
        assert close(answer.maps["image"][:1], expected[:1], 1e-9)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("window", [1, 2, 3, 100])
def test_seg_x_res_cam_equals_the_second_implementation(window, rank, subject, explained, reference):
    s = subject("segmentation", rank)
    answer = explained(SegXResCAM(s.layer, window), s.model, s.inputs, s.target, s.scene)
    up = reference("upsample").upsample
    for i in range(2):
        slow = reference("seg_x_res_cam").seg_x_res_cam(s.tail, s.front(s.item(i)).detach(), window, up)
        assert slow.max() > 0 or answer.warnings
        assert close(answer.maps["image"][i, 0], up(slow, answer.maps["image"].shape[2:]), 1e-9)


@pytest.mark.parametrize("rank", RANKS)
def test_one_cell_is_hires_cam_and_all_of_them_grad_cam(rank, subject, explained):
    s = subject("segmentation", rank)
    s.model.module.tail[1].weight.data.neg_()
    layer = "front.0"  # at the image's resolution: nothing is enlarged, and the ReLU can come last

    def of(method):
        return explained(method, s.model, s.inputs, s.target, s.scene).maps["image"]

    assert float(of(HiResCAM(layer)).max()) > 0
    assert torch.allclose(of(SegXResCAM(layer, 1)), of(HiResCAM(layer)).relu(), rtol=0, atol=1e-15)
    assert torch.allclose(of(SegXResCAM(layer, 10)), of(GradCAM(layer)), rtol=1e-9, atol=1e-15)
    assert not torch.allclose(of(SegXResCAM(layer, 2)), of(SegXResCAM(layer, 1)))


def test_low_precision_of_seg_x_res_cam(subject, explained):
    s = subject("segmentation", 2)
    s.model.module.float()
    x = s.inputs["image"].float()
    full, low = (
        explained(SegXResCAM(s.layer), s.model, x, s.target, s.scene, p).maps["image"] for p in ("float32", "bfloat16")
    )
    assert low.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(low.flatten(), full.flatten(), 0) > 0.98


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_below_one_cell_is_refused(window):
    with pytest.raises(BadOption, match="at least 1 cell"):
        SegXResCAM(window=window)


def test_everything_against_is_told(nets, model_of, explained):
    net = network(nets, 2, HEADS["pool"])
    net.tail[2].weight.data.abs_().neg_()
    answer = explained(CAM("front"), model_of(net, 2, OutputSpec()), nets.noise(1, 2, 8, 8))
    assert answer.warnings == ("the map is nowhere positive: everything in this layer speaks against the target",)
