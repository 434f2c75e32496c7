"""Attacks on a map: what cannot be moved is not, what can be is found, and the bound and the decision are kept."""

import nibabel
import numpy as np
import pytest
import skimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.core.card import Cost
from pellucid.core.errors import BadOption
from pellucid.core.intensity import body_range
from pellucid.core.model import Abilities, Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.cam import GradCAM
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.metrics.robustness.attack import ExplanationAttack
from pellucid.metrics.robustness.hunting import _round
from pellucid.testing import unchanged

SMALL = ExplanationAttack(steps=8, tries=6)
KINDS = [SMALL, ExplanationAttack("target-map", steps=8, tries=6)]
WAYS = [ExplanationAttack(steps=16, tries=0), ExplanationAttack(steps=0, tries=16)]
REGRESSION = OutputSpec("regression", activation="none", unit="mm")


class Curved(nn.Module):
    """``sum x^2 / 2``: its gradient is x, so that a step of the image is the same step of the map."""

    def forward(self, x):
        return x.square().flatten(1).sum(1, keepdim=True) / 2


def opened(model, x, method, seed=3):
    return Probe(model, x, ClassScore(0), method.needs(model, {"image": x}), Scene(seed=seed))


def scored(metric, model, x, method):
    probe = opened(model, x, method)
    return metric(probe, method(probe), method, None)


def plateaus(gap, side=20, share=0.1):
    """A tenth of the voxels stands above the others by ``gap`` shares of the intensity range, in [1, 2]."""
    line = torch.arange(side * side).double() / side**2
    x = 1.5 + 1e-3 * line
    x[: side * side // 4], x[-(side * side // 4) :] = 1.0 + 1e-3 * line[: side * side // 4], 1.2
    first = round(share * side**2)
    x[50 : 50 + first] = 0
    x[50 : 50 + first] = x.max() + gap * (2 - 1) + 1e-3 * line[:first]
    x = x[torch.randperm(side * side, generator=torch.Generator().manual_seed(0))]
    return x.view(1, 1, side, side)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("metric", KINDS, ids=lambda m: m.aim)
def test_the_gradient_of_a_linear_score_cannot_be_attacked(metric, rank, nets, model_of):
    """Its map is the same everywhere."""
    net, x = nets.linear(8) if rank == 2 else None, nets.noise(2, 1, *(8,) * rank)
    net = net or nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(512, 2)))
    score = scored(metric, model_of(net, rank), x, Saliency())
    assert score.values.tolist() == [0, 0]
    assert score.detail["spearman"] == [1, 1]


@pytest.mark.parametrize("metric", WAYS, ids=["gradient", "random"])
def test_what_stands_above_the_bound_cannot_be_moved_and_what_does_not_is(metric):
    """Each voxel of the map moves by what the voxel moves: a gap of more than twice the bound is safe, exactly."""
    model = Model(Curved(), (InputSpec(),), REGRESSION)
    found = {}
    for gap in (0.2, 0.9):
        x = plateaus(gap)
        bound = 0.5 * gap * 0.99 / float(body_range(x)) * (1.0 if gap == 0.9 else 2.0)
        made = ExplanationAttack(bound=bound, tolerance=0.5, steps=metric.steps, tries=metric.tries)
        found[gap] = scored(made, model, x, Saliency())
    assert float(found[0.9].values) == 0
    assert float(found[0.2].values) > (0.95 if metric.steps else 0.3)


@pytest.mark.parametrize("kind", ["top-k", "target-map"])
@pytest.mark.parametrize("method", [Saliency(), InputXGradient(), GradCAM("0.0")], ids=lambda m: m.name)
def test_bound_decision_and_score_are_kept_and_the_change_is_real(kind, method, nets, model_of, reference):
    x = nets.noise(2, 2, 8, 10)
    metric = ExplanationAttack(kind, steps=8, tries=6)
    net = nets.seeded(
        lambda: nn.Sequential(
            nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(4, 4, 3), nn.LeakyReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
        )
    )
    model = model_of(net, 2, 2)
    probe = opened(model, x, method)
    answer = method(probe)
    with unchanged(net):
        worst = metric.attack(probe, answer, method)
        before = torch.get_rng_state()
        score = metric(probe, answer, method, None)
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in net.parameters())
    image = worst.inputs["image"]
    spans = metric.bound * body_range(x)
    assert bool(((image - x).abs().flatten(2).amax(2) <= spans * (1 + 1e-9)).all())
    here, there = model({"image": x}).softmax(1), model({"image": image}).softmax(1)
    assert torch.equal(here.argmax(1), there.argmax(1))
    assert bool(((there - here)[:, 0].abs() <= metric.tolerance).all())
    assert score.detail["change of the score"] == pytest.approx((there - here)[:, 0].tolist(), abs=1e-6)
    other = opened(model, image, method)
    maps = [a.collapsed()[:, None] for a in (answer, method(other))]
    change = reference("explanation_attack").change
    for item in range(2):
        expected = change(maps[0][item].numpy(), maps[1][item].numpy(), 8)
        assert float(score.values[item]) == pytest.approx(expected, abs=1e-9)
    assert torch.equal(worst.change, score.values)
    assert bool((score.values > 0).any())


