"""Pixel flipping, symmetric relevance gain, region perturbation, selectivity and IROF."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.core.errors import BadOption
from pellucid.core.explanation import Attribution
from pellucid.core.grid import Calibration, Grid
from pellucid.core.infill import Blur, Constant, ItemMean
from pellucid.core.probe import Probe, Scene
from pellucid.core.sweep import Sweep
from pellucid.core.target import ClassScore
from pellucid.core.units import superpixels
from pellucid.explain.gradient import Saliency
from pellucid.metrics.faithfulness.curves import DeletionAUC, InsertionAUC
from pellucid.metrics.faithfulness.flipping import (
    PixelFlipping,
    RegionPerturbation,
    Selectivity,
    SymmetricRelevanceGain,
)
from pellucid.metrics.faithfulness.superpixels import IROF

RANKS = (2, 3)
SHAPE = {2: (8, 10), 3: (4, 6, 5)}
BLACK = Constant(0.0)
ALL = (PixelFlipping, SymmetricRelevanceGain, RegionPerturbation, Selectivity, IROF)


def linear(nets, shape, seed=0):
    """``w.x + c`` and its exact map ``w * x`` for two seeded images."""
    net = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 1)), seed)
    x = nets.noise(2, 1, *shape, seed=seed + 7)
    return net, x, net[1].weight.detach().view(1, 1, *shape) * x


def shuffled(shape, seed=0, items=1):
    """A map without ties."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(int(np.prod(shape)), generator=generator).double().view(1, *shape) for _ in range(items)]
    return torch.stack(rows)


@pytest.mark.parametrize("rank", RANKS)
def test_a_linear_score_falls_by_the_sum_of_the_largest(rank, nets, model_of, scored):
    net, x, maps = linear(nets, SHAPE[rank])
    d, model = int(np.prod(SHAPE[rank])), model_of(net, rank)
    falls = [np.concatenate([[0.0], np.cumsum(np.sort(m.flatten().numpy())[::-1])]) for m in maps]
    flipping = scored(PixelFlipping(d, infill=BLACK), model, x, maps)
    gain = scored(SymmetricRelevanceGain(d, infill=BLACK), model, x, maps)
    for i, fall in enumerate(falls):
        assert float(flipping.values[i]) == pytest.approx(fall.mean(), abs=1e-10)
        rising = np.concatenate([[0.0], np.cumsum(np.sort(maps[i].flatten().numpy()))])
        assert float(gain.values[i]) == pytest.approx(np.trapezoid(fall - rising, dx=1 / d), abs=1e-10)
        assert float(gain.values[i]) > 0


@pytest.mark.parametrize("rank", RANKS)
def test_a_linear_score_falls_by_the_sums_of_the_blocks(rank, nets, model_of, scored):
    """Cubes of 4 mm on voxels of 2 mm."""
    shape = (6,) * rank
    net, x, maps = linear(nets, shape)
    scene = Scene(grids={"image": Grid.regular(shape, (2.0,) * rank, Calibration.PATIENT)})
    pool = {2: nn.functional.avg_pool2d, 3: nn.functional.avg_pool3d}[rank]
    sums = pool(maps, 2).flatten(1).numpy() * 2**rank
    count, model, f0 = 3**rank, model_of(net, rank), net(x)[:, 0].detach().numpy()
    aopc = scored(RegionPerturbation(count, block=4.0, infill=BLACK), model, x, maps, scene=scene)
    area = scored(Selectivity(count, block=4.0, infill=BLACK), model, x, maps, scene=scene)
    for i in range(2):
        fall = np.concatenate([[0.0], np.cumsum(np.sort(sums[i])[::-1])])
        assert float(aopc.values[i]) == pytest.approx(fall.mean(), abs=1e-10)
        assert float(area.values[i]) == pytest.approx(np.trapezoid(f0[i] - fall, dx=1 / count), abs=1e-10)


