"""Randomization of the model's weights against a second implementation and closed forms."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.core.errors import BadOption
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.cam import GradCAM, HiResCAM
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.explain.path import IntegratedGradients
from pellucid.metrics.randomization.weights import ModelParameterRandomization
from pellucid.testing import unchanged

RANKS = (2, 3)
SHAPE = {2: (8, 10), 3: (4, 6, 8)}


def randomized(method, model, x, levels=3, seed=0, label=1):
    """The score of a method's own map."""
    scene = Scene(seed=seed)
    probe = Probe(model, x, ClassScore(label), method.needs(model, {"image": x}), scene)
    return ModelParameterRandomization(levels)(probe, method(probe), method, None)


def edges(probe):
    """What an edge detector shows: the image, whatever the model."""
    x = probe.inputs["image"].sum(1, keepdim=True)
    return sum(x.diff(dim=a, append=x.narrow(a, x.shape[a] - 1, 1)).abs() for a in range(2, x.ndim))


def stood(model, x, answer, levels=3):
    """The score of a stand-in's map."""
    probe = Probe(model, x, ClassScore(0))
    return ModelParameterRandomization(levels)(probe, answer(probe), answer, None)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("method", [Saliency(), InputXGradient(), GradCAM("front"), HiResCAM("front")])
def test_equal_to_the_second_implementation(method, rank, nets, model_of, reference):
    """One level for each layer with weights, the output's first."""
    net, x = nets.classifier(rank), nets.noise(1, 2, *SHAPE[rank])
    model, layers = model_of(net, rank, 2), ["tail.fc", "tail.conv", "front.3", "front.1", "front.0"]
    got = randomized(method, model, x, levels=5, seed=4)

    def explain(module):
        fresh = Model(module, model.inputs, OutputSpec())
        probe = Probe(fresh, x, ClassScore(1), method.needs(fresh, {"image": x}))
        return method(probe).collapsed()[0].numpy()

    slow = reference("model_parameter_randomization").cascade(copy.deepcopy(net), explain, layers, 4)
    assert got.detail["levels"] == [1] * 5
    assert [row[0] for row in got.detail["curve"]] == pytest.approx(slow, abs=1e-9, nan_ok=True)
    assert float(got.values[0]) == pytest.approx(slow[-1], abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("rank", RANKS)
def test_an_edge_detector_stays_at_every_level(rank, nets, model_of, stand):
    score = stood(model_of(nets.classifier(rank), rank, 2), nets.noise(2, 2, *SHAPE[rank]), stand(edges))
    assert torch.allclose(score.values, torch.ones(2, dtype=torch.float64), atol=1e-12)
    assert np.allclose(score.detail["curve"], 1)
    assert len(score.detail["curve"]) == 3


@pytest.mark.parametrize("method", [InputXGradient(), IntegratedGradients(1)])
def test_a_linear_model_with_fresh_weights_gives_no_correlation(method, model_of, nets):
    """E[rho] = 0 with standard deviation 1 / sqrt(d - 1), on an image of ones."""
    net, x = nets.linear(12, classes=2), torch.ones(1, 1, 12, 12, dtype=torch.float64)
    model = model_of(net, 2)
    rho = np.array([float(randomized(method, model, x, 1, seed).values) for seed in range(12)])
    assert (np.abs(rho) < 4 / 143**0.5).all()
    assert abs(rho.mean()) < 4 / (12 * 143) ** 0.5
    assert rho.std() > 0.3 / 143**0.5


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(12)))
def test_ranks_of_a_known_permutation(nets, model_of, stand, order):
    """Spearman in closed form: 1 - 6 sum d^2 / (n (n^2 - 1))."""
    first = torch.arange(12.0).view(1, 1, 3, 4)
    second = torch.tensor(order).float().view(1, 1, 3, 4)
    model, x = model_of(nets.linear(1, classes=1), 2), torch.ones(1, 1, 3, 4)
    model = Model(nn.Sequential(nn.Flatten(), nn.Linear(12, 1)), model.inputs, OutputSpec())
    method = stand(lambda p: first if p.model.identity.name != "randomized" else second)
    expected = 1 - 6 * float(((first - second) ** 2).sum()) / (12 * (144 - 1))
    assert float(stood(model, x, method, 1).values) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("way", "rho"), [(torch.exp, 1), (lambda v: -(v**3), -1)])
def test_only_ranks_count(way, rho, nets, model_of, stand):
    values = nets.noise(2, 1, 6, 6)
    method = stand(lambda p: values if p.model.identity.name != "randomized" else way(values))
    score = stood(model_of(nets.linear(6), 2), nets.noise(2, 1, 6, 6), method)
    assert score.values.tolist() == pytest.approx([rho, rho])