@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_the_second_implementation_on_the_images_tried(seed, nets, model_of, reference, monkeypatch):
    """The score is the worst of the images that were explained and admitted."""
    x, method, tried = nets.noise(1, 1, 8, 8), Saliency(), []
    net = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 2)), seed)
    model, plain = model_of(net, 2), Probe.elsewhere
    monkeypatch.setattr(Probe, "elsewhere", lambda self, y, n=(): tried.append(y["image"]) or plain(self, y, n))
    score = scored(SMALL, model, x, method)

    def explain(y):
        leaf = torch.from_numpy(y)[None].requires_grad_()
        return torch.autograd.grad(net(leaf)[0, 0], leaf)[0].abs().numpy()

    def chance(y):
        return net(torch.from_numpy(y)[None]).softmax(1)[0].detach().numpy()

    expected = reference("explanation_attack").explanation_attack(
        explain,
        lambda y: int(chance(y).argmax()),
        lambda y: float(chance(y)[0]),
        x[0].numpy(),
        [t[0].numpy() for t in tried],
        SMALL.bound * float(body_range(x)),
        SMALL.tolerance,
        round(0.1 * 64),
    )
    assert len(tried) == score.detail["images explained"] == 10
    assert float(score.values) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.05, 0.2]), st.sampled_from(["top-k", "target-map"]))
def test_no_draw_leaves_the_bound_or_changes_the_decision(seed, bound, kind):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 1, 6, 6, generator=generator, dtype=torch.float64)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    probe = opened(Model(net, (InputSpec(),), OutputSpec()), x, InputXGradient(), seed)
    metric = ExplanationAttack(kind, bound, steps=4, tries=4)
    image = metric.attack(probe, InputXGradient()(probe), InputXGradient()).inputs["image"]
    assert float((image - x).abs().max()) <= bound * float(body_range(x)) * (1 + 1e-9)
    with torch.no_grad():
        here, there = net(x).softmax(1), net(image).softmax(1)
    assert int(here.argmax()) == int(there.argmax())
    assert float((there - here)[0, 0].abs()) <= metric.tolerance + 1e-6


def test_the_gradient_search_finds_more_than_drawing(nets, model_of):
    """On a map that is smooth in the image, at the same number of explained images."""
    x = nets.noise(3, 2, 8, 10)
    model = model_of(nets.classifier(2), 2, 2)
    down, drawn = (
        scored(ExplanationAttack(steps=s, tries=t, tolerance=0.2), model, x, Saliency()).values
        for s, t in ((24, 0), (0, 4))
    )
    assert float(down.mean()) > float(drawn.mean())


def test_both_searches_are_no_worse_than_either(nets, model_of):
    x, model = nets.noise(2, 2, 8, 10), model_of(nets.classifier(2), 2, 2)
    both, down = (scored(ExplanationAttack(steps=8, tries=t), model, x, Saliency()).values for t in (6, 0))
    assert bool((both >= down).all())


def test_a_map_that_jumps_is_found_out_and_a_steady_one_is_not(nets, model_of, stand):
    model, x = model_of(nets.linear(8), 2), nets.noise(1, 1, 8, 8)

    def jumping(share):
        def answer(probe):
            seed = int(probe.inputs["image"].sum() * 1e6) % 1000
            return nets.noise(1, 1, 8, 8) + share * nets.noise(1, 1, 8, 8, seed=seed)

        return stand(answer)

    found = [float(scored(SMALL, model, x, jumping(s)).values) for s in (0.0, 0.3, 3.0)]
    assert found[0] == 0
    assert 0 < found[1] < found[2]


def test_a_model_without_second_derivatives_is_attacked_by_drawing(nets):
    can = Abilities(rules=False, why={"rules": "of the test"})
    model = Model(nets.classifier(2), (InputSpec(channels=2, order="rgb"),), OutputSpec(), can=can)
    x = nets.noise(1, 2, 8, 10)
    probe = opened(model, x, Saliency())
    assert SMALL.cost(probe, Saliency()) == Cost(6, 6)
    score = scored(SMALL, model, x, Saliency())
    assert "random search alone" in score.detail["means"]
    assert score.detail["images explained"] == 6


