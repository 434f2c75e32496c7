"""Occlusion against a second implementation, closed forms and captum.

Of the defects measured in peers, right here: B6 (the activation is chosen by the number of input channels), the sign
that one peer reverses, and B26 (low precision).
"""

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.errors import BadOption
from pellucid.core.grid import Calibration, Grid
from pellucid.core.infill import Blur, Constant, ItemMean
from pellucid.core.model import OutputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore, RegionScore
from pellucid.explain.occlusion import Occlusion

KINDS = ("classification", "margin", "segmentation", "regression", "single-logit-positive", "single-logit-negative")
KINDS += ("reused-second", "in-place-behind", "dict-head", "two-images", "image-and-vector")
RANKS = (2, 3)


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    return float(np.abs(np.asarray(ours) - theirs).max()) <= relative * float(np.abs(theirs).max())


def plain(score):
    """A score without its graph."""
    return lambda inputs: score(inputs).detach()


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_second_implementation(kind, rank, subject, explained, reference):
    s = subject(kind, rank)
    answer = explained(Occlusion(3.0, 2.0, Constant(0.4)), s.model, s.inputs, s.target, s.scene)
    for i in range(2):
        item = s.item(i)
        fills = {name: torch.full_like(x, 0.4) for name, x in item.items()}
        slow = reference("occlusion").occlusion(plain(s.score), item, fills, (3,) * rank, (2,) * rank)
        assert close(answer.maps[s.model.primary][i, 0], slow, 1e-12)


@pytest.mark.parametrize("window", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("stride", [1.0, 2.0, 3.0, 4.0])
def test_any_window_and_stride(window, stride, subject, explained, reference):
    s = subject("classification", 2)
    method = Occlusion(window, stride, ItemMean())
    if stride > window:
        with pytest.raises(BadOption, match="voxels between two windows would never be hidden"):
            explained(method, s.model, s.inputs)
        return
    item = s.item(1)
    fills = {"image": item["image"].mean((2, 3), keepdim=True).expand(1, 2, 8, 10)}
    size, step = (int(window),) * 2, (int(stride),) * 2
    slow = reference("occlusion").occlusion(plain(s.score), item, fills, size, step)
    assert close(explained(method, s.model, s.inputs).maps["image"][1, 0], slow, 1e-12)


def test_window_in_millimeters_on_thick_slices(subject, explained, reference):
    s = subject("classification", 3)
    grid = Grid.regular((4, 6, 8), (5.0, 1.5, 1.0), Calibration.PATIENT)
    method, item = Occlusion(5.0, 3.0, Constant(0.0)), s.item(0)
    assert method.geometry(grid) == ((1, 3, 5), (1, 2, 3))
    ours = explained(method, s.model, item, scene=Scene(grids={"image": grid}))
    slow = reference("occlusion").occlusion(plain(s.score), item, {"image": item["image"] * 0}, (1, 3, 5), (1, 2, 3))
    assert close(ours.maps["image"][0, 0], slow, 1e-12)
    assert ours.cell == (1.0, 3.0, 5.0)


@pytest.mark.parametrize("rank", RANKS)
def test_blocks_of_an_additive_score_sum_to_the_difference(rank, nets, model_of, explained):
    """f = sum of g_i(x_i): hiding a block costs its own terms, whatever the others are."""
    weight = nets.noise(1, 2, *(6,) * rank)

    class Additive(nn.Module):
        def forward(self, x):
            return (weight * (x + x.pow(3)) + x.abs().sqrt()).flatten(1).sum(1, keepdim=True)

    net, x = Additive(), nets.noise(2, 2, *(6,) * rank, seed=4)
    method = Occlusion(2.0, 2.0, Constant(0.5))
    maps = explained(method, model_of(net, rank), x, ClassScore(0)).maps["image"]
    blocks = maps[(slice(None), 0, *(slice(None, None, 2),) * rank)].flatten(1).sum(1)
    assert torch.allclose(blocks, (net(x) - net(torch.full_like(x, 0.5)))[:, 0], rtol=0, atol=1e-10)


def test_a_linear_score_gives_the_weighted_sum_of_the_window(nets, model_of, explained):
    net, x = nets.linear(8, channels=2), nets.noise(1, 2, 8, 8)
    terms = (net[1].weight.detach().view(1, 2, 8, 8) * (x - 0.2)).sum(1, keepdim=True)
    maps = explained(Occlusion(2.0, 2.0, Constant(0.2)), model_of(net, 2), x, ClassScore(0)).maps["image"]
    assert torch.allclose(maps[..., ::2, ::2], 4 * nn.functional.avg_pool2d(terms, 2), atol=1e-13)
    single = explained(Occlusion(1.0, 1.0, Constant(0.2)), model_of(net, 2), x, ClassScore(0)).maps["image"]
    assert torch.allclose(single, terms, atol=1e-13)


def test_hiding_what_speaks_for_the_class_is_positive(nets, model_of, explained):
    """MONAI returns the class score of the hidden image: there more negative is more important."""
    net = nets.linear(4)
    net[1].weight.data[:] = 1.0
    maps = explained(
        Occlusion(1.0, 1.0, Constant(0.0)),
        model_of(net, 2, channels=(1,)),
        torch.ones(1, 1, 4, 4).double(),
        ClassScore(0),
    ).maps["image"]
    assert torch.allclose(maps, torch.ones_like(maps), atol=1e-13)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2), (4, 1)])
