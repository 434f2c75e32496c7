"""Grad-CAM and HiResCAM against second implementations and closed forms.

Of the defects measured in peers, right here: B24 (2-D and 3-D are enlarged alike, and no value leaves the range of the
cells), B26 (low precision; a segmentation), and layers that a hook reads wrongly: reused, in-place, tuple.
"""

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.model import OutputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore, RegionScore
from pellucid.explain.cam import GradCAM, HiResCAM
from pellucid.explain.cells import AGAINST

KINDS = ("classification", "margin", "segmentation", "regression", "single-logit-positive", "single-logit-negative")
KINDS += ("reused-first", "reused-second", "in-place-behind", "tuple-layer", "dict-head")
RANKS = (2, 3)


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    return float(np.abs(np.asarray(ours) - theirs).max()) <= relative * float(np.abs(theirs).max())


def cells(method, s, explained, i):
    """The layer's output of one item, and our map of the batch."""
    answer = explained(method(s.layer), s.model, s.inputs, s.target, s.scene)
    return s.front(s.item(i)).detach(), answer.maps["image"][i, 0]


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", KINDS)
def test_grad_cam_equals_the_second_implementation(kind, rank, subject, explained, reference):
    s = subject(kind, rank)
    for i in range(len(s.inputs["image"])):
        a, ours = cells(GradCAM, s, explained, i)
        slow = reference("grad_cam").grad_cam(lambda v: s.tail(v).detach(), a)
        assert a.shape[2:] != ours.shape or kind == "tuple-layer"
        assert close(ours, reference("upsample").upsample(slow, ours.shape), 1e-6)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", KINDS)
def test_hires_cam_equals_the_second_implementation(kind, rank, subject, explained, reference):
    s = subject(kind, rank)
    for i in range(len(s.inputs["image"])):
        a, ours = cells(HiResCAM, s, explained, i)
        slow = reference("hires_cam").hires_cam(s.tail, a)
        assert close(ours, reference("upsample").upsample(slow, ours.shape), 1e-10)


def pooled(nets, rank, seed=0):
    """Features, a global mean, one linear layer: the network of class activation maps."""
    conv, pool = nets.CONV[rank], nets.POOL[rank]
    tail = nn.Sequential(pool(1), nn.Flatten(), nn.Linear(6, 3))
    return nets.seeded(lambda: nets.Split(nn.Sequential(nets.front(rank), nn.ReLU(), conv(6, 6, 1)), tail), seed)


@pytest.mark.parametrize("rank", RANKS)
def test_grad_cam_is_class_activation_mapping_on_a_pooled_network(rank, nets, model_of, explained, reference):
    """Zhou's map M = sum over k of w_k A^k is Z times Grad-CAM before the ReLU."""
    net, x = pooled(nets, rank), nets.noise(2, 2, *(8, 10, 6)[:rank])
    a, weight = net.front(x).detach(), net.tail[2].weight[1].detach()
    maps = explained(GradCAM("front"), model_of(net, rank), x).maps["image"]
    for i in range(2):
        cam = np.maximum(np.tensordot(weight.numpy(), a[i].numpy(), 1), 0) / a[i, 0].numel()
        assert close(maps[i, 0], reference("upsample").upsample(cam, x.shape[2:]), 1e-10)


@pytest.mark.parametrize("rank", RANKS)
def test_hires_cam_equals_grad_cam_where_the_gradient_is_constant(rank, nets, model_of, explained):
    net = nets.seeded(lambda: nn.Sequential(nets.CONV[rank](2, 6, 3, padding=1), nn.Tanh(), *pooled(nets, rank).tail))
    x = nets.noise(2, 2, *(6,) * rank)
    hires, grad = (explained(m("1"), model_of(net, rank), x).maps["image"] for m in (HiResCAM, GradCAM))
    assert float(hires.min()) < 0 < float(grad.max())
    assert torch.allclose(hires.relu(), grad, rtol=0, atol=1e-14)


