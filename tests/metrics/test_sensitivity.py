"""How far a map moves under noise: closed forms, second implementations, invariances, one bank for all.

Of the numbered defects of Quantus, right here: 9 (normalization over the whole batch).
"""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.card import Cost
from pellucid.core.errors import BadOption
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.sweep import Sweep
from pellucid.core.target import ClassScore
from pellucid.explain.gradient import InputXGradient, Saliency
from pellucid.metrics.robustness.noise import Bank
from pellucid.metrics.robustness.sensitivity import (
    AverageSensitivity,
    LocalLipschitz,
    MaxSensitivity,
    SensitivityNorm,
)

SEED, RADIUS, SIGMA = 5, 0.04, 0.1
SHAPE = {2: (8, 10), 3: (4, 6, 8)}
METRICS = {
    "max_sensitivity": (MaxSensitivity(6, RADIUS), "uniform", RADIUS),
    "average_sensitivity": (AverageSensitivity(6, RADIUS), "uniform", RADIUS),
    "sensitivity_norm": (SensitivityNorm(6, SIGMA), "gaussian", SIGMA),
    "local_lipschitz": (LocalLipschitz(6, RADIUS), "uniform", RADIUS),
}
EVERY = [metric for metric, _, _ in METRICS.values()]
named = pytest.mark.parametrize("metric", EVERY, ids=lambda m: m.name)


def opened(model, x, method, scene=None):
    inputs = x if isinstance(x, dict) else {"image": x}
    scene = scene or Scene(seed=SEED)
    return Probe(model, inputs, ClassScore(0), method.needs(model, inputs), scene)


def scored(metric, model, x, method=None, scene=None):
    """The score of a method's own map."""
    method = method or InputXGradient()
    probe = opened(model, x, method, scene)
    return metric(probe, method(probe), method, None)


