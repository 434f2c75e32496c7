"""Saliency and input x gradient against second implementations, closed forms and captum.

Of the defects measured in peers, right here: B8 (a second call doubles the gradient and changes the first result).
"""

import pytest
import torch
from torch import nn

from pellucid.core.errors import BadOption
from pellucid.core.model import OutputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore, RegionScore
from pellucid.explain.gradient import InputXGradient, Saliency

KINDS = (
    "classification",
    "margin",
    "segmentation",
    "regression",
    "single-logit-positive",
    "single-logit-negative",
    "reused-second",
    "in-place-behind",
    "dict-head",
    "two-images",
    "image-and-vector",
)
RANKS = (2, 3)


def close(ours, theirs, relative):
    """Largest difference as a share of the largest value."""
    return float((ours - theirs).abs().max()) <= relative * float(theirs.abs().max())


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", KINDS)
def test_saliency_is_the_finite_difference(kind, rank, subject, explained, reference):
    s = subject(kind, rank)
    answer = explained(Saliency(), s.model, s.inputs, s.target, s.scene)
    for name in s.inputs:
        for i in range(2):
            slow = reference("saliency").saliency(s.score, s.item(i), name)
            assert close(answer.collapsed(name)[i : i + 1], slow, 1e-6)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", KINDS)
def test_input_x_gradient_is_the_forward_mode_derivative(kind, rank, subject, explained, reference):
    s = subject(kind, rank)
    answer = explained(InputXGradient(), s.model, s.inputs, s.target, s.scene)
    for name in s.inputs:
        for i in range(2):
            slow = reference("input_x_gradient").input_x_gradient(s.score, s.item(i), name)
            assert close(answer.maps[name][i : i + 1], slow, 1e-12)


def test_saliency_of_a_linear_score_is_the_largest_weight(nets, model_of, explained):
    net = nets.linear(6, channels=3, classes=2)
    answer = explained(Saliency(), model_of(net, 2, channels=(3,)), nets.noise(2, 3, 6, 6))
    expected = net[1].weight[1].detach().abs().view(3, 6, 6).amax(0)
    assert torch.equal(answer.collapsed(), expected.expand(2, 6, 6))


