"""Whether map and prediction change together: exact cases, a second implementation, and maps that cannot follow."""

from functools import partial

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.core.card import Cost
from pellucid.core.errors import BadOption, CannotDo
from pellucid.core.intensity import body_range
from pellucid.core.model import Abilities, Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.explain.occlusion import Occlusion
from pellucid.metrics.robustness.psc import PredictionSaliencyCorrelation

SEED = 4
SHAPE = {2: (9, 10), 3: (6, 7, 8)}
FOLLOWS, STAYS = (PredictionSaliencyCorrelation(arm, pairs=10) for arm in ("sensitivity", "robustness"))
BOTH = pytest.mark.parametrize("metric", [FOLLOWS, STAYS], ids=lambda m: m.arm)


class Weighted(nn.Module):
    """``w.x``."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return (x * self.weight).flatten(1).sum(1, keepdim=True)


class Square(nn.Module):
    """``sum x^2``."""

    def forward(self, x):
        return x.square().flatten(1).sum(1, keepdim=True)


def weights(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scored(metric, model, x, method=None):
    method = method or InputXGradient()
    probe = Probe(model, x, ClassScore(0), method.needs(model, {"image": x}), Scene(seed=SEED))
    answer, most = method(probe), metric.cost(probe, method) * len(x)
    score = metric(probe, answer, method, None)
    assert probe.spent.own.forwards <= most.forwards, "less where two boxes are drawn alike"
    assert probe.spent.own.backwards <= most.backwards
    return score


def drawn_below(draws, n):
    """A number from 0 to n - 1."""
    return int(torch.randint(n, (1,), generator=draws))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("rank", [2, 3])
def test_input_times_gradient_of_a_linear_score_follows_it_exactly(rank, channels, model_of):
    """A box pushed along the slope's sign by s moves the score and the map by ``s sum |w|`` alike."""
    x, w = weights(2, channels, *SHAPE[rank]), weights(channels, *SHAPE[rank], seed=1)
    score = scored(FOLLOWS, model_of(Weighted(w), rank, channels), x)
    assert score.values.tolist() == pytest.approx([1, 1], abs=1e-9)
    assert np.allclose(score.detail["changes of the score"], score.detail["changes of the map"], atol=1e-9)


def test_a_curved_score_in_closed_form(model_of):
    """``x * 2x`` of ``sum x^2`` moves by twice what the score does, where no voxel is pushed through zero."""
    x = weights(2, 1, 10, 10).abs() + 2
    score = scored(FOLLOWS, model_of(Square(), 2), x)
    assert score.values.tolist() == pytest.approx([1, 1], abs=1e-9)
    assert np.allclose(2 * np.array(score.detail["changes of the score"]), score.detail["changes of the map"])


@pytest.mark.parametrize("method", [Saliency(), InputXGradient()], ids=lambda m: m.name)
@pytest.mark.parametrize("arm", ["sensitivity", "robustness"])
@pytest.mark.parametrize("rank", [2, 3])
def test_equal_to_the_second_implementation(rank, arm, method, nets, model_of, reference):
    net, x, second = nets.classifier(rank), nets.noise(2, 2, *SHAPE[rank]), reference("prediction_saliency_correlation")
    metric = PredictionSaliencyCorrelation(arm, pairs=6, bound=0.03)
    got = scored(metric, model_of(net, rank, 2), x, method)

    def leafed(y):
        leaf = torch.from_numpy(np.asarray(y))[None].requires_grad_()
        return leaf, net(leaf)[0, 0]

    def explain(y):
        leaf, value = leafed(y)
        (g,) = torch.autograd.grad(value, leaf)
        return ((g * leaf).sum(1) if isinstance(method, InputXGradient) else g.abs().amax(1)).detach().numpy()

    for item in range(2):
        image, draws = x[item].numpy(), torch.Generator().manual_seed(SEED)
        spans = [0.03 * float(s) for s in body_range(x)[item]]
        if arm == "sensitivity":
            leaf, value = leafed(image)
            slope = torch.autograd.grad(value, leaf)[0][0].numpy()
            images = list(second.pushed(image, slope, spans, 6, 0.25, partial(drawn_below, draws)))
        else:
            noise = [(2 * torch.rand(image.shape, generator=draws) - 1).double().numpy() for _ in range(6)]
            wide = np.reshape(spans, (-1, *(1,) * rank))
            images = [image + (i + 1) / 6 * wide * n for i, n in enumerate(noise)]
        slow = second.prediction_saliency_correlation(lambda y: float(leafed(y)[1].detach()), explain, image, images)
        assert got.detail["pairs that change the decision"][item] == 0
        assert float(got.values[item]) == pytest.approx(slow, abs=1e-8)


def test_a_map_that_ignores_the_model_does_not_follow(model_of, stand):
    x, w = weights(1, 1, 16, 16), weights(1, 16, 16, seed=1).pow(3)
    edges = stand(lambda p: p.inputs["image"].diff(dim=2, append=p.inputs["image"][:, :, -1:]).abs())
    many = PredictionSaliencyCorrelation(pairs=40)
    assert abs(float(scored(many, model_of(Weighted(w), 2), x, edges).values)) < 0.5


