"""Infidelity and ROAD: changes of the image that are no plain fill."""

from time import perf_counter

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.errors import BadOption
from pellucid.core.infill import Constant
from pellucid.core.target import ClassScore
from pellucid.metrics.faithfulness.imputation import impute, stencil
from pellucid.metrics.faithfulness.infidelity import Infidelity
from pellucid.metrics.faithfulness.road import ROAD

RANKS = (2, 3)
SHAPE = {2: (9, 11), 3: (5, 6, 7)}
BLACK = Constant(0.0)


def linear(nets, shape, seed=0):
    """``w.x + c`` with its slope, and two seeded images."""
    net = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 1)), seed)
    return net, nets.noise(2, 1, *shape, seed=seed + 7), net[1].weight.detach().view(1, 1, *shape)


@pytest.mark.parametrize("rank", RANKS)
def test_infidelity_of_a_linear_score(rank, nets, model_of, scored):
    """0 for the exact map, for three times it when scaled; s^2 |w|^2 for zeros under noise of deviation s."""
    net, x, w = linear(nets, SHAPE[rank])
    model = model_of(net, rank)
    for change, exact in (("box", w * x), ("noise", w.expand_as(x))):
        for factor, scaled in ((1, False), (3, True), (-2, True)):
            metric = Infidelity(change, 20, scaled=scaled, infill=BLACK)
            assert scored(metric, model, x, factor * exact).values.abs().max() < 1e-20
        assert scored(Infidelity(change, 20, scaled=False, infill=BLACK), model, x, 3 * exact).values.min() > 1e-4
    got = scored(Infidelity("noise", 4000, 0.1), model, x, x * 0)
    expected = (0.1 * x.flatten(1).std(1)).square() * w.square().sum()
    assert torch.allclose(got.values, expected, rtol=0.1)  # 4.5 standard errors


@pytest.mark.parametrize("change", ["box", "noise"])
@pytest.mark.parametrize("rank", RANKS)
def test_infidelity_equals_the_second_implementation(change, rank, nets, model_of, scored, reference):
    net, shape = nets.classifier(rank), SHAPE[rank]
    x, maps, model = nets.noise(2, 2, *shape), nets.noise(2, 1, *shape, seed=3), model_of(net, rank, 2)
    metric = Infidelity(change, 7, infill=BLACK)
    got, probe_like = scored(metric, model, x, maps), torch.Generator().manual_seed(0)
    fields = []
    for _ in range(7):
        if change == "noise":
            fields.append(torch.randn(shape, generator=probe_like, dtype=torch.float64))
            continue
        edges = [max(1, round(0.25 * n)) for n in shape]
        first = [int(torch.randint(n - e + 1, (), generator=probe_like)) for n, e in zip(shape, edges, strict=True)]
        fields.append(torch.zeros(shape).double())
        fields[-1][tuple(slice(f, f + e) for f, e in zip(first, edges, strict=True))] = 1
    for i in range(2):
        one, spread = x[i : i + 1], 0.25 * float(x[i].std())
        moved = [one - spread * f for f in fields] if change == "noise" else [one * (1 - f) for f in fields]
        predicted = [f.numpy() * (spread if change == "noise" else 1) for f in fields]
        slow = reference("infidelity").infidelity(
            lambda y: net(y)[:, 0].detach(), one, maps[i, 0].numpy(), (predicted, moved)
        )
        assert float(got.values[i]) == pytest.approx(slow, rel=1e-9)


def test_changes_do_not_add_up_and_any_size_will_do(model_of, scored):
    """Quantus patches accumulate, and must divide the image: a score of one pixel changes by that pixel only."""

    class One(nn.Module):
        def forward(self, x):
            return x[:, :, 3, 3]

    x = torch.ones(1, 1, 7, 7).double()
    right = torch.zeros(1, 1, 7, 7).double()
    right[0, 0, 3, 3] = 1
    score = scored(Infidelity(samples=40, size=0.3, scaled=False, infill=BLACK), model_of(One(), 2), x, right)
    assert float(score.values) == 0
    assert 0 < score.detail["without a map"][0] < 0.5  # boxes that hold the pixel; all of them, if they added up


def test_infidelity_grows_with_corruption(nets, model_of, scored):
    net, x, w = linear(nets, (12, 12))
    x, noise = x[:1].expand(40, 1, 12, 12), nets.noise(40, 1, 12, 12, seed=5)
    for change, exact in (("box", w * x), ("noise", w.expand_as(x))):
        method = Infidelity(change, 30, infill=BLACK)
        means = [
            float(scored(method, model_of(net, 2), x, exact + s * exact.std() * noise).values.mean())
            for s in (0.0, 0.5, 2.0, 50.0)
        ]
        assert np.all(np.diff(means) > 0)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 1.0, 1.0), (2.0, 0.5, 0.5)])
def test_a_ramp_grows_back_exactly(spacing):
    """Away from the border an affine image is its own mean, whatever is hidden; in a volume too (no NaN)."""
    rank = len(spacing)
    shape = (20, 18, 16)[:rank]
    at = np.indices(shape).astype(float)
    x = np.stack([sum(c * a for c, a in zip(s, at, strict=True)) + 1 for s in ((2, -1, 3)[:rank], (0.5, 4, -2)[:rank])])
    hidden = np.zeros(shape, dtype=bool)
    hidden[(slice(2, -2),) * rank] = np.random.default_rng(0).random(tuple(n - 4 for n in shape)) < 0.9
    assert np.abs(impute(x, hidden, spacing) - x[:, hidden].T).max() < 1e-6


