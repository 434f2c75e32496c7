"""Elementary effects: a linear score, a product of two parts, the second implementation, one at a time."""

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.errors import BadOption
from pellucid.core.infill import Constant
from pellucid.core.model import Model
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.sensitivity import MorrisSensitivity, OneAtATime, elementary_effects, trajectories


class Quarters(nn.Module):
    """A function of the four quarters' means."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        means = [x[:, 0, r : r + 2, c : c + 2].mean((1, 2)) for r in (0, 2) for c in (0, 2)]
        return self.function(*means)[:, None]


def probed(function, seed=0):
    scene = Scene(infills=(Constant(0.0), Constant(0.0)), seed=seed)
    return Probe(Model(Quarters(function)), torch.ones(1, 1, 4, 4, dtype=torch.float64), ClassScore(0), scene=scene)


def parts(values):
    """One value for each quarter."""
    return values["image"][0, 0, ::2, ::2].flatten()


def linear(a, b, c, d):
    return 2 * a - 3 * b + 0.5 * c + 0 * d


def product(a, b, c, d):
    return a + b + c + d + 3 * a * b


def test_each_row_of_a_design_switches_one_part():
    design = trajectories(5, 4, seed=2)
    assert design.shape == (24, 5)
    steps = (design.view(4, 6, 5)[:, 1:] != design.view(4, 6, 5)[:, :-1]).sum(2)
    assert bool((steps == 1).all())
    assert bool(((design.view(4, 6, 5)[:, 1:] != design.view(4, 6, 5)[:, :-1]).sum(1) == 1).all())
    assert torch.equal(design, trajectories(5, 4, seed=2))
    assert not torch.equal(design, trajectories(5, 4, seed=3))


def test_a_linear_score_gives_its_weights_without_spread():
    weights = torch.tensor([2, -3, 0.5, 0], dtype=torch.float64)
    answer = MorrisSensitivity(players="grid:2")(probed(linear))
    assert torch.allclose(parts(answer.maps), weights, atol=1e-12)
    assert float(answer.error["image"].max()) < 1e-12
    star = MorrisSensitivity(players="grid:2", statistic="mu_star")(probed(linear))
    assert torch.allclose(parts(star.maps), weights.abs(), atol=1e-12)
    assert torch.allclose(parts(OneAtATime(players="grid:2")(probed(linear)).maps), weights, atol=1e-12)


def test_a_product_of_two_parts_spreads_theirs_alone():
    sigma = parts(MorrisSensitivity(players="grid:2", trajectories=20, statistic="sigma")(probed(product)).maps)
    assert bool((sigma[:2] > 1).all())
    assert bool((sigma[2:] < 1e-12).all())
    mu = parts(MorrisSensitivity(players="grid:2", trajectories=20)(probed(product)).maps)
    assert 1 < float(mu[0]) < 4  # 1 while the other is hidden, 4 while it is shown
    assert torch.allclose(parts(OneAtATime(players="grid:2")(probed(product)).maps)[:2], torch.full((2,), 4.0).double())


def test_equals_the_second_implementations(reference):
    def bent(a, b, c, d):
        return torch.sin(2 * a + b) * (1 + c) - d**2 * a

    def shown(state):
        a, b, c, d = (torch.tensor([float(v)], dtype=torch.float64) for v in state)
        return bent(a, b, c, d)[0]

    design = trajectories(4, 7, seed=5)
    mu, star, sigma = reference("morris_sensitivity").morris_sensitivity(shown, design.numpy(), 4)
    for statistic, expected in (("mu", mu), ("mu_star", star), ("sigma", sigma)):
        method = MorrisSensitivity(players="grid:2", trajectories=7, statistic=statistic)
        assert parts(method(probed(bent, seed=5)).maps).tolist() == pytest.approx(list(expected), abs=1e-12)
    assert np.all(star >= np.abs(mu))
    effects = elementary_effects(design, torch.stack([shown(s) for s in design]))
    assert effects.std(0).tolist() == pytest.approx(list(sigma), abs=1e-12)
    error = parts(MorrisSensitivity(players="grid:2", trajectories=7)(probed(bent, seed=5)).error)
    assert error.tolist() == pytest.approx(list(sigma / 7**0.5), abs=1e-12)
    falls = reference("one_at_a_time").one_at_a_time(shown, 4)
    assert parts(OneAtATime(players="grid:2")(probed(bent)).maps).tolist() == pytest.approx(list(falls), abs=1e-12)


def test_the_reader_is_warned_where_the_mean_means_nothing():
    def crossed(a, b, c, d):
        return (2 * a - 1) * (2 * b - 1) + (2 * c - 1) * (2 * d - 1)

    answer = MorrisSensitivity(players="grid:2", trajectories=10)(probed(crossed))
    assert any("statistic=sigma" in words for words in answer.warnings)
    assert not MorrisSensitivity(players="grid:2")(probed(linear)).warnings


def test_superpixels_of_two_images_that_differ_in_number():
    x = torch.rand(2, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    x[0, 0, :12] += 2
    model = Model(nn.Sequential(nn.Flatten(), nn.Linear(576, 2)))
    method = MorrisSensitivity(players="superpixels:6", trajectories=2)
    both, alone = method(Probe(model, x, ClassScore(1))), method(Probe(model, x[:1], ClassScore(1)))
    assert torch.allclose(both.maps["image"][:1], alone.maps["image"], atol=1e-5)


@pytest.mark.parametrize("trajectories", [-1, 0, 1])
def test_too_few_trajectories_are_refused(trajectories):
    with pytest.raises(BadOption, match=f"at least 2 trajectories, got {trajectories}"):
        MorrisSensitivity(trajectories=trajectories)


def curved(a, b, c, d):
    return torch.tanh(a + 2 * b * c) + 0.3 * d**2


def test_a_tolerance_stops_early_on_the_same_trajectories():
    linear_probe, curved_probe = probed(linear), probed(curved, seed=5)
    method = MorrisSensitivity(players="grid:2", trajectories=20, tolerance=0.05)
    answer = method(linear_probe)  # each trajectory gives the values: four are enough
    assert linear_probe.spent.own.forwards == 4 * 5
    assert torch.allclose(parts(answer.maps), parts(MorrisSensitivity("grid:2", 20)(probed(linear)).maps), atol=1e-12)
    strict = MorrisSensitivity(players="grid:2", trajectories=20, tolerance=1e-9)(curved_probe)
    assert curved_probe.spent.own.forwards == method.cost(curved_probe).forwards == 20 * 5
    assert torch.equal(strict.maps["image"], MorrisSensitivity("grid:2", 20)(probed(curved, seed=5)).maps["image"])
    near = MorrisSensitivity(players="grid:2", trajectories=200, tolerance=0.1)(probed(curved, seed=5))
    assert float(parts(near.error).max()) <= 0.1 * float(parts(near.maps).abs().max())


def test_items_of_a_batch_stop_each_by_itself():
    model = Model(Quarters(curved))
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x[0] = 0
    method = MorrisSensitivity(players="grid:2", trajectories=40, tolerance=0.1)
    scene = Scene(infills=(Constant(0.5), Constant(0.5)))
    both = method(Probe(model, x, ClassScore(0), scene=scene)).maps["image"]
    for item in (0, 1):
        alone = method(Probe(model, x[item : item + 1], ClassScore(0), scene=scene)).maps["image"]
        assert torch.allclose(both[item : item + 1], alone, atol=1e-12)


@pytest.mark.parametrize("tolerance", [0.0, -1.0])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(BadOption, match="a tolerance above 0"):
        MorrisSensitivity(tolerance=tolerance)