@pytest.mark.parametrize("infill", [Constant(0.4), ItemMean(), Blur(1.0)], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("rank", RANKS)
def test_equal_to_the_second_implementations(rank, infill, nets, model_of, scored, reference):
    """On a nonlinear network of two channels; blocks that do not divide the image (no error, as in Quantus)."""
    net, shape = nets.classifier(rank), SHAPE[rank]
    x, maps = nets.noise(2, 2, *shape), nets.noise(2, 1, *shape, seed=5)
    model, fill = model_of(net, rank, 2), infill(x, (1.0,) * rank, None)
    d, edge = int(np.prod(shape)), (3,) * rank
    count = int(np.prod([-(-n // 3) for n in shape]))
    runs = {
        "pixel_flipping": (PixelFlipping(6, infill=infill), [round(i * d / 6) for i in range(7)]),
        "symmetric_relevance_gain": (SymmetricRelevanceGain(10, infill=infill), [i * d // 10 for i in range(11)]),
        "region_perturbation": (RegionPerturbation(count, block=3.0, infill=infill), edge),
        "selectivity": (Selectivity(count, block=3.0, infill=infill), edge),
    }
    for name, (metric, extra) in runs.items():
        got = scored(metric, model, x, maps, target=ClassScore(1))
        slow = getattr(reference(name), name)
        for i in range(2):
            one = (lambda y: net(y)[:, 1].detach(), x[i : i + 1], fill[i : i + 1], maps[i, 0].numpy(), extra)
            assert float(got.values[i]) == pytest.approx(slow(*one), abs=1e-10), name


def test_symmetric_relevance_gain_is_insertion_less_deletion(nets, model_of, scored):
    net, x, maps = nets.classifier(2), nets.noise(2, 2, 8, 10), shuffled((8, 10), 4, 2)
    down, up, gain, back = (
        scored(m, model_of(net, 2, 2), x, a).values
        for m, a in (
            (DeletionAUC(8, random_orders=0), maps),
            (InsertionAUC(8, random_orders=0), maps),
            (SymmetricRelevanceGain(8), maps),
            (SymmetricRelevanceGain(8), -maps),
        )
    )
    assert torch.allclose(gain, up - down, rtol=0, atol=1e-12)
    assert torch.allclose(gain, -back, rtol=0, atol=1e-12)


def test_what_metrics_share_is_evaluated_once(nets, model_of):
    """One path of 20 masks down and one up, for five metrics; one more path over blocks, for two."""
    net, x, maps = nets.classifier(2), nets.noise(2, 2, 16, 16), shuffled((16, 16), 4, 2)
    metrics = [DeletionAUC(random_orders=0), InsertionAUC(random_orders=0), PixelFlipping(), SymmetricRelevanceGain()]
    metrics += [RegionPerturbation(), Selectivity()]
    answer = Attribution({"image": maps}, "logit", signed=True)
    probe = Probe(model_of(net, 2, 2), x, ClassScore(0))
    together = Sweep(probe, Saliency(), [m.asking(probe, answer, Saliency(), None) for m in metrics])
    assert together.cost.forwards == 2 * (20 + 20 + 20 - 2)  # two fills; "everything hidden" is the end of each path
    values = [s.values for s in together.run()]
    assert probe.spent.own.forwards == 2 * 2 * 58
    for metric, value in zip(metrics, values, strict=True):
        alone = metric(Probe(model_of(net, 2, 2), x, ClassScore(0)), answer, Saliency(), None).values
        assert torch.allclose(value, alone, rtol=1e-5)


class Conjunction(nn.Module):
    """x0 x1 + x2, blind to x3."""

    def forward(self, x):
        a, b, c, _ = x.flatten(1).unbind(1)
        return (a * b + c)[:, None]


@pytest.mark.parametrize(
    ("ranking", "curve"), [([4, 3, 2, 1], [2, 1, 1, 0, 0]), ([1, 2, 3, 4], [2, 2, 1, 0, 0])], ids=["right", "wrong"]
)
def test_a_nonlinear_score_worked_out_by_hand(ranking, curve, model_of, scored):
    x, maps = torch.ones(1, 1, 2, 2).double(), torch.tensor(ranking).double().view(1, 1, 2, 2)
    model = model_of(Conjunction(), 2)
    fall = sum(2 - y for y in curve) / 5
    area = (sum(curve) - (curve[0] + curve[-1]) / 2) / 4
    assert float(scored(PixelFlipping(4, infill=BLACK), model, x, maps).values) == fall
    assert float(scored(RegionPerturbation(4, block=1.0, infill=BLACK), model, x, maps).values) == fall
    assert float(scored(Selectivity(4, block=1.0, infill=BLACK), model, x, maps).values) == area


@pytest.mark.parametrize("rank", RANKS)
def test_irof_of_a_linear_score(rank, nets, model_of, scored, reference):
    """1 - mean(1 - cumsum / f0) without a bias, as published; above it the second implementation on a network."""
    shape = {2: (16, 16), 3: (12, 12, 12)}[rank]
    net, _, _ = linear(nets, shape)
    net[1].weight.data.abs_()
    net[1].bias.data.zero_()
    x = nets.noise(2, 1, *shape).abs()
    maps, model = net[1].weight.detach().view(1, 1, *shape) * x, model_of(net, rank)
    got = scored(IROF(pieces=8, steps=4, infill=BLACK), model, x, maps)
    for i in range(2):
        labels = superpixels(x[i], 8, (1.0,) * rank).labels.numpy()
        sums = np.bincount(labels.ravel(), maps[i].numpy().ravel())
        means = sums / np.bincount(labels.ravel())
        falls = np.cumsum(sums[np.argsort(-means, kind="stable")])
        counts = [round(k * len(sums) / 4) for k in range(1, 5)]
        published = 1 - np.mean([1 - falls[c - 1] / float(net(x)[i, 0].detach()) for c in counts])
        assert float(got.values[i]) == pytest.approx(published, abs=1e-10)
    assert got.detail["pieces"] == [int(superpixels(v, 8, (1.0,) * rank).count) for v in x]


@pytest.mark.parametrize("rank", RANKS)
def test_irof_equals_the_second_implementation(rank, nets, model_of, scored, reference):
    shape = {2: (16, 16), 3: (12, 12, 12)}[rank]
    net, x, maps = nets.classifier(rank), nets.noise(3, 2, *shape), shuffled(shape, 3, 3)
    got = scored(IROF(pieces=9, steps=5, infill=Constant(0.4)), model_of(net, rank, 2), x, maps)
    for i in range(3):
        labels = superpixels(x[i], 9, (1.0,) * rank).labels.numpy()
        one = (lambda y: net(y)[:, 0].detach(), x[i : i + 1], x[i : i + 1] * 0 + 0.4, maps[i, 0].numpy(), labels, 5)
        if got.reasons[i]:
            assert float(one[0](one[1])[0]) <= float(one[0](one[2])[0])
        else:
            assert float(got.values[i]) == pytest.approx(reference("irof").irof(*one), rel=1e-9)
    assert "" in got.reasons


def test_irof_without_a_score_to_lose(nets, model_of, scored):
    net, x, maps = linear(nets, (16, 16))
    net[1].weight.data.abs_().neg_()
    score = scored(IROF(pieces=8, infill=BLACK), model_of(net, 2), x.abs(), maps)
    assert set(score.reasons) == {"the image scores no higher than the fill, so there is no share of the score to lose"}
    assert bool(torch.isnan(score.values).all())


@pytest.mark.parametrize("metric", ALL)
def test_the_mean_fill_does_not_drift(metric, nets, model_of, scored):
    """Quantus takes the mean of the image that is already perturbed; here it is that of the whole image."""
    net, x = nets.classifier(2), nets.noise(1, 2, 16, 16) + torch.linspace(0, 3, 16).double()
    maps, fixed = shuffled((16, 16), 1), x.mean((2, 3), keepdim=True)

    class Known(Constant):
        """The mean, given beforehand."""

        def __call__(self, x, spacing, affine):
            return fixed.expand_as(x)

    settings = {"pieces": 8} if metric is IROF else {}
    ours, known = (
        scored(metric(infill=f, **settings), model_of(net, 2, 2), x, maps).values for f in (ItemMean(), Known(9.0))
    )
    assert torch.allclose(ours, known, rtol=1e-12, equal_nan=True)


@pytest.mark.parametrize("metric", ALL)
def test_corruption_makes_it_worse(metric, nets, model_of, scored):
    """Noise of 0, 1/2, 2 and 50 standard deviations planted into the exact map; 40 draws."""
    net, x, _ = linear(nets, (12, 12))
    net[1].weight.data.abs_()
    repeat = 40
    x = x[:1].abs().expand(repeat, 1, 12, 12)
    exact = net[1].weight.detach().view(1, 1, 12, 12) * x
    noise = nets.noise(repeat, 1, 12, 12, seed=11) * exact[0].std()
    method = metric(infill=BLACK, **({"pieces": 9} if metric is IROF else {}))
    means = [float(scored(method, model_of(net, 2), x, exact + s * noise).values.mean()) for s in (0.0, 0.5, 2.0, 50.0)]
    sign = -1 if method.card.direction == "higher" else 1
    assert np.all(sign * np.diff(means) > 0)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3))
def test_scale_batch_channels_and_axes_do_not_matter(nets, model_of, scored, seed, factor):
    x, maps = nets.noise(2, 2, 6, 9, seed=seed), shuffled((6, 9), seed, 2)
    weight = nets.noise(1, 2, 6, 9, seed=seed + 1)

    class Curved(nn.Module):
        def __init__(self, w):
            super().__init__()
            self.w = nn.Parameter(w)

        def forward(self, v):
            return torch.tanh((self.w * v).flatten(1).sum(1, keepdim=True) / 5)

    for metric in (PixelFlipping(5), SymmetricRelevanceGain(5), RegionPerturbation(6), Selectivity(6)):
        model = model_of(Curved(weight), 2, 2)
        plain = scored(metric, model, x, maps).values
        assert torch.equal(plain, scored(metric, model, x, maps * factor).values)
        assert torch.equal(plain, scored(metric, model, x, torch.cat([maps / 4, 3 * maps / 4], 1)).values)
        assert torch.allclose(plain[:1], scored(metric, model, x[:1], maps[:1]).values, rtol=1e-10)
        turned = scored(metric, model_of(Curved(weight.mT), 2, 2), x.mT, maps.mT).values
        assert torch.allclose(plain, turned, rtol=1e-10)


@pytest.mark.parametrize("metric", ALL)
def test_fills_are_named_and_blank_maps_undefined(metric, nets, model_of, scored):
    net, x, maps = linear(nets, (16, 16))
    maps[1] = 2.0
    score = scored(metric(**({"pieces": 8} if metric is IROF else {})), model_of(net, 2), x, maps)
    assert score.reasons[1] == "the map is constant: it ranks nothing"
    assert list(score.detail["by fill"]) == ["constant 0 (network units)", "mean of the image"]
    assert score.detail["infill"] == "constant 0 (network units)"
    first = score.detail["by fill"]["constant 0 (network units)"]
    assert first == pytest.approx(score.values.tolist(), nan_ok=True)
    bad = {"steps": 1}
    with pytest.raises(BadOption, match="expected at least 2 steps"):
        metric(**bad)


@pytest.mark.parametrize("metric", [RegionPerturbation, Selectivity])
def test_a_block_without_extent(metric):
    with pytest.raises(BadOption, match="expected a block with an edge above 0"):
        metric(block=0.0)