def test_what_it_costs(nets, model_of):
    x, method = nets.noise(1, 2, 8, 10), Saliency()
    probe = opened(model_of(nets.classifier(2), 2, 2), x, method)
    answer = method(probe)
    assert SMALL.cost(probe, method) == Cost(8 + 4 * 6 + 10, 16 + 10)
    before = probe.spent.own
    SMALL(probe, answer, method, None)
    assert probe.spent.own.forwards - before.forwards <= SMALL.cost(probe, method).forwards
    assert probe.spent.own.backwards == SMALL.cost(probe, method).backwards


def test_what_is_undefined_says_why_and_leaves_the_others(nets, model_of, stand):
    model, x = model_of(nets.linear(8), 2), nets.noise(5, 1, 8, 8)
    x[3] = 3.0

    def answer(probe):
        maps = probe.inputs["image"].clone()
        maps[0], maps[2] = 0, 1.5
        maps[1, 0, 0, 0] = torch.nan
        return maps

    score = scored(SMALL, model, x, stand(answer))
    assert score.reasons == (
        "the map is zero everywhere: its change has no unit",
        "the map is not finite",
        "the map is constant: it ranks nothing",
        "the image has no range of intensities, so noise has no unit",
        "",
    )
    assert torch.isnan(score.values).tolist() == [True, True, True, True, False]


def test_nothing_admitted_is_not_robust(nets):
    """A score that any change moves by more than the tolerance."""
    model = Model(nets.linear(8), (InputSpec(),), REGRESSION)
    metric = ExplanationAttack(steps=0, tries=3, tolerance=1e-9)
    score = scored(metric, model, nets.noise(1, 1, 8, 8), InputXGradient())
    assert score.reasons == ("every image tried changes the decision or the score, so nothing is known of the map",)
    assert bool(torch.isnan(score.values).all())


@pytest.mark.parametrize(
    "bad",
    [
        *({"aim": "mirror"}, {"bound": 0.0}, {"bound": 1.5}, {"tolerance": 0.0}, {"top": 1.0}),
        *({"steps": 0, "tries": 0}, {"steps": 3}, {"tries": -1}),
    ],
    ids=str,
)
def test_options_outside_their_range(bad):
    with pytest.raises(BadOption, match="expected"):
        ExplanationAttack(**bad)


def test_a_rounded_relu_is_smooth_and_close_to_the_relu():
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)[None].requires_grad_()
    y = _round(x)
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (curve,) = torch.autograd.grad(g.sum(), x)
    over = (y - x.relu()).detach()
    assert float(over.max()) < 0.15
    assert float(over.min()) >= -1e-12
    assert float(curve.detach().max()) > 1


@pytest.fixture(params=[2, 3])
def real(request, nets, model_of):
    """A fundus photograph or an MR volume, with a network of its rank."""
    rank, conv, pool = request.param, nets.CONV[request.param], nets.POOL[request.param]
    if rank == 2:
        data = np.asarray(skimage.data.retina(), dtype=np.float64).mean(2)
        data = data[: 1408 // 32 * 32, : 1408 // 32 * 32].reshape(44, 32, 44, 32).mean((1, 3))
    else:
        folder = request.getfixturevalue("shared_data") / "mri_hippocampus" / "images"
        data = np.asarray(nibabel.load(sorted(folder.glob("*.nii.gz"))[0]).dataobj, dtype=np.float64)[:16, :24, :20]
    net = nets.seeded(
        lambda: nn.Sequential(
            *(conv(1, 6, 3, 2), nn.ReLU(), conv(6, 6, 3), nn.ReLU()),
            *(pool(2), nn.Flatten(), nn.Linear(6 * 2**rank, 2)),
        )
    )
    return model_of(net, rank), torch.from_numpy((data - data.mean()) / data.std())[None, None]


@pytest.mark.parametrize("method", [Saliency(), GradCAM("2")], ids=lambda m: m.name)
def test_real_images(method, real):
    """Maps of a network move under changes that nobody sees, and how far the image was moved is stated."""
    model, x = real
    score = scored(SMALL, model, x, method)
    assert 0.1 < float(score.values) <= 1
    moved, most = score.detail["moved in network units"]["image"][0], score.detail["bound in network units"]
    assert 0 < moved <= most["image"][0][0] * (1 + 1e-9)