@BOTH
def test_a_map_that_jumps_follows_less_the_more_it_jumps(metric, model_of, stand, nets):
    x, w = weights(1, 1, 12, 12), weights(1, 12, 12, seed=1)

    def jumping(share):
        def answer(probe):
            here = probe.inputs["image"]
            seed = int(here.sum() * 1e6) % 1000
            return w * here + share * nets.noise(1, 1, 12, 12, seed=seed) * (not torch.equal(here, x))

        return stand(answer)

    many = PredictionSaliencyCorrelation(metric.arm, pairs=40)
    found = [float(scored(many, model_of(Weighted(w), 2), x, jumping(s)).values) for s in (0.0, 0.1, 1.0)]
    assert np.all(np.diff(found) < 0)


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 100))
def test_units_of_score_and_image_do_not_matter(factor, scale, seed):
    x, w = weights(1, 1, 8, 8, seed=seed), weights(1, 8, 8, seed=seed + 1)
    spec = (InputSpec(),), OutputSpec("regression", activation="none")
    for metric in (FOLLOWS, STAYS):
        one = scored(metric, Model(Weighted(w), *spec), x)
        other = scored(metric, Model(Weighted(w * factor / scale), *spec), x * scale)
        assert float(other.values) == pytest.approx(float(one.values), abs=1e-6)


@BOTH
def test_an_item_is_scored_alike_alone_and_in_a_batch(metric, nets, model_of):
    x = nets.noise(3, 2, 8, 10)
    x[1:] *= 40
    model = model_of(nets.classifier(2), 2, 2)
    assert float(scored(metric, model, x).values[0]) == pytest.approx(float(scored(metric, model, x[:1]).values))


def test_a_channel_given_twice_with_half_its_weight(model_of):
    """Boxes push all channels; noise of two channels is two draws."""
    x, w = weights(1, 1, 8, 8), weights(1, 8, 8, seed=1)
    one = scored(FOLLOWS, model_of(Weighted(w), 2), x)
    two = scored(FOLLOWS, model_of(Weighted(torch.cat([w, w]) / 2), 2, 2), x.repeat(1, 2, 1, 1))
    assert np.allclose(one.detail["changes of the score"], two.detail["changes of the score"])
    assert float(two.values) == pytest.approx(1)


def test_copies_that_change_the_decision_are_left_out_of_the_arm_robustness(nets, model_of):
    """A classifier near its boundary: some copies decide otherwise."""
    x, net = nets.noise(1, 1, 8, 8), nets.linear(8, classes=2)
    with torch.no_grad():
        net[1].bias.sub_(net(x)[0] - torch.tensor([0.05, 0.0]))
    score = scored(PredictionSaliencyCorrelation("robustness", pairs=20), model_of(net, 2), x)
    assert 0 < score.detail["pairs that change the decision"][0] < 18
    assert torch.isfinite(score.values).all()


def test_what_is_undefined_says_why_and_leaves_the_others(model_of, stand):
    x, model = weights(5, 1, 8, 8), model_of(Weighted(weights(1, 8, 8, seed=1)), 2)
    x[3] = 3.0

    def answer(probe):
        maps = probe.inputs["image"].clone()
        maps[0], maps[2] = 0, 1.5
        maps[1, 0, 0, 0] = torch.nan
        return maps

    score = scored(STAYS, model, x, stand(answer))
    assert score.reasons == (
        "the map is zero everywhere: its change has no unit",
        "the map is not finite",
        "the map changes in no pair",
        "the image has no range of intensities, so noise has no unit",
        "",
    )
    assert torch.isnan(score.values).tolist() == [True, True, True, True, False]


@BOTH
def test_nothing_changes(metric, model_of):
    """The gradient of a linear score never does; a score that ignores the image never does."""
    x, w = weights(1, 1, 8, 8), weights(1, 8, 8, seed=1)
    assert scored(metric, model_of(Weighted(w), 2), x, Saliency()).reasons == ("the map changes in no pair",)
    still = model_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 2).double()), 2)
    with torch.no_grad():
        still.module[1].weight.zero_()
    edges = Saliency() if metric is FOLLOWS else InputXGradient()
    assert scored(metric, still, x, edges).reasons[0].startswith("the map is zero everywhere")


def test_a_model_without_gradients_has_no_slope_to_push_along(nets):
    can = Abilities(gradient=False, why={"gradient": "of the test"})
    model, x = (
        Model(nets.classifier(2), (InputSpec(channels=2, order="rgb"),), OutputSpec(), can=can),
        nets.noise(1, 2, 8, 8),
    )
    probe = Probe(model, x, ClassScore(0))
    method = Occlusion(4.0, 4.0)
    answer = method(probe)
    with pytest.raises(CannotDo):
        FOLLOWS(probe, answer, method, None)
    assert torch.isfinite(STAYS(probe, answer, method, None).values).all()
    assert STAYS.cost(probe, method).forwards == 10 * (1 + method.cost(probe).forwards)
    assert FOLLOWS.cost(probe, method) == STAYS.cost(probe, method) + Cost(1, 1)


@pytest.mark.parametrize("bad", [{"arm": "both"}, {"pairs": 2}, {"bound": 0.0}, {"size": 1.5}], ids=str)
def test_options_outside_their_range(bad):
    with pytest.raises(BadOption, match="expected"):
        PredictionSaliencyCorrelation(**bad)


def test_a_real_volume(shared_data, nets, model_of):
    """On MR, a network of ReLUs: input times gradient follows its score better than the gradient's length does."""
    path = sorted((shared_data / "mri_hippocampus" / "images").glob("*.nii.gz"))[0]
    data = np.asarray(nibabel.load(path).dataobj, dtype=np.float64)[:16, :24, :20]
    x = torch.from_numpy((data - data.mean()) / data.std())[None, None]
    net = nets.seeded(
        lambda: nn.Sequential(
            nn.Conv3d(1, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool3d(3), nn.Flatten(), nn.Linear(108, 2)
        )
    )
    model = model_of(net, 3)
    many = PredictionSaliencyCorrelation(pairs=40)
    contribution, length = (float(scored(many, model, x, m).values) for m in (InputXGradient(), Saliency()))
    assert contribution > length