class Flat(nn.Module):
    """A layer at the input's resolution and a single linear layer behind it."""

    def __init__(self, conv, rank, side):
        super().__init__()
        self.conv, self.relu, self.fc = conv(2, 3, 3, padding=1), nn.ReLU(), nn.Linear(3 * side**rank, 3)

    def forward(self, x):
        return self.fc(self.relu(self.conv(x)).flatten(1))


@pytest.mark.parametrize("rank", RANKS)
def test_hires_cells_sum_to_the_score_less_the_bias(rank, nets, model_of, explained):
    net, x = nets.seeded(lambda: Flat(nets.CONV[rank], rank, 5)), nets.noise(2, 2, *(5,) * rank)
    maps = explained(HiResCAM("relu"), model_of(net, rank), x).maps["image"]
    score = (net(x)[:, 1] - net.fc.bias[1]).detach()
    assert torch.allclose(maps.flatten(1).sum(1), score, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rank", RANKS)
def test_grad_cam_cells_sum_to_the_pooled_score(rank, nets, model_of, explained):
    """sum over cells of sum_k w_k A^k = Z (S - b): with all weights positive nothing is cut off by the ReLU."""
    net = nets.seeded(lambda: nets.Split(nets.CONV[rank](2, 4, 3, padding=1), nn.Sequential(nn.ReLU(), nn.Identity())))
    net.tail = nn.Sequential(nets.POOL[rank](1), nn.Flatten(), nn.Linear(4, 2).double())
    net.front = nn.Sequential(net.front, nn.ReLU())
    net.tail[2].weight.data.abs_()
    x = nets.noise(2, 2, *(6,) * rank)
    maps = explained(GradCAM("front"), model_of(net, rank), x).maps["image"]
    score = (net(x)[:, 1] - net.tail[2].bias[1]).detach()
    assert torch.allclose(maps.flatten(1).sum(1), score, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("method", [GradCAM, HiResCAM])
def test_enlarged_linearly_and_within_the_range_of_the_cells(method, rank, nets, model_of, explained):
    """B24: a peer's cubic enlargement of volumes undershoots to -0.12 for one bright cell."""
    tail = nn.Sequential(nets.POOL[rank](1), nn.Flatten(), nn.Linear(1, 2))
    net = nn.Sequential(nn.Identity(), {2: nn.AvgPool2d, 3: nn.AvgPool3d}[rank](4), *tail).double()
    net[4].weight.data[:] = 1.0
    x = torch.zeros(1, 1, *(12,) * rank, dtype=torch.float64)
    x[(0, 0, *(slice(4, 8),) * rank)] = 1.0
    maps = explained(method("1"), model_of(net, rank, channels=(1,)), x).maps["image"][0, 0]
    assert float(maps.min()) >= 0
    line = np.interp((np.arange(12) + 0.5) / 4 - 0.5, np.arange(3), [0.0, 1.0, 0.0])
    expected = line[:, None] * line if rank == 2 else line[:, None, None] * line[:, None] * line
    assert np.allclose(maps.numpy(), expected / 3**rank, atol=1e-12)


def test_cell_is_the_native_resolution(subject, explained):
    s = subject("classification", 3)
    assert explained(GradCAM(s.layer), s.model, s.inputs).cell == (2.0, 2.0, 2.0)
    assert explained(HiResCAM("front.0"), s.model, s.inputs).cell == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("rank", RANKS)
def test_default_layer(rank, subject, explained):
    """None: the last with spatial extent; of a segmentation the last at the coarsest resolution."""
    s = subject("classification", rank)
    default, named = (explained(GradCAM(n), s.model, s.inputs).maps["image"] for n in (None, "tail.pool"))
    assert torch.equal(default, named)
    s = subject("segmentation", rank)
    default, named = (
        explained(GradCAM(n), s.model, s.inputs, s.target, s.scene).maps["image"] for n in (None, "tail.1")
    )
    assert torch.equal(default, named)


def test_a_blank_map_says_so(nets, model_of, explained):
    net = pooled(nets, 2)
    net.front[2].weight.data.abs_()
    net.front[2].bias.data.abs_()
    net.tail[2].weight.data[1] = -1.0
    answer = explained(GradCAM("front"), model_of(net, 2), nets.noise(1, 2, 8, 8))
    assert float(answer.maps["image"].abs().max()) == 0
    assert answer.warnings == (AGAINST,)
    assert float(explained(HiResCAM("front"), model_of(net, 2), nets.noise(1, 2, 8, 8)).maps["image"].max()) < 0


def test_maps_of_different_images_stay_comparable(nets, model_of, explained):
    """No division by the maximum: on a bias-free network twice the image is twice the map."""
    net = nets.seeded(
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nets.POOL[2](1), nn.Flatten(), nn.Linear(4, 2))
    )
    x = nets.noise(1, 2, 8, 8)
    once, twice = (explained(GradCAM("1"), model_of(net, 2), v).maps["image"] for v in (x, 2 * x))
    assert torch.allclose(2 * once, twice, rtol=1e-12)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("method", [GradCAM, HiResCAM])
def test_several_targets_in_one_forward_equal_one_by_one(method, rank, subject, explained):
    s, cam = subject("classification", rank), method("front")
    targets = (ClassScore(0), ClassScore(1), ClassScore(2))
    probe = Probe(s.model, s.inputs, targets, cam.needs(s.model, s.inputs))
    together = [cam(probe.at(i)).maps["image"] for i in range(3)]
    assert (probe.spent.shared.forwards, probe.spent.own.forwards) == (2, 0)
    for target, maps in zip(targets, together, strict=True):
        assert torch.equal(maps, explained(cam, s.model, s.inputs, target).maps["image"])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("kind", ["classification", "segmentation", "reused-first"])
@pytest.mark.parametrize("method", [GradCAM, HiResCAM])
def test_an_item_alone_equals_the_item_in_a_batch(method, kind, subject, explained):
    s = subject(kind, 3)
    together = explained(method(s.layer), s.model, s.inputs, s.target, s.scene).maps["image"]
    for i in range(2):
        alone = explained(method(s.layer), s.model, s.item(i), s.target, s.scene).maps["image"]
        assert close(together[i : i + 1], alone.numpy(), 1e-10)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("method", [GradCAM, HiResCAM])
@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_low_precision_gives_float32_close_to_full(kind, method, rank, subject, explained):
    """B26: under bfloat16 a peer stops with a TypeError, and it takes no segmentation without a target of its own."""
    s = subject(kind, rank)
    s.model.module.float()
    x = s.inputs["image"].float()
    full = explained(method(s.layer), s.model, x, s.target, s.scene).maps["image"]
    low = explained(method(s.layer), s.model, x, s.target, s.scene, "bfloat16").maps["image"]
    assert low.dtype == full.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(low.flatten(), full.flatten(), 0) > 0.98


def test_region_where_predicted(nets, model_of, explained, reference):
    net, x = nets.segmenter(2), nets.noise(1, 2, 8, 10)
    where = (net(x).argmax(1) == 2).double().detach()
    slow = reference("grad_cam").grad_cam(
        lambda a: ((net.tail(a)[:, 2] * where).flatten(1).sum(1) / where.sum()).detach(), net.front(x).detach()
    )
    ours = explained(GradCAM("front"), model_of(net, 2, OutputSpec("segmentation")), x, RegionScore(2)).maps["image"]
    assert close(ours[0, 0], reference("upsample").upsample(slow, (8, 10)), 1e-6)


def test_an_input_that_does_not_reach_the_layer(subject, explained):
    """Two images: the map is drawn on the first one's grid."""
    s = subject("two-images", 2)
    answer = explained(GradCAM("mix"), s.model, s.inputs)
    assert list(answer.maps) == ["pet"]
    assert answer.maps["pet"].shape == (2, 1, 8, 10)
