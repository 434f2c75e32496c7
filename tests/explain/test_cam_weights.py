"""GradCAMPlusPlus, XGradCAM and LayerCAM against second implementations, closed forms and peers.

Of the defects measured in peers, right here: B1 (alpha divided on a copy), B2 (the third power inside the sum), B3 (an
epsilon that is large beside small gradients), B4 and B5 (batches of Grad-CAM++).
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pellucid.core.model import OutputSpec
from pellucid.core.target import ClassScore
from pellucid.explain.cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pellucid.explain.cells import AGAINST, BLANK

KINDS = ("classification", "margin", "segmentation", "regression", "single-logit-positive", "single-logit-negative")
KINDS += ("reused-first", "reused-second", "in-place-behind", "tuple-layer", "dict-head")
RANKS = (2, 3)
METHODS = (GradCAMPlusPlus, XGradCAM, LayerCAM)


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max()) <= relative * float(np.abs(theirs).max())


def positive(front):
    """A front whose output is not negative, as these methods assume."""
    return nn.Sequential(front, nn.ReLU())


@pytest.fixture
def relu_subject(subject):
    """A subject whose layer lies behind a ReLU, where it can be put there."""

    def made(kind, rank):
        s = subject(kind, rank)
        if kind in ("classification", "margin", "segmentation", "regression"):
            s.model.module.front.append(nn.ReLU())
        if (kind, rank) == ("segmentation", 3):
            s.model.module.tail[1].weight.data.neg_()  # else everything speaks against, and all maps are blank
        return s

    return made


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_second_implementations(kind, rank, relu_subject, explained, reference):
    s = relu_subject(kind, rank)
    plus, x_grad, layer = (reference(n) for n in ("grad_cam_plus_plus", "x_grad_cam", "layer_cam"))
    cases = [
        (GradCAMPlusPlus(s.layer), plus.grad_cam_plus_plus),
        (GradCAMPlusPlus(s.layer, normalized=True), lambda t, a: plus.grad_cam_plus_plus(t, a, normalized=True)),
        (XGradCAM(s.layer), lambda t, a: np.maximum(x_grad.x_grad_cam(t, a), 0)),
        (LayerCAM(s.layer), layer.layer_cam),
    ]
    for method, second in cases:
        maps = explained(method, s.model, s.inputs, s.target, s.scene).maps["image"]
        assert float(maps.max()) > 0, "nothing is compared"
        for i in range(len(maps)):
            slow = second(s.tail, s.front(s.item(i)).detach())
            assert close(maps[i, 0], reference("upsample").upsample(slow, maps.shape[2:]), 1e-9), method


def network(nets, rank, tail, seed=0):
    """Non-negative features of six channels and a tail."""
    return nets.seeded(lambda: nets.Split(nn.Sequential(*nets.front(rank), nn.ReLU()), tail()), seed)


def pooled(nets, rank):
    """A head of global mean and one linear layer."""
    return network(nets, rank, lambda: nn.Sequential(nets.POOL[rank](1), nn.Flatten(), nn.Linear(6, 3)))


def gap_weights(net, a, label):
    """The gradient at every cell of a channel, and the channel's sum: "batch channel"."""
    return net.tail[2].weight[label].detach() / a[0, 0].numel(), a.flatten(2).sum(2)


@pytest.mark.parametrize("rank", RANKS)
def test_grad_cam_plus_plus_on_a_pooled_network(rank, nets, model_of, explained, reference):
    """With a constant gradient w_k = Z relu(g) / (2 + g sum A), and relu(g) alone where alpha is normalized."""
    net, x = pooled(nets, rank), nets.noise(2, 2, *(8, 10, 6)[:rank])
    a = net.front(x).detach()
    g, total = gap_weights(net, a, 1)
    count = a[0, 0].numel()
    for normalized, weight in ((False, count * g.relu() / (2 + g * total)), (True, g.relu().expand(2, -1))):
        maps = explained(GradCAMPlusPlus("front", normalized), model_of(net, rank), x).maps["image"]
        for i in range(2):
            cells = np.maximum(np.tensordot(weight[i].numpy(), a[i].numpy(), 1), 0)
            assert close(maps[i, 0], reference("upsample").upsample(cells, x.shape[2:]), 1e-10)