@pytest.mark.parametrize("rank", RANKS)
def test_input_x_gradient_sums_to_the_score_without_bias(rank, nets, model_of, explained):
    conv, pool = nets.CONV[rank], nets.POOL[rank]
    net = nets.seeded(
        lambda: nn.Sequential(
            conv(2, 5, 3, padding=1, bias=False),
            nn.ReLU(),
            conv(5, 4, 3, bias=False),
            nn.LeakyReLU(0.1),
            pool(1),
            nn.Flatten(),
            nn.Linear(4, 3, bias=False),
        )
    )
    x = nets.noise(3, 2, *(6,) * rank)
    answer = explained(InputXGradient(), model_of(net, rank), x)
    assert torch.allclose(answer.maps["image"].flatten(1).sum(1), net(x)[:, 1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", ["classification", "two-images", "image-and-vector"])
def test_saliency_may_keep_the_sign(kind, rank, subject, explained, reference):
    s = subject(kind, rank)
    answer = explained(Saliency("kept"), s.model, s.inputs, s.target, s.scene)
    assert answer.signed
    for name in s.inputs:
        slow = reference("saliency").slopes(s.score, s.item(1), name)
        assert close(answer.maps[name][1:], slow, 1e-6)
        assert close(answer.collapsed(name)[1:], slow.sum(1), 1e-6)


def test_a_kept_sign_is_a_copy_of_the_shared_gradient(subject):
    s, method = subject("classification", 2), Saliency("kept")
    probe = Probe(s.model, s.inputs, s.target, method.needs(s.model, s.inputs))
    method(probe).maps["image"].zero_()
    assert bool(probe.input_gradient["image"].any())


def test_another_sign_is_refused():
    with pytest.raises(BadOption, match="expected sign dropped or kept, got 'both'"):
        Saliency("both")


def test_input_x_gradient_is_zero_where_the_image_is_zero(subject, explained):
    s = subject("classification", 2)
    x = s.inputs["image"].clone()
    x[:, :, 2:4] = 0
    maps = explained(InputXGradient(), s.model, x, s.target).maps["image"]
    assert bool((maps[:, :, 2:4] == 0).all())
    assert bool((maps[:, :, :2] != 0).any())


def test_saliency_says_nothing_where_the_score_saturates(nets, model_of, explained):
    net = nn.Sequential(nn.Flatten(), nn.Hardtanh(), nn.Linear(4, 2)).double()
    answer = explained(
        Saliency(), model_of(net, 2, channels=(1,)), torch.tensor([[[[0.5, 3.0], [-4.0, 0.1]]]]).double()
    )
    assert (answer.maps["image"] == 0).flatten().tolist() == [False, True, True, False]


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize(("ours", "peer"), [(Saliency(), "Saliency"), (InputXGradient(), "InputXGradient")])
def test_equal_to_captum(ours, peer, rank, subject, explained):
    import captum.attr

    s = subject("classification", rank)
    x = s.inputs["image"]
    theirs = getattr(captum.attr, peer)(s.model.module).attribute(x.clone().requires_grad_(), target=1)
    assert close(explained(ours, s.model, x).maps["image"], theirs.detach(), 1e-12)


@pytest.mark.parametrize("method", [Saliency(), InputXGradient()])
def test_a_second_call_changes_nothing(method, subject, explained):
    """B8: MONAI's VanillaGrad never clears x.grad, doubles the second result and changes the first."""
    s = subject("classification", 3)
    first = explained(method, s.model, s.inputs).maps["image"]
    kept = first.clone()
    second = explained(method, s.model, s.inputs).maps["image"]
    assert torch.equal(first, kept)
    assert torch.equal(first, second)
    assert s.inputs["image"].grad is None
    assert all(p.grad is None for p in s.model.module.parameters())


def test_the_peer_doubles_the_second_call(subject):
    """What the test above guards against, seen in MONAI itself."""
    from monai.visualize import VanillaGrad

    s = subject("classification", 2)
    peer, x = VanillaGrad(s.model.module), s.inputs["image"][:1].clone()
    first = peer(x, index=1)
    kept = first.clone()
    peer(x, index=1)
    assert torch.allclose(first, 2 * kept)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("method", [Saliency(), InputXGradient()])
def test_several_targets_in_one_forward_equal_one_by_one(method, rank, subject, explained):
    s = subject("classification", rank)
    targets = (ClassScore(0), ClassScore(2), ClassScore(None))
    probe = Probe(s.model, s.inputs, targets, method.needs(s.model, s.inputs))
    together = [method(probe.at(i)).maps["image"] for i in range(3)]
    assert probe.spent.shared.forwards == 2
    assert probe.spent.shared.backwards == 6
    for target, maps in zip(targets, together, strict=True):
        assert torch.equal(maps, explained(method, s.model, s.inputs, target).maps["image"])
    assert not torch.equal(together[0], together[1])


def test_predicted_class_is_chosen_for_each_item(subject, nets, explained):
    s = subject("classification", 2)
    found, net = nets.noise(6, 2, 8, 10), s.model.module
    net.tail.fc.bias.data -= net(found).mean(0)
    predicted = net(found).argmax(1)
    assert len(set(predicted.tolist())) > 1
    maps = explained(Saliency(), s.model, found, ClassScore()).maps["image"]
    for i, label in enumerate(predicted.tolist()):
        alone = explained(Saliency(), s.model, found[i : i + 1], ClassScore(label)).maps["image"]
        assert torch.allclose(maps[i : i + 1], alone, rtol=1e-10, atol=1e-14)


def test_region_without_a_name_is_where_the_class_is_predicted(nets, model_of, explained):
    net, x = nets.segmenter(2), nets.noise(2, 2, 8, 10)
    where = (net(x).argmax(1) == 2).double().detach()
    leaf = x.clone().requires_grad_()
    score = (net(leaf)[:, 2] * where).flatten(1).sum(1) / where.flatten(1).sum(1)
    expected = torch.autograd.grad(score.sum(), leaf)[0].abs()
    maps = explained(Saliency(), model_of(net, 2, OutputSpec("segmentation")), x, RegionScore(2)).maps["image"]
    assert torch.allclose(maps, expected, rtol=1e-12)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("method", [Saliency(), InputXGradient()])
def test_low_precision_gives_float32_close_to_full(method, rank, subject, explained):
    """B26: under bfloat16 a peer stops with a TypeError."""
    s = subject("classification", rank)
    net, x = s.model.module.float(), s.inputs["image"].float()
    full = explained(method, s.model, x).maps["image"]
    low = explained(method, s.model, x, precision="bfloat16").maps["image"]
    probe = Probe(s.model, x, ClassScore(1), method.needs(s.model, {"image": x}), precision="bfloat16")
    assert probe.baseline_score.dtype == torch.float32
    assert low.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(low.flatten(), full.flatten(), 0) > 0.99
    assert float((probe.baseline_score - net(x)[:, 1].detach()).abs().max()) < 0.05
    assert not torch.equal(low, full)
