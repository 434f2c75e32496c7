"""Efficient MPRT: entropies in closed form, a second implementation, and what it cannot see."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.core.errors import BadOption
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.metrics.randomization.efficient import EfficientMPRT, entropies, sturges
from pellucid.testing import unchanged


def levels(count, size):
    """A map with ``count`` equally frequent values."""
    return torch.arange(size * size).remainder(count).double().view(1, size, size)


@pytest.fixture
def scores(nets, model_of, stand):
    """``scores(before, after, ...)``: a stand-in that shows another map once the weights are fresh."""

    def run(before, after, **options):
        def answer(probe):
            return (before if probe.model.identity.name != "randomized" else after)[:, None]

        x = nets.noise(len(before), 1, *before.shape[1:])
        probe = Probe(model_of(nets.linear(before.shape[-1]), 2), x, ClassScore(0))
        method = stand(answer)
        return EfficientMPRT(**options)(probe, method(probe), method, None)

    return run


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_equal_shares_have_the_logarithm(count):
    assert float(entropies(levels(count, 60), count)) == pytest.approx(math.log(count), abs=1e-12)


def test_one_voxel_alone():
    d = 64
    values = torch.zeros(1, 8, 8).double()
    values[0, 2, 3] = -5
    expected = -(1 / d) * math.log(1 / d) - (1 - 1 / d) * math.log(1 - 1 / d)
    assert float(entropies(values, 7)) == pytest.approx(expected, abs=1e-12)


def test_bins_count_voxels_not_axes():
    """Sturges for 4096 values: 13 bins; Quantus 0.6.0 takes the number of axes for it, and has 2."""
    assert sturges(64 * 64) == 13
    ramp = torch.linspace(0, 1, 4096, dtype=torch.float64).view(1, 64, 64)
    assert float(entropies(ramp, sturges(4096))) == pytest.approx(math.log(13), abs=1e-3)


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2), (2, 8), (4, 4)])
def test_rise_in_closed_form(before, after, scores):
    got = scores(levels(before, 8), levels(after, 8), bins=8)
    assert float(got.values) == pytest.approx(math.log(after) / math.log(before) - 1, abs=1e-12)
    assert got.detail["entropy"] == pytest.approx([math.log(before)])
    assert got.detail["entropy with fresh weights"] == pytest.approx([math.log(after)])


@pytest.mark.parametrize("rank", [2, 3])
def test_equal_to_the_second_implementation(rank, nets, model_of, reference):
    net, x = nets.classifier(rank), nets.noise(1, 2, *{2: (8, 10), 3: (4, 6, 8)}[rank])
    model, method = model_of(net, rank, 2), InputXGradient()
    probe = Probe(model, x, ClassScore(1), method.needs(model, {"image": x}), Scene(seed=4))
    answer = method(probe)
    fresh = copy.deepcopy(net)
    state = torch.get_rng_state()
    torch.manual_seed(4)
    for name in ("tail.fc", "tail.conv", "front.3", "front.1", "front.0"):
        fresh.get_submodule(name).reset_parameters()
    torch.set_rng_state(state)
    x = x.clone().requires_grad_()
    after = (torch.autograd.grad(fresh(x)[0, 1], x)[0] * x)[0].sum(0).detach()
    expected = reference("efficient_mprt").rise(answer.collapsed()[0].numpy(), after.numpy())
    with unchanged(net):
        got = EfficientMPRT()(probe, answer, method, None)
    assert float(got.values) == pytest.approx(expected, abs=1e-9)
    assert got.detail["bins"] == reference("efficient_mprt").bins_of(x[0, 0].numel())


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 100), st.integers(0, 5))
def test_scale_and_place_do_not_count(scale, seed):
    """What moves but keeps its histogram scores 0: the card says so."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(1, 12, 12, generator=draw, dtype=torch.float64)
    shuffled = values.flatten()[torch.randperm(144, generator=draw)].view(1, 12, 12)
    plain = float(entropies(values, 9))
    assert float(entropies(scale * shuffled, 9)) == pytest.approx(plain, abs=1e-9)


def test_the_more_values_a_map_takes_the_higher_it_scores(scores):
    """A fresh map with more and more of its voxels spread out evenly."""
    ramp, spot = torch.linspace(0, 1, 256, dtype=torch.float64), torch.zeros(256).double()
    spot[-8:] = 1
    found = [
        float(scores(spot.view(1, 16, 16), torch.cat([spot[:-n], ramp[-n:]]).view(1, 16, 16), bins=9).values)
        for n in (32, 64, 128, 256)
    ]
    assert np.all(np.diff(found) > 0)
    assert found[0] > 0


def test_several_draws_have_a_mean_and_an_error(nets, model_of):
    model, method = model_of(nets.classifier(2), 2, 2), Saliency()
    x = nets.noise(2, 2, 8, 10)
    probe = Probe(model, x, ClassScore(1), method.needs(model, {"image": x}))
    score = EfficientMPRT(draws=4)(probe, method(probe), method, None)
    each = np.array(score.detail["draws"])
    assert each.shape == (4, 2)
    assert score.values.tolist() == pytest.approx(each.mean(0))
    assert score.detail["standard error"] == pytest.approx(each.std(0, ddof=1) / 2)
    assert each[0].tolist() == EfficientMPRT()(probe, method(probe), method, None).values.tolist()
    assert probe.spent.own.forwards == 5 * 2


def test_a_constant_map_has_no_entropy(scores):
    flat, told = torch.ones(1, 8, 8).double(), levels(4, 8)
    for before, after, reason in (
        (flat, told, "the map is constant: it ranks nothing"),
        (told, flat, "constant or not finite: its entropy means nothing"),
        (told, told * torch.nan, "constant or not finite: its entropy means nothing"),
        (told * torch.inf, told, "the map is not finite"),
    ):
        score = scores(before, after)
        assert torch.isnan(score.values).all()
        assert reason in score.reasons[0]


@pytest.mark.parametrize("options", [{"bins": 1}, {"draws": 0}])
def test_options_outside_their_range(options):
    with pytest.raises(BadOption, match="at least 2 bins and 1 draw"):
        EfficientMPRT(**options)