@pytest.mark.parametrize("rank", RANKS)
def test_all_equal_grad_cam_where_the_gradient_is_constant_and_rising(rank, nets, model_of, explained):
    net, x = pooled(nets, rank), nets.noise(2, 2, *(8,) * rank)
    net.tail[2].weight.data.abs_()
    maps = [explained(m("front"), model_of(net, rank), x).maps["image"] for m in (GradCAM, XGradCAM, LayerCAM)]
    assert float(maps[0].max()) > 0
    assert torch.allclose(maps[0], maps[1], rtol=1e-10)
    assert torch.allclose(maps[0], maps[2], rtol=1e-10)


@pytest.mark.parametrize("rank", RANKS)
def test_x_grad_cam_cells_sum_to_the_score_of_a_tail_without_bias(rank, nets, model_of, explained):
    """sum over cells before the ReLU = sum of g A = S; weights that are all positive lose nothing to the ReLU."""

    def tail():
        made = nn.Sequential(nn.Flatten(), nn.Linear(6 * 4**rank, 8, bias=False), nn.ReLU())
        return made.append(nn.Linear(8, 3, bias=False))

    net, x = network(nets, rank, tail), nets.noise(2, 2, *(8,) * rank)
    for layer in (net.tail[1], net.tail[3]):
        layer.weight.data.abs_()
    net.front = nn.Sequential(net.front, nn.Upsample(scale_factor=1))
    answer = explained(XGradCAM("front"), model_of(net, rank), x)
    cells = answer.maps["image"].flatten(1).sum(1) / 2**rank  # each cell covers 2 voxels per axis
    assert torch.allclose(cells, net(x)[:, 1].detach(), rtol=1e-10)


def test_second_formulas_before_the_relu(nets, reference):
    """The second implementation itself: its cells sum to the sum of g A, whatever the signs."""
    net, x = (
        network(nets, 2, lambda: nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(120, 3))),
        nets.noise(1, 2, 8, 10),
    )
    a = net.front(x).detach().requires_grad_()
    g = torch.autograd.grad(net.tail(a)[0, 1], a)[0]
    cells = reference("x_grad_cam").x_grad_cam(lambda v: net.tail(v)[:, 1], a.detach())
    assert cells.sum() == pytest.approx(float((g * a).detach().sum()), rel=1e-10)


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-12, 1e6])
def test_a_small_or_large_score_has_the_map_that_the_formula_gives(scale, nets, model_of, explained, reference):
    """B3: with 1e-6 beside g^2 a peer's weights are 0.034 of the right ones at g about 1e-4. Here in float32."""
    net, x = (
        network(nets, 2, lambda: nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Linear(120, 3))),
        nets.noise(1, 2, 8, 10),
    )
    net.tail[2].weight.data *= scale
    right = reference("grad_cam_plus_plus").grad_cam_plus_plus(lambda a: net.tail(a)[:, 1], net.front(x).detach())
    ours = explained(GradCAMPlusPlus("front"), model_of(net.float(), 2), x.float()).maps["image"][0, 0]
    assert ours.dtype == torch.float32
    assert close(ours, reference("upsample").upsample(right, (8, 10)), 1e-4)


def test_weights_scale_with_the_score(nets, model_of, explained):
    """XGradCAM and LayerCAM are linear in the score; GradCAMPlusPlus is while g sum A is small beside 2."""
    net, x = pooled(nets, 2), nets.noise(1, 2, 8, 8)
    net.tail[2].weight.data *= 1e-9
    once = [explained(m("front"), model_of(net, 2), x).maps["image"] for m in METHODS]
    net.tail[2].weight.data *= 7
    for before, after in zip(
        once, [explained(m("front"), model_of(net, 2), x).maps["image"] for m in METHODS], strict=True
    ):
        assert torch.allclose(7 * before, after, rtol=1e-6)