def test_the_published_weights():
    flat, solid = dict(stencil((1.0, 1.0))), dict(stencil((2.0, 2.0, 2.0)))
    assert flat[(0, 1)] == flat[(-1, 0)] == pytest.approx(1 / 6)
    assert flat[(1, -1)] == pytest.approx(1 / 12)
    assert len(solid) == 26
    assert sum(solid.values()) == pytest.approx(1)
    assert solid[(0, 0, 1)] == pytest.approx(3 * solid[(1, 1, 1)])


@pytest.mark.parametrize("rank", RANKS)
def test_road_equals_the_second_implementation(rank, nets, model_of, scored, reference):
    """Two channels (Quantus raises), volumes (Quantus: NaN), borders and all, every batch (Quantus: the first)."""
    net, shape = nets.classifier(rank), SHAPE[rank]
    x, maps = nets.noise(2, 2, *shape), nets.noise(2, 1, *shape, seed=3)
    d = int(np.prod(shape))
    got = scored(ROAD(4, 0.0), model_of(net, rank, 2), x, maps, target=ClassScore(1))
    counts = [round(k * d / 5) for k in range(1, 5)]
    for i in range(2):
        one = (lambda y: net(y)[:, 1].detach(), x[i : i + 1], maps[i, 0].numpy(), counts)
        assert float(got.values[i]) == pytest.approx(reference("road").road(*one), abs=1e-7)


def test_road_of_a_linear_score_of_a_ramp_and_of_a_spot(nets, model_of, scored):
    """A ramp loses nothing wherever it is hidden; a spot on it loses exactly its own height."""
    w = torch.rand(12, 12, generator=torch.Generator().manual_seed(0)).double()

    class Sum(nn.Module):
        def forward(self, v):
            return (w * v[:, 0]).flatten(1).sum(1, keepdim=True)

    ramp = (torch.arange(12).double()[:, None] + 2 * torch.arange(12))[None, None]
    spot = ramp.clone()
    spot[0, 0, 5, 6] += 7
    maps = torch.full((1, 1, 12, 12), -1.0).double()
    maps[..., 2:-2, 2:-2] = 0
    maps[0, 0, 5, 6] = 3.0
    metric = ROAD(2, 0.0)  # 48 of the 64 inner voxels, and 96: the second reaches the border
    found = [scored(metric, model_of(Sum(), 2), x, maps).detail["falls"][0][0] for x in (ramp, spot)]
    assert found == pytest.approx([0, 7 * float(w[5, 6])], abs=1e-6)


def test_road_tells_a_right_map_from_a_wrong_one_and_is_the_same_in_any_batch(nets, model_of, scored):
    x = nets.noise(4, 1, 12, 12).abs()
    net, _, w = linear(nets, (12, 12))
    net[1].weight.data.abs_()
    exact, noise = w.abs() * x, nets.noise(4, 1, 12, 12, seed=2)
    model = model_of(net, 2)
    values = [scored(ROAD(), model, x, exact + s * noise).values for s in (0.0, 0.05, 5.0)]
    assert np.all(np.diff([float(v.mean()) for v in values]) < 0)
    least = scored(ROAD(order="least"), model, x, exact).values
    assert bool((least < values[0]).all())
    for i in range(4):
        assert torch.allclose(scored(ROAD(), model, x[i : i + 1], exact[i : i + 1]).values, values[0][i : i + 1])
    turned = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 1)))
    turned[1].weight.data = net[1].weight.data.view(12, 12).T.reshape(1, 144)
    turned[1].bias.data = net[1].bias.data
    plain, swapped = (
        scored(ROAD(noise=0.0), model_of(n, 2), v, m).values for n, v, m in ((net, x, exact), (turned, x.mT, exact.mT))
    )
    assert torch.allclose(plain, swapped, rtol=1e-9)
    assert torch.equal(plain, scored(ROAD(noise=0.0), model, x, 7 * exact).values)


def test_imputation_is_fast():
    """No loop over voxels: 90 % of a 224 x 224 image of three channels."""
    hidden = np.random.default_rng(0).random((224, 224)) < 0.9
    start = perf_counter()
    assert np.isfinite(impute(np.random.default_rng(1).random((3, 224, 224)), hidden, (1.0, 1.0))).all()
    assert perf_counter() - start < 20


def test_what_is_undefined_says_why_and_fills_are_named(nets, model_of, scored):
    net, x, w = linear(nets, (9, 11))
    maps = (w * x).clone()
    maps[1] = torch.nan
    for metric in (Infidelity(), Infidelity("noise"), ROAD()):
        score = scored(metric, model_of(net, 2), x, maps)
        assert score.reasons == ("", "the map is not finite")
        assert torch.isnan(score.values).tolist() == [False, True]
    assert "noisy linear imputation" in scored(ROAD(), model_of(net, 2), x, maps).detail["infill"]
    assert len(scored(Infidelity(), model_of(net, 2), x, maps).detail["by fill"]) == 2
    for bad in ({"change": "blur"}, {"samples": 1}, {"size": 1.0}):
        with pytest.raises(BadOption, match="expected"):
            Infidelity(**bad)
    for bad in ({"steps": 0}, {"noise": -1.0}, {"order": "random"}):
        with pytest.raises(BadOption, match="expected at least 1 step"):
            ROAD(**bad)
