"""Deletion and insertion against second implementations, closed forms and planted corruption."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.core.errors import BadOption
from pellucid.core.grid import Calibration, Grid
from pellucid.core.infill import Blur, Constant, ItemMean
from pellucid.core.probe import Scene
from pellucid.core.target import ClassScore
from pellucid.metrics.faithfulness.curves import DeletionAUC, InsertionAUC

RANKS = (2, 3)
SHAPE = {2: (8, 10), 3: (4, 6, 5)}
FEW = settings(max_examples=15, deadline=None)


def linear(nets, shape, channels=1, seed=0):
    """``w.x + c`` and its exact map ``w * x`` for a seeded image."""
    net = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(channels * int(np.prod(shape)), 1)), seed)
    x = nets.noise(2, channels, *shape, seed=seed + 7)
    return net, x, net[1].weight.detach().view(1, channels, *shape) * x


def shuffled(shape, seed=0, items=1):
    """A map without ties."""
    generator = torch.Generator().manual_seed(seed)
    n = int(np.prod(shape))
    rows = [torch.randperm(n, generator=generator).double().view(1, *shape) for _ in range(items)]
    return torch.stack(rows)


def area(curve, share):
    return float(sum((share[i + 1] - share[i]) * (curve[i] + curve[i + 1]) / 2 for i in range(len(share) - 1)))


@pytest.mark.parametrize("rank", RANKS)
def test_curves_of_a_linear_score(rank, nets, model_of, scored):
    """Deletion: f0 minus the sum of the largest; insertion: c plus it. The area has both ends."""
    shape = SHAPE[rank]
    net, x, maps = linear(nets, shape)
    d, model = int(np.prod(shape)), model_of(net, rank)
    down = scored(DeletionAUC(d, infill=Constant(0.0), random_orders=0), model, x, maps)
    up = scored(InsertionAUC(d, infill=Constant(0.0), random_orders=0), model, x, maps)
    f0, c = net(x)[:, 0].detach(), float(net[1].bias.detach())
    for i in range(2):
        largest = np.concatenate([[0.0], np.cumsum(np.sort(maps[i].flatten().numpy())[::-1])])
        assert np.allclose(down.detail["curve"][i], float(f0[i]) - largest, rtol=0, atol=1e-10)
        assert np.allclose(up.detail["curve"][i], c + largest, rtol=0, atol=1e-10)
        share = np.linspace(0, 1, d + 1)
        assert float(down.values[i]) == pytest.approx(area(float(f0[i]) - largest, share), abs=1e-10)
        assert float(up.values[i]) == pytest.approx(area(c + largest, share), abs=1e-10)
        assert down.detail["share"] == pytest.approx(share)


@pytest.mark.parametrize("steps", [4, 7, 20])
@pytest.mark.parametrize("rank", RANKS)
def test_deletion_and_insertion_sum_to_both_ends_of_a_linear_score(rank, steps, nets, model_of, scored):
    """del_k + ins_k = f(x) + f(b) for every k and any order."""
    net, x, _ = linear(nets, SHAPE[rank])
    maps, model = shuffled(SHAPE[rank], 3, 2), model_of(net, rank)
    down, up = (
        scored(m(steps, infill=Constant(0.3), random_orders=3), model, x, maps) for m in (DeletionAUC, InsertionAUC)
    )
    ends = (net(x) + net(torch.full_like(x, 0.3)))[:, 0].detach()
    both = torch.tensor(down.detail["curve"]) + torch.tensor(up.detail["curve"])
    assert torch.allclose(both.double(), ends[:, None].expand_as(both), atol=1e-6)
    assert torch.allclose(down.values + up.values, ends, rtol=0, atol=1e-12)
    assert down.detail["random"] == pytest.approx(up.detail["random"], abs=1e-6)  # the same images, read both ways


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("metric", [DeletionAUC, InsertionAUC])
def test_an_order_and_its_reverse_average_to_the_middle_of_a_linear_score(metric, rank, nets, model_of, scored):
    net, x, _ = linear(nets, SHAPE[rank])
    maps, model, method = shuffled(SHAPE[rank], 5, 2), model_of(net, rank), metric(8, infill=Constant(0.0))
    there, back = (scored(method, model, x, m).values for m in (maps, -maps))
    middle = (net(x) + net(x * 0))[:, 0].detach() / 2
    assert torch.allclose((there + back) / 2, middle, rtol=0, atol=1e-12)


def test_random_orders_average_to_the_middle_of_a_linear_score(nets, model_of, scored):
    net, x, maps = linear(nets, (6, 6))
    got = scored(DeletionAUC(6, infill=Constant(0.0), random_orders=300), model_of(net, 2), x, maps)
    spread = maps.flatten(1).std(1).numpy() * 6 / 12**0.5 / 300**0.5  # standard error, the curve's points correlate
    middle = (net(x) + net(x * 0))[:, 0].detach().numpy() / 2
    assert (np.abs(np.array(got.detail["random"]) - middle) < 5 * spread).all()


@pytest.mark.parametrize("steps", [5, 7, 40])
@pytest.mark.parametrize("infill", [Constant(0.4), ItemMean(), Blur(1.0)], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("rank", RANKS)
def test_equal_to_the_second_implementation(rank, infill, steps, nets, model_of, scored, reference):
    """On a nonlinear network of two channels; 7 steps do not divide the voxels."""
    net, shape = nets.classifier(rank), SHAPE[rank]
    x, maps = nets.noise(2, 2, *shape), shuffled(shape, 2, 2)
    model, fill = model_of(net, rank, 2), infill(x, (1.0,) * rank, None)
    counts = [round(i * int(np.prod(shape)) / steps) for i in range(steps + 1)]
    down = scored(DeletionAUC(steps, infill=infill), model, x, maps, target=ClassScore(1))
    up = scored(InsertionAUC(steps, infill=infill), model, x, maps, target=ClassScore(1))
    for i in range(2):
        one = (lambda y: net(y)[:, 1].detach(), x[i : i + 1], fill[i : i + 1], maps[i, 0].numpy(), counts)
        assert float(down.values[i]) == pytest.approx(reference("deletion_auc").deletion_auc(*one), abs=1e-12)
        assert float(up.values[i]) == pytest.approx(reference("insertion_auc").insertion_auc(*one), abs=1e-12)
        assert down.detail["curve"][i] == pytest.approx(list(reference("deletion_auc").deletion_curve(*one)))
        assert up.detail["curve"][i] == pytest.approx(list(reference("insertion_auc").insertion_curve(*one)))


@pytest.mark.parametrize("rank", RANKS)
def test_blocks_are_hidden_whole(rank, nets, model_of, scored, reference):
    """In millimeters: cubes of 4 mm on voxels of 2 mm, ranked by the mean of the map."""
    net, shape = nets.classifier(rank), (4,) * rank
    x, maps = nets.noise(1, 2, *shape), shuffled(shape, 9)
    scene = Scene(grids={"image": Grid.regular(shape, (2.0,) * rank, Calibration.PATIENT)})
    steps, each = 2**rank, 2**rank
    metric = DeletionAUC(steps, block=4.0, infill=Constant(0.0))
    got = scored(metric, model_of(net, rank, 2), x, maps, scene=scene, target=ClassScore(1))
    pool = {2: nn.functional.avg_pool2d, 3: nn.functional.avg_pool3d}[rank]
    means = nn.functional.interpolate(pool(maps, 2), scale_factor=2, mode="nearest")[0, 0].numpy()
    counts = [i * each for i in range(steps + 1)]
    slow = reference("deletion_auc").deletion_auc(lambda y: net(y)[:, 1].detach(), x, x * 0, means, counts)
    assert float(got.values[0]) == pytest.approx(slow, abs=1e-12)


class Threshold(nn.Module):
    """ReLU(sum x - 2)."""

    def forward(self, x):
        return torch.relu(x.flatten(1).sum(1, keepdim=True) - 2)


class Conjunction(nn.Module):
    """x0 x1 + x2, blind to x3."""

    def forward(self, x):
        a, b, c, _ = x.flatten(1).unbind(1)
        return (a * b + c)[:, None]


@pytest.mark.parametrize(
    ("net", "ranking", "deleted", "inserted"),
    [
        (Threshold(), [4, 3, 2, 1], [2, 1, 0, 0, 0], [0, 0, 0, 1, 2]),
        (Threshold(), [1, 2, 3, 4], [2, 1, 0, 0, 0], [0, 0, 0, 1, 2]),
        (Conjunction(), [4, 3, 2, 1], [2, 1, 1, 0, 0], [0, 0, 1, 2, 2]),
        (Conjunction(), [3, 2, 4, 1], [2, 1, 0, 0, 0], [0, 1, 1, 2, 2]),
        (Conjunction(), [1, 2, 3, 4], [2, 2, 1, 0, 0], [0, 0, 1, 1, 2]),
    ],
)
def test_nonlinear_scores_worked_out_by_hand(net, ranking, deleted, inserted, model_of, scored):
    x, maps = torch.ones(1, 1, 2, 2).double(), torch.tensor(ranking).double().view(1, 1, 2, 2)
    for metric, expected in ((DeletionAUC, deleted), (InsertionAUC, inserted)):
        got = scored(metric(4, infill=Constant(0.0), random_orders=0), model_of(net, 2), x, maps)
        assert got.detail["curve"] == [expected]
        assert float(got.values[0]) == pytest.approx((sum(expected) - (expected[0] + expected[-1]) / 2) / 4)


def test_lead_over_random_is_positive_for_the_exact_map_and_negative_for_its_opposite(nets, model_of, scored):
    net, x, maps = linear(nets, (8, 8))
    for metric in (DeletionAUC(8, random_orders=20), InsertionAUC(8, random_orders=20)):
        lead = scored(metric, model_of(net, 2), x, maps).detail["lead over random"]
        assert min(lead) > 0.1
        assert max(scored(metric, model_of(net, 2), x, -maps).detail["lead over random"]) < -0.1


@pytest.mark.parametrize(("metric", "sign"), [(DeletionAUC, 1), (InsertionAUC, -1)])
def test_the_more_a_map_is_corrupted_the_worse_it_scores(metric, sign, nets, model_of, scored):
    """Noise of 0, 1/2, 2 and 50 standard deviations planted into the exact map; 40 draws, same model."""
    net, x, maps = linear(nets, (12, 12))
    repeat, model = 40, model_of(net, 2)
    xs, exact = x[:1].expand(repeat, 1, 12, 12), maps[:1].expand(repeat, 1, 12, 12)
    noise = nets.noise(repeat, 1, 12, 12, seed=11) * maps[0].std()
    method = metric(12, infill=Constant(0.0), random_orders=0)
    means = [float(scored(method, model, xs, exact + s * noise).values.mean()) for s in (0.0, 0.5, 2.0, 50.0)]
    assert np.all(sign * np.diff(means) > 0)
    middle = float((net(x) + net(x * 0))[0, 0].detach()) / 2
    assert means[-1] == pytest.approx(middle, abs=0.1 * abs(means[0] - middle))


@pytest.fixture(scope="module")
def pair(nets, model_of, scored):
    """Both metrics on a nonlinear network: ``pair(maps)`` for two images of 6 x 6, two channels."""
    net = nets.classifier(2)
    model, x = model_of(net, 2, 2), nets.noise(2, 2, 6, 6)

    def run(maps, items=slice(None)):
        metrics = [m(9, infill=Constant(0.1), random_orders=0) for m in (DeletionAUC, InsertionAUC)]
        return torch.stack([scored(m, model, x[items], maps[items], target=ClassScore(1)).values for m in metrics])

    return run


@FEW
@given(seed=st.integers(0, 10**6), factor=st.floats(1e-6, 1e6), shift=st.sampled_from([0.0, -10.0, 10.0]))
def test_only_the_order_of_the_map_counts(pair, seed, factor, shift):
    maps = shuffled((6, 6), seed, 2)
    assert torch.equal(pair(maps), pair(factor * (maps + shift)))


@FEW
@given(seed=st.integers(0, 10**6))
def test_an_item_alone_and_a_map_spread_over_channels_score_the_same(pair, seed):
    maps = shuffled((6, 6), seed, 2)
    together = pair(maps)
    assert torch.equal(together, pair(torch.cat([maps / 4, 3 * maps / 4], 1)))
    for i in range(2):
        assert torch.allclose(together[:, i : i + 1], pair(maps, slice(i, i + 1)), rtol=1e-12)


@FEW
@given(seed=st.integers(0, 10**6), rank=st.sampled_from(RANKS), data=st.data())
def test_axes_may_be_permuted(nets, model_of, scored, seed, rank, data):
    """Image, map and model turned alike score the same, in 2-D and 3-D."""
    shape = (3, 4, 2)[:rank]
    order = data.draw(st.permutations(range(rank)))
    axes = (0, 1, *(a + 2 for a in order))
    weight, x, maps = (
        nets.noise(1, 2, *shape, seed=seed),
        nets.noise(1, 2, *shape, seed=seed + 1),
        shuffled(shape, seed),
    )

    class Curved(nn.Module):
        def __init__(self, w):
            super().__init__()
            self.w = nn.Parameter(w)

        def forward(self, v):
            return torch.tanh((self.w * v).flatten(1).sum(1, keepdim=True))

    for metric in (DeletionAUC(5, random_orders=0), InsertionAUC(5, random_orders=0)):
        plain = scored(metric, model_of(Curved(weight), rank, 2), x, maps).values
        turned = scored(
            metric, model_of(Curved(weight.permute(axes)), rank, 2), x.permute(axes), maps.permute(axes)
        ).values
        assert torch.allclose(plain, turned, rtol=1e-12)


@FEW
@given(seed=st.integers(0, 10**6))
def test_tied_voxels_of_equal_effect_may_change_places(nets, model_of, scored, seed):
    """Where tied voxels matter alike, their order cannot."""
    levels = torch.randint(0, 4, (36,), generator=torch.Generator().manual_seed(seed)).double()
    levels[:2] = torch.tensor([0.0, 3.0])
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 1)).double()
    order = torch.randperm(36, generator=torch.Generator().manual_seed(seed + 1))
    found = []
    for level in (levels, levels[order]):
        net[1].weight.data[0] = level
        x = torch.ones(1, 1, 6, 6, dtype=torch.float64)
        found.append(
            scored(
                DeletionAUC(12, infill=Constant(0.0), random_orders=0), model_of(net, 2), x, level.view(1, 1, 6, 6)
            ).values
        )
    assert torch.allclose(*found, rtol=1e-12)


def test_same_seed_same_random_orders(nets, model_of, scored):
    net, x, maps = linear(nets, (6, 6))
    metric, model = DeletionAUC(6), model_of(net, 2)
    first, again, other = (scored(metric, model, x, maps, scene=Scene(seed=s)) for s in (1, 1, 2))
    assert first.detail == again.detail
    assert first.detail["random"] != other.detail["random"]
    assert torch.equal(first.values, other.values)


def test_the_fill_and_the_unit_are_named(nets, model_of, scored):
    net, x, maps = linear(nets, (6, 6))
    detail = scored(InsertionAUC(6, infill=Blur(2.0)), model_of(net, 2), x, maps).detail
    assert (detail["infill"], detail["unit"]) == ("blur, sigma 2", "logit")


@pytest.mark.parametrize("metric", [DeletionAUC, InsertionAUC])
@pytest.mark.parametrize(("steps", "orders"), [(1, 2), (0, 2), (5, -1)])
def test_options_outside_their_range(metric, steps, orders):
    with pytest.raises(BadOption, match=r"expected at least 2 steps .* 20 steps and 2 orders are the defaults"):
        metric(steps, random_orders=orders)