def plus_plus_formulas(a, g):
    """Three readings of the weights: right, the third power inside the sum (B2), and not divided at all (B1)."""
    axes = tuple(range(2, a.ndim))
    outside = 2 * g**2 + a.sum(axes, keepdim=True) * g**3
    inside = 2 * g**2 + (a * g**3).sum(axes, keepdim=True)
    weights = [(g**2 / d * g.relu()).nan_to_num().sum(axes, keepdim=True) for d in (outside, inside)]
    weights.append((g**2 * g.relu()).sum(axes, keepdim=True))
    return [(w * a).sum(1, keepdim=True).relu() for w in weights]


@pytest.fixture
def spatial(nets):
    """A network whose gradient differs between places, its input, and activation and gradient of the layer."""
    net = network(nets, 2, lambda: nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(120, 3)))
    net.tail[2].weight.data *= 10  # g sum A is no longer small beside 2
    x = nets.noise(1, 2, 8, 10)
    a = net.front(x).detach().requires_grad_()
    return net, x, a.detach(), torch.autograd.grad(net.tail(a)[0, 1], a)[0]


def enlarged(x, shape=(8, 10)):
    return F.interpolate(x, size=shape, mode="bilinear", align_corners=False)


def test_alpha_is_divided(spatial, model_of, explained):
    """B1: torchcam divides a copy, and what it shows is the sum of g^2 relu(g) A."""
    from torchcam.methods import GradCAMpp

    net, x, a, g = spatial
    right, _, undivided = plus_plus_formulas(a, g)
    with GradCAMpp(net, "front", input_shape=(2, 8, 10)) as peer:
        found = peer([1], net(x), normalized=False)[0].detach()
    assert close(found.relu(), undivided[0], 1e-6)
    assert not close(found.relu(), right[0], 0.1)
    assert close(explained(GradCAMPlusPlus("front"), model_of(net, 2), x).maps["image"], enlarged(right), 1e-9)


def test_the_sum_of_activations_stands_outside_the_third_power(spatial, model_of, explained):
    """B2: MONAI sums A g^3; the paper and its authors' code have (sum A) g^3."""
    from monai.visualize import GradCAMpp

    net, x, a, g = spatial
    right, inside, _ = plus_plus_formulas(a, g)
    ours = explained(GradCAMPlusPlus("front"), model_of(net, 2), x).maps["image"]
    assert close(ours, enlarged(right), 1e-9)
    assert not close(right, inside, 0.05)
    peer = GradCAMpp(net, "front").compute_map(x.clone().requires_grad_(), class_idx=1).detach()
    factor = float(net(x)[0, 1].detach().exp())  # a positive scalar, which it keeps
    assert close(peer, factor * inside, 1e-4)


def test_batches_and_large_scores(nets, model_of, explained):
    """B4 and B5: MONAI stops at a batch, mixes the classes of its items, and overflows for a score over 88."""
    from monai.visualize import GradCAMpp

    net, x = pooled(nets, 2), nets.noise(2, 2, 8, 6)
    net.tail[2].bias.data -= net(x).mean(0)
    labels = net(x).argmax(1).tolist()
    net.tail[2].bias.data += 1000
    assert len(set(labels)) == 2
    both = explained(GradCAMPlusPlus("front"), model_of(net, 2), x, ClassScore()).maps["image"]
    assert torch.isfinite(both).all()
    for i, label in enumerate(labels):
        alone = explained(GradCAMPlusPlus("front"), model_of(net, 2), x[i : i + 1], ClassScore(label)).maps["image"]
        assert close(both[i : i + 1], alone, 1e-10)
    peer = GradCAMpp(net, "front")
    assert not torch.isfinite(peer.compute_map(x[:1].clone().requires_grad_(), class_idx=1)).all()
    with pytest.raises(RuntimeError):
        peer.compute_map(x.clone().requires_grad_(), class_idx=torch.tensor(labels))


@pytest.mark.parametrize(("method", "peer"), [(XGradCAM, "XGradCAM"), (LayerCAM, "LayerCAM")])
def test_equal_to_torchcam(method, peer, spatial, model_of, explained):
    import torchcam.methods

    net, x, _, _ = spatial
    with getattr(torchcam.methods, peer)(net, "front", input_shape=(2, 8, 10)) as extractor:
        found = extractor([1], net(x), normalized=False)[0].detach()[None]
    assert close(explained(method("front"), model_of(net, 2), x).maps["image"], enlarged(found.relu()), 1e-6)


