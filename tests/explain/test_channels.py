"""ScoreCAM and AblationCAM: one evaluation per channel, streamed, in 2-D and 3-D.

Of the defects measured in peers, right here: B10 (a model left broken after an error) and B26 (neither runs on volumes
or segmentations).
"""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.card import Cost
from pellucid.core.errors import BadOption
from pellucid.core.infill import Constant, ItemMean
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.cells import AGAINST, BLANK
from pellucid.explain.channels import AblationCAM, ScoreCAM
from pellucid.testing import unchanged

KINDS = ("classification", "segmentation", "regression", "single-logit-negative", "reused-first", "in-place-behind")
KINDS += ("tuple-layer", "dict-head")
RANKS = (2, 3)


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max()) <= relative * float(np.abs(theirs).max())


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", KINDS)
def test_ablation_cam_equals_the_second_implementation(kind, rank, subject, explained, reference):
    s = subject(kind, rank)
    maps = explained(AblationCAM(s.layer), s.model, s.inputs, s.target, s.scene).maps["image"]
    for i in range(len(maps)):
        slow = reference("ablation_cam").ablation_cam(lambda a: s.tail(a).detach(), s.front(s.item(i)).detach())
        assert float(slow.max()) > 0
        assert close(maps[i, 0], reference("upsample").upsample(slow, maps.shape[2:]), 1e-9)


@pytest.mark.parametrize("infill", [None, ItemMean()])
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", KINDS)
def test_score_cam_equals_the_second_implementation(kind, rank, infill, subject, explained, reference):
    s = subject(kind, rank)
    if kind in ("regression", "single-logit-negative"):
        s.model.module.front.append(nn.ReLU())  # else a channel that is negative everywhere wins: a blank map
    maps = explained(ScoreCAM(s.layer, infill=infill), s.model, s.inputs, s.target, s.scene).maps["image"]
    up = reference("upsample").upsample
    for i in range(len(maps)):
        one = s.item(i)
        axes = tuple(range(2, 2 + rank))
        fills = {n: x.mean(axes, keepdim=True).expand_as(x) if infill else torch.zeros_like(x) for n, x in one.items()}
        slow = reference("score_cam").score_cam(
            lambda v: s.score(v).detach(), one, fills, "image", s.front(one).detach(), up
        )
        assert float(slow.max()) > 0
        assert close(maps[i, 0], up(slow, maps.shape[2:]), 1e-9)


def test_two_images_are_masked_together(subject, explained, reference):
    s = subject("two-images", 2)
    net = s.model.module
    ours = explained(ScoreCAM("mix"), s.model, s.inputs).maps["pet"]
    up = reference("upsample").upsample
    for i in range(2):
        one = s.item(i)
        joint = torch.tanh(net.pet(one["pet"])) * torch.relu(net.ct(one["ct"])) + 0.1 * net.ct(one["ct"])
        fills = {n: torch.zeros_like(x) for n, x in one.items()}
        slow = reference("score_cam").score_cam(
            lambda v: s.score(v).detach(), one, fills, "pet", net.mix(joint).detach(), up
        )
        assert close(ours[i, 0], up(slow, (8, 10)), 1e-9)


def linear_tail(nets, rank):
    """``S = sum_k w_k sum A_k + b`` behind a ReLU."""

    class Sum(nn.Module):
        def forward(self, a):
            return a.flatten(2).sum(2)

    return nets.seeded(
        lambda: nets.Split(nn.Sequential(nets.front(rank), nn.ReLU()), nn.Sequential(Sum(), nn.Linear(6, 3)))
    )


@pytest.mark.parametrize("rank", RANKS)
def test_ablation_of_a_linear_tail_is_known(rank, nets, model_of, explained, reference):
    """S - S_k = w_k sum A_k."""
    net, x = linear_tail(nets, rank), nets.noise(2, 2, *(8,) * rank)
    a = net.front(x).detach()
    weight = net.tail[1].weight[1].detach() * a.flatten(2).sum(2)
    maps = explained(AblationCAM("front"), model_of(net, rank), x).maps["image"]
    for i in range(2):
        cells = np.maximum(np.tensordot(weight[i].numpy(), a[i].numpy(), 1), 0)
        assert close(maps[i, 0], reference("upsample").upsample(cells, x.shape[2:]), 1e-9)


