"""Parts hidden at random, singly or shown in turn; what is left of the score; the sum that is promised."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.core.errors import BadOption
from pellucid.core.explanation import Attribution
from pellucid.core.infill import Constant, ItemMean
from pellucid.core.probe import Probe
from pellucid.core.sweep import Sweep
from pellucid.core.target import ClassScore
from pellucid.core.units import tiles
from pellucid.explain.gradient import Saliency
from pellucid.explain.path import IntegratedGradients
from pellucid.metrics.faithfulness.completeness import CompletenessGap
from pellucid.metrics.faithfulness.curves import InsertionAUC
from pellucid.metrics.faithfulness.shown import AverageDrop, AverageIncrease, Sufficiency
from pellucid.metrics.faithfulness.singles import FaithfulnessEstimate, Monotonicity
from pellucid.metrics.faithfulness.subsets import FaithfulnessCorrelation, SensitivityN, bank

RANKS = (2, 3)
SHAPE = {2: (8, 10), 3: (4, 6, 5)}
BLACK, GRAY = Constant(0.0), Constant(0.4)
CORRELATIONS = (FaithfulnessCorrelation, SensitivityN, FaithfulnessEstimate)
ALL = (*CORRELATIONS, Monotonicity, Sufficiency, AverageDrop, AverageIncrease)


def linear(nets, shape, seed=0, positive=False):
    """``w.x + c`` and its exact map ``w * x`` for two seeded images."""
    net = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 1)), seed)
    x = nets.noise(2, 1, *shape, seed=seed + 7)
    if positive:
        net[1].weight.data.abs_()
        x = x.abs()
    return net, x, net[1].weight.detach().view(1, 1, *shape) * x


@pytest.mark.parametrize("fill", [0.0, 0.7])
@pytest.mark.parametrize("rank", RANKS)
def test_exact_contributions_to_a_linear_score_correlate_perfectly(rank, fill, nets, model_of, scored):
    """``w * (x - b)`` scores 1 and its opposite -1, whatever the size of the subsets; single voxels too."""
    net, x, _ = linear(nets, SHAPE[rank])
    maps, model = net[1].weight.detach().view(1, 1, *SHAPE[rank]) * (x - fill), model_of(net, rank)
    for metric in (*(m(infill=Constant(fill)) for m in CORRELATIONS), FaithfulnessEstimate(10, infill=Constant(fill))):
        assert scored(metric, model, x, maps).values.tolist() == pytest.approx([1, 1], abs=1e-9)
        assert scored(metric, model, x, -5 * maps).values.tolist() == pytest.approx([-1, -1], abs=1e-9)
    sizes = scored(SensitivityN(infill=Constant(fill)), model, x, maps).detail["by size"]
    assert np.allclose(sizes, 1, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rank", RANKS)
def test_a_growing_linear_score_is_monotone_and_loses_by_known_shares(rank, nets, model_of, scored):
    net, x, maps = linear(nets, SHAPE[rank], positive=True)
    model, d = model_of(net, rank), int(np.prod(SHAPE[rank]))
    assert scored(Monotonicity(infill=BLACK), model, x, maps).values.tolist() == [1, 1]
    sufficient = scored(Sufficiency(infill=BLACK), model, x, maps)
    dropped = scored(AverageDrop(infill=BLACK), model, x, maps)
    for i in range(2):
        a = np.sort(maps[i].flatten().numpy())[::-1]
        falls = [a.sum() - a[: round(p * d / 20)].sum() for p in (1, 2, 4, 10)]
        assert float(sufficient.values[i]) == pytest.approx(np.mean(falls), abs=1e-10)
        assert float(dropped.values[i]) == pytest.approx(1 - (a * a / a.max()).sum() / a.sum(), abs=1e-10)
    assert scored(AverageIncrease(infill=BLACK), model, x, maps).values.tolist() == [0, 0]


@pytest.mark.parametrize("infill", [GRAY, ItemMean()], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("rank", RANKS)
def test_equal_to_the_second_implementations(rank, infill, nets, model_of, scored, reference):
    """On a nonlinear network of two channels."""
    net, shape = nets.classifier(rank), SHAPE[rank]
    x, maps = nets.noise(2, 2, *shape), nets.noise(2, 1, *shape, seed=5)
    fill, model, d = infill(x, (1.0,) * rank, None), model_of(net, rank, 2), int(np.prod(shape))
    labels = tiles(shape, [3] * rank).labels.numpy()
    count = 3**rank
    chosen = {n: [torch.nonzero(s).flatten().tolist() for s in bank(count, n, 12, 0)] for n in range(1, count)}
    sizes = [max(1, round(count * i / 3)) for i in (1, 2)]
    runs = {
        "faithfulness_correlation": (
            FaithfulnessCorrelation(3, 12, 0.4, infill=infill),
            (labels, chosen[round(0.4 * count)]),
        ),
        "sensitivity_n": (SensitivityN(3, 2, 12, infill=infill), (labels, [chosen[n] for n in sizes])),
        "faithfulness_estimate": (FaithfulnessEstimate(3, infill=infill), (labels,)),
        "monotonicity": (Monotonicity(3, infill=infill), (labels,)),
        "sufficiency": (Sufficiency(infill=infill), ([round(p * d / 20) for p in (1, 2, 4, 10)],)),
        "average_drop": (AverageDrop(infill=infill), ()),
        "average_increase": (AverageIncrease(infill=infill), ()),
    }
    for name, (metric, extra) in runs.items():
        got = scored(metric, model, x, maps)
        for i in range(2):
            one = (lambda y: net(y)[:, 0].detach(), x[i : i + 1], fill[i : i + 1], maps[i, 0].numpy(), *extra)
            if got.reasons and got.reasons[i]:
                assert float(one[0](one[1])[0]) <= float(one[0](one[2])[0])
            else:
                assert float(got.values[i]) == pytest.approx(getattr(reference(name), name)(*one), abs=1e-9), name


class Conjunction(nn.Module):
    """x0 x1 + x2, blind to x3."""

    def forward(self, x):
        a, b, c, _ = x.flatten(1).unbind(1)
        return (a * b + c)[:, None]


def test_a_nonlinear_score_worked_out_by_hand(model_of, scored):
    """Alone, x0, x1 and x2 each take 1 away: the map (1, 1, 1, 0) is exact, the Shapley map (.5, .5, 1, 0) is not."""
    x, model = torch.ones(1, 1, 2, 2).double(), model_of(Conjunction(), 2)

    def value(metric, *levels):
        return float(scored(metric, model, x, torch.tensor(levels).double().view(1, 1, 2, 2)).values)

    single = FaithfulnessEstimate(2, infill=BLACK)
    assert value(single, 1, 1, 1, 0) == pytest.approx(1)
    assert value(single, 0.5, 0.5, 1, 0) == pytest.approx(np.corrcoef([0.5, 0.5, 1, 0], [1, 1, 1, 0])[0, 1])
    assert value(Monotonicity(2, infill=BLACK), 0.5, 0.5, 1, 0) == 1
    # of four voxels 0, 0, 1 and 2 are shown
    falls = [2 - [0, 1, 1, 2, 2][round(p * 4 / 20)] for p in (1, 2, 4, 10)]
    assert value(Sufficiency(infill=BLACK), 0.6, 0.5, 1, 0) == pytest.approx(np.mean([2, 2, falls[2], 1]))
    assert value(AverageDrop(infill=BLACK), 0.5, 0.5, 1, 0) == pytest.approx((2 - 1.25) / 2)


def test_monotonicity_is_not_vacuous(nets, model_of, scored):
    """Quantus adds the fill to the fill, so that every map scores True; here a wrong order fails."""

    class Bump(nn.Module):
        def forward(self, v):
            total = v.flatten(1).sum(1, keepdim=True)
            return total - 0.1 * total.square()

    x = torch.full((1, 1, 4, 4), 0.5).double()
    x[..., 0] = 3.0
    maps = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    score = scored(Monotonicity(4, infill=BLACK), model_of(Bump(), 2), x, maps)
    assert 0 < float(score.values) < 1
    curve = np.array(score.detail["curve"][0])
    assert curve.std() > 0
    assert float(score.values) == np.mean(np.diff(curve) >= 0)


@pytest.mark.parametrize("metric", ALL)
def test_an_item_scores_the_same_in_any_batch(metric, nets, model_of, scored):
    """Quantus correlates across the first batch only (SensitivityN) or compares within it (Sufficiency)."""
    net, x, maps = nets.classifier(2), nets.noise(5, 2, 8, 8), nets.noise(5, 1, 8, 8, seed=3)
    model = model_of(net, 2, 2)
    whole = scored(metric(), model, x, maps)
    assert len(whole.values) == 5
    for part in (slice(0, 2), slice(2, 5), slice(4, 5)):
        values = scored(metric(), model, x[part], maps[part]).values
        assert torch.allclose(values, whole.values[part], rtol=1e-9, equal_nan=True)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3))
def test_scale_channels_and_axes_do_not_matter(nets, model_of, scored, seed, factor):
    x, maps, weight = (nets.noise(2, c, 6, 9, seed=seed + i) for i, c in enumerate((2, 1, 2)))
    weight = weight[:1]

    class Curved(nn.Module):
        def __init__(self, w):
            super().__init__()
            self.w = nn.Parameter(w)

        def forward(self, v):
            return torch.tanh((self.w * v).flatten(1).sum(1, keepdim=True) / 5)

    model, turned = model_of(Curved(weight), 2, 2), model_of(Curved(weight.mT), 2, 2)
    for metric in (m() for m in ALL):
        plain = scored(metric, model, x, maps).values
        for same in (maps * factor, torch.cat([maps / 4, 3 * maps / 4], 1)):
            assert torch.allclose(plain, scored(metric, model, x, same).values, rtol=1e-8, equal_nan=True)
        if not metric.card.stochastic:  # subsets are drawn in the order of the axes
            swapped = scored(metric, turned, x.mT, maps.mT).values
            assert torch.allclose(plain, swapped, rtol=1e-8, equal_nan=True)


@pytest.mark.parametrize("metric", [*CORRELATIONS, Sufficiency])
def test_corruption_makes_it_worse(metric, nets, model_of, scored):
    """Noise of 0, 1/2, 2 and 50 standard deviations planted into the exact map; 40 draws."""
    net, x, _ = linear(nets, (12, 12), positive=True)
    repeat = 40
    x = x[:1].expand(repeat, 1, 12, 12)
    exact = net[1].weight.detach().view(1, 1, 12, 12) * x
    noise = nets.noise(repeat, 1, 12, 12, seed=11) * exact[0].std()
    model, method = model_of(net, 2), metric(infill=BLACK)
    means = [float(scored(method, model, x, exact + s * noise).values.mean()) for s in (0.0, 0.5, 2.0, 50.0)]
    sign = -1 if method.card.direction == "higher" else 1
    assert np.all(sign * np.diff(means) > 0)


class Gated(nn.Module):
    """The evidence counts less the more of the first column is seen: what is strong there lowers the score."""

    def forward(self, v):
        return (v[..., 1:].flatten(1).sum(1) / (1 + v[..., 0].flatten(1).sum(1)))[:, None]


def test_corruption_makes_monotonicity_worse(nets, model_of, scored):
    """The right order shows the column that gates first, by magnitude the least; noise moves it to where it hurts."""
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(3)).double() + 0.5
    right = x.clone()
    right[..., 0] *= 0.01
    noise, model = nets.noise(40, 1, 8, 8, seed=4), model_of(Gated(), 2)
    means = [
        float(scored(Monotonicity(infill=BLACK), model, x, right + s * noise).values.mean()) for s in (0, 0.5, 2, 50)
    ]
    assert means[0] == 1
    assert np.all(np.diff(means[:3]) < 0)
    assert means[3] < means[1]


def test_what_is_shared_is_evaluated_once(nets, model_of):
    """Both correlations read one bank, sufficiency reads the insertion curve, drop and increase the same two."""
    net, x, maps = nets.classifier(2), nets.noise(2, 2, 16, 16), nets.noise(2, 1, 16, 16, seed=4)
    metrics = [FaithfulnessCorrelation(subsets=60), SensitivityN(subsets=40), InsertionAUC(random_orders=0)]
    metrics += [Sufficiency(), AverageDrop(), AverageIncrease()]
    answer = Attribution({"image": maps}, "logit", signed=True)
    probe = Probe(model_of(net, 2, 2), x, ClassScore(0))
    together = Sweep(probe, Saliency(), [m.asking(probe, answer, Saliency(), None) for m in metrics])
    # 40 subsets for each of four sizes, 20 more of one of them; 20 points of the curve, the weighted image
    assert together.cost.forwards == 2 * (4 * 40 + 20 + 20 + 1)
    for metric, score in zip(metrics, together.run(), strict=True):
        alone = metric(Probe(model_of(net, 2, 2), x, ClassScore(0)), answer, Saliency(), None)
        assert torch.allclose(score.values, alone.values, rtol=1e-5, equal_nan=True)


def test_a_map_of_the_wrong_part_loses_more(nets, model_of, scored):
    """As the marked part moves away from the evidence, the weighted image loses more of its score."""
    x, model = torch.ones(1, 1, 12, 12).double(), nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 1)))
    model[1].weight.data.zero_().view(12, 12)[:, :4] = 1
    maps = torch.zeros(1, 1, 12, 12).double()
    maps[..., :4] = 1
    lost = [
        float(scored(AverageDrop(infill=BLACK), model_of(model, 2), x, maps.roll(s, 3)).values) for s in (0, 1, 2, 4)
    ]
    assert lost == pytest.approx([0, 0.25, 0.5, 1])


def test_the_bank_is_nested():
    small, large, more = bank(20, 4, 6, 1), bank(20, 9, 6, 1), bank(20, 4, 9, 1)
    assert (small.sum(1) == 4).all()
    assert (large >= small).all()
    assert torch.equal(more[:6], small)
    assert not torch.equal(small, bank(20, 4, 6, 2))


@pytest.mark.parametrize("metric", ALL)
def test_fills_are_named_and_what_is_undefined_says_why(metric, nets, model_of, scored):
    net, x, maps = nets.classifier(2), nets.noise(2, 2, 8, 8), nets.noise(2, 1, 8, 8, seed=3)
    maps[1] = 2.0
    score = scored(metric(), model_of(net, 2, 2), x, maps)
    assert score.reasons[1] == "the map is constant: it ranks nothing"
    assert list(score.detail["by fill"]) == ["constant 0 (network units)", "mean of the image"]

    class Blind(nn.Module):
        def forward(self, v):
            return v.flatten(1)[:, :1] * 0 + 1

    if metric in CORRELATIONS:
        reasons = scored(metric(), model_of(Blind(), 2, 2), x, nets.noise(2, 1, 8, 8)).reasons
        assert set(reasons) == {"hiding parts leaves the score as it is, or changes it by the same amount each time"}
    if metric is AverageDrop:
        assert "scores no higher than the fill" in scored(metric(), model_of(Blind(), 2, 2), x, -x[:, :1]).reasons[0]
    if metric in (AverageDrop, AverageIncrease):
        speaks = scored(metric(), model_of(net, 2, 2), x, -maps.abs() - torch.rand(1, 1, 8, 8).double()).reasons
        assert speaks[0] == "the map has no evidence for the target"


def test_the_score_rises_where_what_is_left_out_speaks_against(nets, model_of, scored):
    net, x, maps = linear(nets, (6, 6))
    values = scored(AverageIncrease(infill=BLACK), model_of(net, 2), x, (maps > 0).double())
    assert values.values.tolist() == [1, 1]
    dropped = scored(AverageDrop(infill=BLACK), model_of(net, 2), x, (maps > 0).double())
    assert dropped.values.nan_to_num(0.0).tolist() == [0, 0]


def test_the_gap_of_a_method_that_promises_a_sum(nets, model_of, reference):
    net, x = nets.classifier(2), nets.noise(2, 2, 8, 8)
    method = IntegratedGradients(4, BLACK)
    probe = Probe(model_of(net, 2, 2), x, ClassScore(1), method.needs(model_of(net, 2, 2), {"image": x}))
    answer = method(probe)
    score = CompletenessGap()(probe, answer, method, None)
    ends = net(x)[:, 1].detach(), net(x * 0)[:, 1].detach()
    for i in range(2):
        slow = reference("completeness_gap").completeness_gap(answer.maps["image"][i].numpy(), ends[0][i], ends[1][i])
        assert float(score.values[i]) == pytest.approx(slow, rel=1e-6)
    assert float(score.values.min()) > 0
    none = CompletenessGap()(probe, Attribution(answer.maps, "logit", signed=True), Saliency(), None)
    assert none.reasons == ("the method does not promise a sum",) * 2


@pytest.mark.parametrize(
    ("metric", "options"),
    [
        (FaithfulnessEstimate, {"along": 1}),
        (FaithfulnessCorrelation, {"subsets": 2}),
        (FaithfulnessCorrelation, {"share": 1.0}),
        (SensitivityN, {"sizes": 0}),
    ],
)
def test_options_outside_their_range(metric, options):
    with pytest.raises(BadOption, match="expected at least"):
        metric(**options)