def signed_network(nets):
    """The layer has negative activations; in channel 0 they cancel."""

    class Cancels(nn.Module):
        def forward(self, x):
            return torch.cat([x - x.mean((2, 3), keepdim=True), x.abs()], 1)

    return nets.seeded(lambda: nets.Split(Cancels(), nn.Sequential(nn.Flatten(), nn.Linear(128, 3))))


def test_canceling_activations_are_told_and_stay_finite(nets, model_of, explained):
    net, x = signed_network(nets), nets.noise(1, 1, 8, 8)
    answer = explained(XGradCAM("front"), model_of(net, 2, channels=(1,)), x)
    assert torch.isfinite(answer.maps["image"]).all()
    assert any("nearly cancel" in w for w in answer.warnings)
    below = nets.seeded(lambda: nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(64, 3)))
    below[0].bias.data[:] = -13
    answer = explained(XGradCAM("0"), model_of(below, 2, channels=(1,)), x)
    assert any("negative on the whole" in w for w in answer.warnings)
    assert explained(XGradCAM("front"), model_of(pooled(nets, 2), 2), nets.noise(1, 2, 8, 8)).warnings == ()


def test_a_negative_sum_of_activations_is_told(nets, model_of, explained):
    """2 + g sum A is zero or negative there: alpha is without bound, or turns a rising gradient around."""
    net, x = nets.seeded(lambda: nets.Split(nn.Identity(), nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))), None
    net.tail[1].weight.data[:] = 1.0
    x = torch.full((1, 1, 4, 4), -2 / 16, dtype=torch.float64)
    answer = explained(GradCAMPlusPlus("front"), model_of(net, 2, channels=(1,)), x)
    assert torch.isfinite(answer.maps["image"]).all()
    assert any("choose a layer behind a ReLU" in w for w in answer.warnings)


@pytest.mark.parametrize("method", METHODS)
def test_dead_channels_and_blank_maps(method, nets, model_of, explained):
    net, x = pooled(nets, 2), nets.noise(2, 2, 8, 8)
    net.front[3].weight.data[2:4] = 0
    net.front[3].bias.data[2:4] = -1
    answer = explained(method("front"), model_of(net, 2), x)
    assert torch.isfinite(answer.maps["image"]).all()
    assert answer.warnings == ()
    net.tail[2].weight.data.abs_().neg_()
    answer = explained(method("front"), model_of(net, 2), x)
    assert float(answer.maps["image"].abs().max()) == 0
    assert answer.warnings == (AGAINST if method is XGradCAM else BLANK,)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_low_precision_gives_float32_close_to_full(kind, method, rank, relu_subject, explained):
    s = relu_subject(kind, rank)
    s.model.module.float()
    x = s.inputs["image"].float()
    full = explained(method(s.layer), s.model, x, s.target, s.scene).maps["image"]
    low = explained(method(s.layer), s.model, x, s.target, s.scene, "bfloat16").maps["image"]
    assert low.dtype == full.dtype == torch.float32
    assert F.cosine_similarity(low.flatten(), full.flatten(), 0) > 0.98


def test_layer_cam_drops_what_hires_cam_subtracts(nets, model_of, explained):
    net, x = pooled(nets, 2), nets.noise(1, 2, 8, 8)
    layer, hires = (explained(m("front"), model_of(net, 2), x).maps["image"] for m in (LayerCAM, HiResCAM))
    assert bool((layer >= hires - 1e-12).all())
    assert not torch.allclose(layer, hires.relu())


@pytest.mark.parametrize("method", METHODS)
def test_maps_share_one_pass(method, nets, model_of):
    from pellucid.core.card import Cost
    from pellucid.core.probe import Probe

    model, x = model_of(pooled(nets, 2), 2, OutputSpec()), nets.noise(1, 2, 8, 8)
    probe = Probe(model, x, ClassScore(1), method("front").needs(model, {"image": x}))
    method("front")(probe)
    assert (probe.spent.shared, probe.spent.own) == (Cost(1, 1), Cost())