def test_the_more_a_map_shows_the_image_the_higher_it_scores(nets, model_of, stand):
    """An edge detector planted into a gradient by 0, 1/4, 1/2, 3/4 and 1, as ranks."""
    net = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, 1)))
    x, model = nets.noise(1, 1, 16, 16), model_of(net, 2)

    def mixed(share):
        def answer(probe):
            weight = probe.model.module[1].weight.detach().view(1, 1, 16, 16)
            return share * edges(probe) / edges(probe).std() + (1 - share) * weight / weight.std()

        return float(stood(model, x, stand(answer), 1).values)

    found = [mixed(share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert np.all(np.diff(found) > 0)
    assert found[-1] == pytest.approx(1)


def test_the_user_s_model_is_bit_equal(nets, model_of):
    net, x = nets.classifier(2).train(), nets.noise(2, 2, 8, 10)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    generator = torch.get_rng_state()
    with unchanged(net):
        score = randomized(GradCAM("front"), model_of(net, 2, 2), x)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())
    assert net.training
    assert not torch.allclose(score.values, torch.ones(2, dtype=torch.float64))


def test_the_target_stays_that_of_the_trained_model(nets, model_of, stand):
    """With fresh weights another class may be predicted: the cascade explains the first one."""
    net, x = nets.classifier(2), nets.noise(4, 2, 8, 10)
    net.tail.fc.bias.data -= net(x).mean(0).detach()
    seen = []

    def answer(probe):
        seen.append(probe.target.label if probe.batch == 1 else probe.target.name)
        return probe.inputs["image"]

    method = stand(answer)
    probe = Probe(model_of(net, 2, 2), x, ClassScore(None))
    ModelParameterRandomization(3)(probe, method(probe), method, None)
    assert len(seen) == 4
    assert len(set(seen)) == 1


def test_same_seed_same_value(nets, model_of):
    model, x = model_of(nets.classifier(2), 2, 2), nets.noise(2, 2, 8, 10)
    first, again, other = (randomized(Saliency(), model, x, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.values, again.values)
    assert first.detail == again.detail
    assert not torch.equal(first.values, other.values)


@pytest.mark.parametrize("rank", RANKS)
def test_an_item_alone_equals_the_item_in_a_batch(rank, nets, model_of):
    model, x = model_of(nets.classifier(rank), rank, 2), nets.noise(2, 2, *SHAPE[rank])
    together = randomized(Saliency(), model, x)
    for i in range(2):
        alone = randomized(Saliency(), model, x[i : i + 1])
        assert torch.allclose(together.values[i : i + 1], alone.values, rtol=1e-6)


@pytest.mark.parametrize("levels", [1, 2, 3, 5, 50])
def test_the_last_level_refreshes_every_layer(levels, nets, model_of, stand):
    net, x = nets.classifier(2), nets.noise(1, 2, 8, 10)
    weights = []

    def answer(probe):
        weights.append({k: v.clone() for k, v in probe.model.module.named_parameters()})
        return probe.inputs["image"]

    score = stood(model_of(net, 2, 2), x, stand(answer), levels)
    count = min(levels, 5)
    assert len(weights) == count + 1
    assert sum(score.detail["levels"]) == 5
    changed = [{k.rsplit(".", 1)[0] for k in w if not torch.equal(w[k], weights[0][k])} for w in weights]
    assert changed[-1] == {"front.0", "front.1", "front.3", "tail.conv", "tail.fc"}
    assert all(a < b for a, b in pairwise(changed))
    assert "tail.fc" in changed[1]


def test_weights_without_an_initialization_of_their_own_keep_their_spread(stand):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(5 * torch.randn(400, generator=torch.Generator().manual_seed(0)))

        def forward(self, x):
            return (x.flatten(1) @ self.weight)[:, None]

    spreads = []

    def answer(probe):
        spreads.append(float(probe.model.module.weight.detach().std()))
        return probe.inputs["image"]

    model = Model(Scaled(), (InputSpec(),), OutputSpec())
    stood(model, torch.randn(1, 1, 20, 20, generator=torch.Generator().manual_seed(1)), stand(answer))
    assert spreads[0] != spreads[1]
    assert spreads[1] == pytest.approx(spreads[0], rel=0.2)


@pytest.mark.parametrize("levels", [0, -2])
def test_options_outside_their_range(levels):
    with pytest.raises(BadOption, match=rf"expected at least 1 level, got {levels}. 3 is the default"):
        ModelParameterRandomization(levels)