def test_a_negative_score_does_not_turn_the_map_around(nets, model_of, explained):
    """Divided by S, as in the paper, a bias that makes the logit negative would flip every weight."""
    net, x = linear_tail(nets, 2), nets.noise(1, 2, 8, 8)
    net.tail[1].bias.data[1] = 1000
    high = explained(AblationCAM("front"), model_of(net, 2), x).maps["image"]
    net.tail[1].bias.data[1] = -1000
    low = explained(AblationCAM("front"), model_of(net, 2), x).maps["image"]
    assert float(net(x)[0, 1].detach()) < 0 < float(high.max())
    assert torch.allclose(high, low, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("method", [ScoreCAM, AblationCAM])
def test_cost_is_declared_and_counted(method, rank, subject):
    s = subject("classification", rank)
    explainer = method("front")
    probe = Probe(s.model, s.inputs, s.target, explainer.needs(s.model, s.inputs))
    expected = Cost(6 if method is ScoreCAM else 7)
    assert explainer.cost(probe) == expected
    explainer(probe)
    assert (probe.spent.shared, probe.spent.own) == (Cost(2), expected * 2)


def test_only_what_lies_behind_the_layer_is_computed(nets, model_of):
    """Six channels, and the front runs twice: in the shared pass and in the recording."""
    net = linear_tail(nets, 2)
    calls = []
    net.front[0][0].register_forward_hook(lambda *_: calls.append(1))
    model, x = model_of(net, 2), nets.noise(1, 2, 8, 8)
    explainer = AblationCAM("front")
    probe = Probe(model, x, ClassScore(1), explainer.needs(model, {"image": x}))
    model.layers({"image": x})
    calls.clear()
    explainer(probe)
    assert probe.spent.own == Cost(7)
    assert len(calls) == 2


@pytest.mark.parametrize("most", [1, 2, 64])
def test_the_chunk_does_not_matter(most, nets, model_of, explained, monkeypatch):
    net, x = linear_tail(nets, 2), nets.noise(2, 2, 8, 8)
    whole = explained(AblationCAM("front"), model_of(net, 2), x).maps["image"]
    monkeypatch.setattr(sys.modules[AblationCAM.__module__], "_MOST", most)
    assert torch.allclose(explained(AblationCAM("front"), model_of(net, 2), x).maps["image"], whole, rtol=1e-12)


@pytest.mark.parametrize("rank", RANKS)
def test_fewer_channels_are_those_that_vary_most_of_each_item(rank, subject, explained, reference):
    s = subject("classification", rank)
    answer = explained(ScoreCAM("front", channels=2), s.model, s.inputs)
    assert answer.warnings[0] == "4 of 6 channels were left out: those that vary least over the image"
    up = reference("upsample").upsample
    for i in range(2):
        a = s.front(s.item(i)).detach()
        kept = a.flatten(2).var(2)[0].argsort(descending=True)[:2]
        fills = {"image": torch.zeros_like(s.item(i)["image"])}
        slow = reference("score_cam").score_cam(
            lambda v: s.score(v).detach(), s.item(i), fills, "image", a[:, kept], up
        )
        assert close(answer.maps["image"][i, 0], up(slow, answer.maps["image"].shape[2:]), 1e-9)
    probe = Probe(s.model, s.inputs, s.target, ScoreCAM("front").needs(s.model, s.inputs))
    assert ScoreCAM("front", channels=2).cost(probe) == Cost(2)
    assert ScoreCAM("front", channels=99).cost(probe) == Cost(6)
    assert not [w for w in explained(ScoreCAM("front", channels=6), s.model, s.inputs).warnings if "left out" in w]


def test_a_constant_channel_has_no_weight(nets, model_of, explained):
    """It hides nothing in particular: the mask would be 0 / 0."""
    net, x = linear_tail(nets, 2), nets.noise(2, 2, 8, 8)
    net.front[0][3].weight.data[:4] = 0
    net.front[0][3].bias.data[:4] = 5
    answer = explained(ScoreCAM("front"), model_of(net, 2), x)
    a = net.front(x).detach()
    assert torch.isfinite(answer.maps["image"]).all()
    assert float(answer.maps["image"].max()) <= float(a[:, 4:].max())
    net.front[0][3].weight.data[:] = 0
    net.front[0][3].bias.data[:] = 5
    answer = explained(ScoreCAM("front"), model_of(net, 2), x)
    assert float(answer.maps["image"].abs().max()) == 0
    assert answer.warnings == (BLANK,)


def test_one_channel_that_takes_all_is_told(nets, model_of, explained):
    net, x = linear_tail(nets, 2), nets.noise(1, 2, 8, 8)
    net.tail[1].weight.data *= 1000
    answer = explained(ScoreCAM("front"), model_of(net, 2), x)
    assert answer.warnings == ("one channel of the layer has over 99% of the weight: the map is that channel",)


def test_the_fill_matters_and_is_the_scenes_first(subject, explained):
    s = subject("classification", 2)
    own = explained(ScoreCAM("front", infill=Constant(3.0)), s.model, s.inputs).maps["image"]
    scene = explained(ScoreCAM("front"), s.model, s.inputs, scene=Scene(infills=(Constant(3.0),))).maps["image"]
    assert torch.equal(own, scene)
    assert not torch.allclose(own, explained(ScoreCAM("front"), s.model, s.inputs).maps["image"])


def test_negative_activations_are_told(nets, model_of, explained):
    """A logit per cell, far below zero everywhere: its channel at zero would be a strong yes."""
    net = nets.seeded(lambda: nn.Sequential(nn.Conv2d(2, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    net[0].bias.data[:] = -13
    x = nets.noise(1, 2, 8, 8)
    answer = explained(AblationCAM("0"), model_of(net, 2), x, ClassScore(0))
    assert float(answer.maps["image"].min()) > 0
    assert "negative on the whole" in answer.warnings[0]
    net[0].bias.data[:] = 13
    assert explained(AblationCAM("0"), model_of(net, 2), x, ClassScore(0)).warnings == ()


def test_evidence_against_only_is_told(nets, model_of, explained):
    net, x = linear_tail(nets, 2), nets.noise(1, 2, 8, 8)
    net.tail[1].weight.data.abs_().neg_()
    assert explained(AblationCAM("front"), model_of(net, 2), x).warnings == (AGAINST,)


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
@pytest.mark.parametrize("method", [ScoreCAM, AblationCAM])
def test_an_item_alone_equals_the_item_in_a_batch(method, kind, subject, explained):
    s = subject(kind, 3)
    together = explained(method("front"), s.model, s.inputs, s.target, s.scene).maps["image"]
    for i in range(2):
        alone = explained(method("front"), s.model, s.item(i), s.target, s.scene).maps["image"]
        assert torch.allclose(alone, together[i : i + 1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", [ScoreCAM, AblationCAM])
def test_several_targets_share_the_recording(method, subject, explained):
    s, explainer = subject("classification", 2), method("front")
    probe = Probe(s.model, s.inputs, (ClassScore(0), ClassScore(2)), explainer.needs(s.model, s.inputs))
    for i, label in enumerate((0, 2)):
        single = explained(explainer, s.model, s.inputs, ClassScore(label)).maps["image"]
        assert torch.allclose(explainer(probe.at(i)).maps["image"], single, rtol=1e-12)
    assert probe.spent.own == Cost(2 * (12 if method is ScoreCAM else 13))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("method", [ScoreCAM, AblationCAM])
def test_low_precision(method, rank, subject, explained):
    s = subject("classification", rank)
    s.model.module.float()
    x = s.inputs["image"].float()
    full, low = (explained(method("front"), s.model, x, precision=p).maps["image"] for p in ("float32", "bfloat16"))
    assert low.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(low.flatten(), full.flatten(), 0) > 0.95


@pytest.mark.parametrize("method", [ScoreCAM, AblationCAM])
def test_the_model_works_after_an_error(method, nets, model_of, explained):
    """B10: a peer swaps the layer and forgets to put it back."""
    net, x = linear_tail(nets, 2), nets.noise(1, 2, 8, 8)
    model = model_of(net, 2)
    model.layers({"image": x})
    before, left = net(x), [1 if method is ScoreCAM else 2]  # the last call of each

    def fail(*_):
        left[0] -= 1
        if left[0] < 0:
            raise ValueError("planted failure")

    handle = net.tail[1].register_forward_hook(fail)
    with unchanged(net), pytest.raises(ValueError, match="planted failure"):
        explained(method("front"), model, x)
    handle.remove()
    assert torch.equal(before, net(x))


@pytest.mark.parametrize("channels", [0, -3])
def test_no_channel_is_refused(channels):
    with pytest.raises(BadOption, match="at least one channel"):
        ScoreCAM(channels=channels)