def test_equal_to_captum(window, stride, rank, subject, explained):
    from captum.attr import Occlusion as Peer

    s = subject("classification", rank)
    x = s.inputs["image"]
    theirs = Peer(s.model.module).attribute(
        x, (2, *(window,) * rank), strides=(2, *(stride,) * rank), target=1, baselines=0.3
    )
    ours = explained(Occlusion(float(window), float(stride), Constant(0.3)), s.model, x).maps["image"]
    assert close(ours, theirs[:, :1].detach().numpy(), 1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_unit_is_that_of_the_head_whatever_the_input(channels, nets, model_of, explained):
    """B6: MONAI takes the sigmoid of a softmax model when the image has one channel."""
    net = nets.seeded(lambda: nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)))
    x = nets.noise(1, channels, 6, 6)
    answer = explained(Occlusion(6.0, 6.0, Constant(0.0)), model_of(net, 2, channels=(channels,)), x)
    assert answer.unit == "logit"
    assert torch.allclose(answer.maps["image"], (net(x) - net(x * 0))[0, 1].detach().expand(1, 1, 6, 6), atol=1e-13)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_the_peer_takes_the_sigmoid_of_a_softmax_model(nets):
    """What B6 is, seen in MONAI itself: the scores of three exclusive classes do not sum to 1."""
    from monai.visualize import OcclusionSensitivity

    net = nets.seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))).float()
    peer = OcclusionSensitivity(net, mask_size=2, n_batch=8, mode="mean_img", verbose=False)
    with torch.no_grad():
        scores = peer(nets.noise(1, 1, 6, 6).float())[0]
    assert not torch.allclose(scores.sum(1), torch.ones_like(scores.sum(1)), atol=0.1)


def test_two_fills_are_averaged_and_their_spread_is_told(nets, model_of, explained):
    net, x = nets.linear(8), nets.noise(2, 1, 8, 8) + 3
    net[1].weight.data.abs_()
    model, scene = model_of(net, 2, channels=(1,)), Scene(infills=(Constant(0.0), ItemMean(), Blur(1.0)))
    both = explained(Occlusion(2.0), model, x, ClassScore(0), scene)
    first, second = (
        explained(Occlusion(2.0, infill=f), model, x, ClassScore(0)).maps["image"] for f in scene.infills[:2]
    )
    assert torch.allclose(both.maps["image"], (first + second) / 2, atol=1e-13)
    assert "differ by up to" in both.warnings[0]
    assert "(constant 0 (network units); mean of the image)" in both.warnings[0]
    near = Scene(infills=(Constant(0.0), Constant(0.01)))
    assert explained(Occlusion(2.0), model, x, ClassScore(0), near).warnings == ()


def test_the_region_is_fixed_at_the_unperturbed_image(nets, model_of, explained, reference):
    """Recomputed in each pass, the region would follow the mask's border."""
    net, x = nets.segmenter(2), nets.noise(1, 2, 8, 10)
    where = (net(x).argmax(1) == 2).double().detach()

    def score(inputs):
        out = net(inputs["image"]).detach()
        return (out[:, 2] * where).flatten(1).sum(1) / where.sum()

    slow = reference("occlusion").occlusion(score, {"image": x}, {"image": x * 0}, (2, 2), (2, 2))
    model = model_of(net, 2, OutputSpec("segmentation"))
    assert close(
        explained(Occlusion(2.0, 2.0, Constant(0.0)), model, x, RegionScore(2)).maps["image"][0, 0], slow, 1e-12
    )


def test_images_are_hidden_together_and_a_vector_is_held(subject, explained):
    s = subject("two-images", 2)
    assert explained(Occlusion(4.0), s.model, s.inputs).warnings == ()
    s = subject("image-and-vector", 2)
    answer = explained(Occlusion(4.0, infill=Constant(0.0)), s.model, s.inputs)
    assert answer.warnings == ("input 'covariates' was held fixed: it has another shape",)
    assert list(answer.maps) == ["image"]


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_an_item_alone_equals_the_item_in_a_batch(kind, subject, explained):
    s = subject(kind, 3)
    together = explained(Occlusion(2.0), s.model, s.inputs, s.target, s.scene).maps["image"]
    for i in range(2):
        alone = explained(Occlusion(2.0), s.model, s.item(i), s.target, s.scene).maps["image"]
        assert close(together[i : i + 1], alone.numpy(), 1e-10)


def test_several_targets_equal_one_by_one(subject, explained):
    s, method = subject("classification", 2), Occlusion(4.0, 4.0, Constant(0.0))
    targets = (ClassScore(0), ClassScore(2))
    probe = Probe(s.model, s.inputs, targets, method.needs(s.model, s.inputs))
    for i, target in enumerate(targets):
        together = method(probe.at(i)).maps["image"]
        assert torch.equal(together, explained(method, s.model, s.inputs, target).maps["image"])
    assert probe.spent.shared.forwards == 2
    assert probe.spent.own.forwards == 2 * 2 * 6


def test_low_precision_gives_float32_close_to_full(subject, explained):
    s = subject("classification", 2)
    s.model.module.float()
    s.model.module.tail.fc.weight.data.mul_(50)
    x = s.inputs["image"].float()
    full, low = (
        explained(Occlusion(4.0, infill=Constant(0.0)), s.model, x, precision=p).maps["image"]
        for p in ("float32", "bfloat16")
    )
    assert low.dtype == full.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(low.flatten(), full.flatten(), 0) > 0.95
    assert not torch.equal(low, full)