def weights(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Weighted(nn.Module):
    """``w.x``."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return (x * self.weight).flatten(1).sum(1, keepdim=True)


class Square(nn.Module):
    """``sum x^2 / 2``: its gradient is x."""

    def forward(self, x):
        return x.square().flatten(1).sum(1, keepdim=True) / 2


@pytest.fixture
def draws(reference):
    """What is added to one item."""

    def of(name, x):
        _, shape, size = METRICS[name]
        return list(reference("noisy_copies").noises(x, shape, size, 6, SEED))

    return of


def maps_of(net, method):
    """A method's map of one item, by autograd."""

    def explain(x):
        leaf = x[None].clone().requires_grad_(True)
        (g,) = torch.autograd.grad(net(leaf)[:, 0].sum(), leaf)
        return (g * x).sum(1)[0].numpy() if isinstance(method, InputXGradient) else g.abs().amax(1)[0].numpy()

    return explain


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("method", [Saliency(), InputXGradient()], ids=lambda m: m.name)
@pytest.mark.parametrize("name", METRICS)
def test_equal_to_the_second_implementation(name, method, rank, nets, model_of, reference, draws):
    net, x = nets.classifier(rank), nets.noise(2, 2, *SHAPE[rank])
    got = scored(METRICS[name][0], model_of(net, rank, 2), x, method)
    for item in range(2):
        slow = getattr(reference(name), name)(maps_of(net, method), x[item], draws(name, x[item]))
        slow, error = slow if isinstance(slow, tuple) else (slow, None)
        assert float(got.values[item]) == pytest.approx(slow, rel=1e-9)
        assert error is None or got.detail["standard error"][item] == pytest.approx(error, rel=1e-9)


@named
def test_the_gradient_of_a_linear_score_never_moves(metric, model_of):
    x, w = weights(2, 1, 6, 6, seed=1), weights(1, 6, 6)
    assert scored(metric, model_of(Weighted(w), 2), x, Saliency()).values.tolist() == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize("rank", [2, 3])
def test_input_times_gradient_of_a_linear_score_moves_as_known(rank, model_of, draws):
    x, w = weights(1, 1, *SHAPE[rank], seed=1), weights(1, *SHAPE[rank])
    model, size = model_of(Weighted(w), rank), float((w * x).norm())
    box = [float((w * e).norm()) / size for e in draws("max_sensitivity", x[0])]
    normal = [float((w * e).norm()) / size for e in draws("sensitivity_norm", x[0])]
    steep = [float((w * e).norm() / e.norm()) for e in draws("local_lipschitz", x[0])]
    for name, expected in (
        ("max_sensitivity", max(box)),
        ("average_sensitivity", np.mean(box)),
        ("sensitivity_norm", np.mean(normal)),
        ("local_lipschitz", max(steep)),
    ):
        assert float(scored(METRICS[name][0], model, x).values) == pytest.approx(expected, abs=1e-6)
    assert max(steep) <= float(w.abs().max())


def test_bounds_and_expectations_in_closed_form(model_of, reference):
    """At most r ||w|| / ||w x||, and on average sigma ||w|| / ||w x||, in units of the intensity range."""
    x, w = weights(1, 1, 24, 24, seed=1), weights(1, 24, 24)
    model, span = model_of(Weighted(w), 2), reference("noisy_copies").intensity_range(x[0, 0].numpy())
    ratio = span * float(w.norm() / (w * x).norm())
    assert float(scored(MaxSensitivity(20, RADIUS), model, x).values) <= RADIUS * ratio
    assert float(scored(AverageSensitivity(40, RADIUS), model, x).values) == pytest.approx(
        RADIUS * ratio / 3**0.5, rel=0.03
    )
    assert float(scored(SensitivityNorm(40, SIGMA), model, x).values) == pytest.approx(SIGMA * ratio, rel=0.03)


def test_a_curved_score_in_closed_form(model_of, draws):
    """The gradient of ``sum x^2 / 2`` is x: its slope is 1 everywhere, and it moves as far as the image."""
    x = weights(1, 1, 8, 8).abs() + 1
    model = model_of(Square(), 2)
    steps = [float(e.norm() / x.norm()) for e in draws("max_sensitivity", x[0])]
    assert float(scored(LocalLipschitz(6, RADIUS), model, x, Saliency()).values) == pytest.approx(1, abs=1e-9)
    assert float(scored(MaxSensitivity(6, RADIUS), model, x, Saliency()).values) == pytest.approx(max(steps), abs=1e-9)


@named
def test_an_item_is_scored_alike_alone_and_beside_a_brighter_one(metric, nets, model_of):
    """Quantus' defect 9: normalized over the batch, LocalLipschitz was .77 in a batch of six and 1.18 alone."""
    x = nets.noise(3, 2, 8, 10)
    x[1:] *= 100
    model = model_of(nets.classifier(2), 2, 2)
    together, alone = scored(metric, model, x), scored(metric, model, x[:1])
    assert float(together.values[0]) == pytest.approx(float(alone.values[0]), rel=1e-9)


@pytest.mark.parametrize("factor", [1e-3, 250.0])
def test_a_map_in_another_unit(factor, model_of):
    """Relative changes stay; a slope is in the map's unit, and its relative value stays."""
    x, w = weights(2, 1, 6, 6, seed=1), weights(1, 6, 6)
    for metric in EVERY:
        one, other = (scored(metric, model_of(Weighted(w * f), 2), x) for f in (1.0, factor))
        scale = factor if isinstance(metric, LocalLipschitz) else 1
        assert other.values.tolist() == pytest.approx((one.values * scale).tolist(), rel=1e-9)
        if isinstance(metric, LocalLipschitz):
            assert other.detail["relative"] == pytest.approx(one.detail["relative"], rel=1e-9)


@named
def test_an_image_in_another_unit(metric, model_of):
    """Noise is a share of the image's range, so that gray values times 40 change nothing but a slope's unit."""
    x, w = weights(1, 1, 6, 6, seed=1), weights(1, 6, 6)
    one, other = (scored(metric, model_of(Weighted(w / f), 2), x * f) for f in (1.0, 40.0))
    scale = 40 if isinstance(metric, LocalLipschitz) else 1
    assert float(other.values) * scale == pytest.approx(float(one.values), rel=1e-9)


def test_more_noise_moves_the_map_further(nets, model_of):
    model, x = model_of(nets.classifier(2), 2, 2), nets.noise(2, 2, 8, 10)
    for make in (MaxSensitivity, AverageSensitivity, SensitivityNorm):
        found = torch.stack([scored(make(6, s), model, x).values for s in (0.01, 0.03, 0.1, 0.3)])
        assert (found.diff(dim=0) > 0).all()


def test_a_map_that_jumps_is_scored_worse_the_more_it_jumps(nets, model_of, stand):
    """A share of noise that is drawn anew for every image, in a map that is otherwise steady."""
    model, x = model_of(nets.linear(8), 2), nets.noise(1, 1, 8, 8)

    def jumping(share):
        def answer(probe):
            seed = int(probe.inputs["image"].sum() * 1e6) % 1000
            return 1 + share * nets.noise(1, 1, 8, 8, seed=seed)

        return stand(answer)

    for metric in EVERY:
        found = [float(scored(metric, model, x, jumping(s)).values) for s in (0.0, 0.1, 0.3, 1.0)]
        assert found[0] == 0
        assert np.all(np.diff(found) > 0)


def test_metrics_of_one_noise_share_its_copies(nets, model_of):
    model, x, method = model_of(nets.classifier(2), 2, 2), nets.noise(2, 2, 8, 10), InputXGradient()
    probe = opened(model, x, method)
    answer = method(probe)
    sweep = Sweep(probe, method, [m.asking(probe, answer, method, None) for m in EVERY])
    assert sweep.cost == Cost(12, 12)
    together = sweep.run()
    assert probe.spent.own == Cost(24, 24)
    for metric, got in zip(EVERY, together, strict=True):
        assert torch.equal(got.values, scored(metric, model, x).values)


def test_same_seed_same_value(nets, model_of):
    model, x = model_of(nets.classifier(2), 2, 2), nets.noise(1, 2, 8, 10)
    first, again, other = (scored(MaxSensitivity(3), model, x, scene=Scene(seed=s)) for s in (1, 1, 2))
    assert torch.equal(first.values, again.values)
    assert not torch.equal(first.values, other.values)


def test_the_detail_says_how_large_the_noise_was(nets, model_of, reference):
    x = nets.noise(1, 2, 8, 10)
    scene = Scene(affine={"image": ((0.0, 0.0), (100.0, 10.0))}, seed=SEED)
    detail = scored(MaxSensitivity(3, 0.05), model_of(nets.classifier(2), 2, 2), x, scene=scene).detail
    spans = [0.05 * reference("noisy_copies").intensity_range(c.numpy()) for c in x[0]]
    assert detail["noise"] == "uniform within 0.05 of the intensity range of the body, 3 copies"
    assert detail["noise in network units"]["image"][0] == pytest.approx(spans)
    assert detail["noise in the unit of the image"]["image"][0] == pytest.approx([100 * spans[0], 10 * spans[1]])
    assert len(detail["changes"][0]) == 3


@pytest.mark.parametrize("shape", ["uniform", "gaussian"])
def test_noise_has_both_signs_and_the_size_it_says(shape, nets, model_of):
    x = nets.noise(1, 1, 32, 32)
    probe = opened(model_of(nets.linear(32), 2), x, Saliency())
    bank = Bank(shape, 0.1, 8)
    size = float(bank.spread(probe)["image"])
    noise = torch.cat([y["image"] - x for y in bank.inputs(probe)])
    assert abs(float(noise.mean())) < 0.05 * size
    assert float(noise.std()) == pytest.approx(size / 3**0.5 if shape == "uniform" else size, rel=0.02)
    assert shape == "gaussian" or float(noise.abs().max()) <= size


class Pair(nn.Module):
    """``sum of a * x * y``."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, pet, ct, age):
        return (self.weight * pet * ct).flatten(1).sum(1, keepdim=True) + age


def test_noise_moves_every_image_and_no_covariate(nets, reference):
    """With I*G = pet * ct, both images count: the second's range is the larger."""
    specs = (InputSpec("pet", rank=2), InputSpec("ct", rank=2), InputSpec("age", rank=0, channels=1))
    x = {"pet": nets.noise(1, 1, 6, 6), "ct": 9 * nets.noise(1, 1, 6, 6, seed=2), "age": torch.ones(1, 1).double()}
    span = reference("noisy_copies").intensity_range
    got = scored(MaxSensitivity(4, RADIUS), Model(Pair(), specs, OutputSpec()), x)
    generator, found = torch.Generator().manual_seed(SEED), []
    for _ in range(4):
        e, f = (
            RADIUS * span(x[n][0, 0].numpy()) * (2 * torch.rand(1, 6, 6, generator=generator) - 1).double()
            for n in ("pet", "ct")
        )
        moved = (x["pet"] + e) * (x["ct"] + f) - x["pet"] * x["ct"]
        found.append(float(moved.norm() / (x["pet"] * x["ct"]).norm()))
    assert float(got.values) == pytest.approx(max(found), rel=1e-9)


@named
def test_what_is_undefined_says_why_and_leaves_the_others(metric, nets, model_of, stand):
    model, x = model_of(nets.linear(6), 2), nets.noise(4, 1, 6, 6)
    x[2] = 3.0

    def answer(probe):
        maps = probe.inputs["image"].clone()
        maps[0] = 0
        maps[1, 0, 0, 0] = torch.nan
        return maps

    score = scored(metric, model, x, stand(answer))
    assert score.reasons == (
        "the map is zero everywhere: its change has no unit",
        "the map is not finite",
        "the image has no range of intensities, so noise has no unit",
        "",
    )
    assert torch.isnan(score.values).tolist() == [True, True, True, False]

    def broken(probe):
        maps = probe.inputs["image"].clone()
        if not torch.equal(maps, x):
            maps[3, 0, 1, 1] = torch.inf
        return maps

    assert scored(metric, model, x, stand(broken)).reasons[3] == "the map of a noisy copy is not finite"


@pytest.mark.parametrize("make", [MaxSensitivity, AverageSensitivity, SensitivityNorm, LocalLipschitz])
@pytest.mark.parametrize("bad", [(0, 0.1), (5, 0.0), (5, 1.5)])
def test_options_outside_their_range(make, bad):
    with pytest.raises(BadOption, match="at least 1 noisy copy"):
        make(*bad)


@named
def test_a_real_volume(metric, shared_data, nets, model_of):
    """Gradients of a small network on MR: finite, and the sum that reads every voxel alike does not move."""
    path = sorted((shared_data / "mri_hippocampus" / "images").glob("*.nii.gz"))[0]
    data = np.asarray(nibabel.load(Path(path)).dataobj, dtype=np.float64)[:24, :24, :24]
    x = torch.from_numpy((data - data.mean()) / data.std())[None, None]
    net = nets.seeded(
        lambda: nn.Sequential(nn.Conv3d(1, 4, 3, 2), nn.Tanh(), nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(32, 2))
    )
    moving = scored(metric, model_of(net, 3), x, Saliency())
    assert 0 < float(moving.values) < 10
    still = scored(metric, model_of(Weighted(torch.ones_like(x[0])), 3), x, Saliency())
    assert float(still.values) == 0
