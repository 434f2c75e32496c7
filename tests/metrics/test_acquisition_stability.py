"""How far a map moves under another acquisition: closed forms, a second implementation, the score beside it."""

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.errors import BadOption
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.metrics.robustness.acquisition import AcquisitionStability

SHAPE = {2: (8, 10), 3: (5, 6, 8)}
STRENGTH = {"blur": 0.7, "gamma": 1.2, "window": 0.05, "bias field": 0.1, "resampling": 1.5, "motion": 3}
OFF = {"noise": 0.0, "blur": 0.0, "gamma": 1.0, "window": 0.0, "bias": 0.0, "resampling": 1.0, "motion": 1}
MAP, SCORE = "change of the map", "change of the score"


def scored(metric, model, x, method=None):
    """The score of a method's own map."""
    method = method or InputXGradient()
    probe = Probe(model, x, ClassScore(0), method.needs(model, {"image": x}), Scene(seed=5))
    return metric(probe, method(probe), method, None)


@pytest.mark.parametrize("rank", [2, 3])
def test_equal_to_the_second_implementation(rank, nets, model_of, reference):
    net, x = nets.classifier(rank), nets.noise(2, 2, *SHAPE[rank])
    score = scored(AcquisitionStability(noise=0.0), model_of(net, rank, 2), x)
    got = score.detail["knobs"]
    assert set(got) == set(STRENGTH)

    def explain(one):
        leaf = torch.from_numpy(one)[None].requires_grad_(True)
        (g,) = torch.autograd.grad(net(leaf)[:, 0].sum(), leaf)
        return (g * leaf).sum(1).detach().numpy()

    for item in range(2):
        slow = reference("acquisition_stability").acquisition_stability(
            explain, lambda one: float(net(torch.from_numpy(one)[None])[0, 0].detach()), x[item].numpy(), STRENGTH
        )
        for knob, (moved, rose) in slow.items():
            assert got[knob][MAP][item] == pytest.approx(moved, rel=1e-9)
            assert got[knob][SCORE][item] == pytest.approx(rose, rel=1e-7, abs=1e-12)
        assert float(score.values[item]) == pytest.approx(max(moved for moved, _ in slow.values()), rel=1e-9)


def test_noise_is_that_of_the_shared_draws(nets, model_of, reference):
    net, x = nets.linear(8), nets.noise(1, 1, 8, 8)
    (e,) = reference("noisy_copies").noises(x[0], "gaussian", 0.05, 1, 5)
    weight = net[1].weight.detach().view(1, 8, 8)
    got = scored(AcquisitionStability(**OFF | {"noise": 0.05}), model_of(net, 2), x)
    assert float(got.values) == pytest.approx(float((weight * e).norm() / (weight * x).norm()), rel=1e-9)
    assert got.detail["knobs"]["noise"][SCORE] == pytest.approx([float((weight * e).sum())], rel=1e-9)


def test_the_gradient_of_a_linear_score_never_moves_though_the_score_does(nets, model_of):
    got = scored(AcquisitionStability(), model_of(nets.linear(8), 2), nets.noise(2, 1, 8, 8), Saliency())
    assert got.values.tolist() == pytest.approx([0, 0], abs=1e-12)
    assert all(abs(v) > 1e-6 for row in got.detail["knobs"].values() for v in row[SCORE])


class Sum(nn.Module):
    """The sum of all voxels."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x):
        return (self.one * x).flatten(1).sum(1, keepdim=True)


def test_shading_in_closed_form(model_of):
    """Of an image with a dark column and a bright rest, the map is the image: each voxel moves by its place."""
    x = torch.ones(1, 1, 6, 9, dtype=torch.float64)
    x[..., 4] = 0
    got = scored(AcquisitionStability(**OFF | {"bias": 0.2}), model_of(Sum(), 2), x)
    line = torch.linspace(-1, 1, 9, dtype=torch.float64)[[0, 1, 2, 3, 5, 6, 7, 8]]
    assert float(got.values) == pytest.approx(0.2 * float(line.square().mean().sqrt()), abs=1e-9)
    assert got.detail["knobs"]["bias field"][SCORE] == pytest.approx([0], abs=1e-9)


@pytest.mark.parametrize(
    ("name", "strengths"),
    [
        ("noise", (0.01, 0.05, 0.2)),
        ("blur", (0.4, 0.8, 2.0)),
        ("gamma", (1.1, 1.5, 2.5)),
        ("window", (0.05, 0.2, 0.5)),
        ("bias", (0.05, 0.2, 0.5)),
        ("motion", (3, 5, 7)),
    ],
)
def test_a_stronger_change_moves_the_map_further(name, strengths, model_of, nets):
    x = nets.noise(1, 1, 12, 12)
    found = [float(scored(AcquisitionStability(**OFF | {name: s}), model_of(Sum(), 2), x).values) for s in strengths]
    assert found[0] > 0
    assert np.all(np.diff(found) > 0)


def test_an_item_alone_and_a_map_in_another_unit(nets, model_of, stand):
    x, model = nets.noise(3, 2, 8, 10), model_of(nets.classifier(2), 2, 2)
    x[1:] *= 100
    together, alone = scored(AcquisitionStability(), model, x), scored(AcquisitionStability(), model, x[:1])
    assert float(together.values[0]) == pytest.approx(float(alone.values[0]), rel=1e-9)
    plain, larger = (
        scored(AcquisitionStability(), model, x, stand(lambda p, f=f: f * p.inputs["image"])) for f in (1, 1e4)
    )
    assert larger.values.tolist() == pytest.approx(plain.values.tolist(), rel=1e-9)


def test_what_is_undefined_says_why(nets, model_of, stand):
    model, x = model_of(nets.linear(6), 2), nets.noise(2, 1, 6, 6)
    x[1] = 3.0
    blank = stand(lambda probe: torch.cat([probe.inputs["image"][:1] * 0, probe.inputs["image"][1:]]))
    assert scored(AcquisitionStability(), model, x, blank).reasons == (
        "the map is zero everywhere: its change has no unit",
        "the image has no range of intensities, so noise has no unit",
    )


@pytest.mark.parametrize(
    "bad", [{"noise": 1.0}, {"blur": -1.0}, {"gamma": 0.0}, {"motion": 2}, {"resampling": 0.5}, OFF]
)
def test_options_outside_their_range(bad):
    with pytest.raises(BadOption):
        AcquisitionStability(**bad)
