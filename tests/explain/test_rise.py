"""RISE against a second implementation, closed forms, an enumeration, and on real images."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.errors import BadOption
from pellucid.core.grid import Calibration, Grid
from pellucid.core.infill import Constant
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.rise import RISE, reliability_of
from pellucid.explain.softmasks import Drawn, SoftMasks, cubic_spline
from pellucid.explain.tally import Tally

RANKS = (2, 3)
PLAIN = {"reliability": None, "reduce_variance": False, "infill": Constant(0.3)}


def drawn_masks(method, grid, seed=0):
    """Every mask of a method, in its order."""
    rounds = list(method._rounds(method.family(grid), seed))
    return [(b.numpy(), s.numpy()) for d in rounds for b, s in zip(d.bits, d.shifts, strict=True)]


def blurred(values, family):
    """Over all masks, Cov(f, m_i) / (shown (1 - shown)) of f = sum of values times mask."""
    for axis, (n, c) in enumerate(zip(family.shape, family.cell, strict=True)):
        line = torch.arange(n).double()
        kernel = cubic_spline((line[:, None] - line) / c)
        values = (values.movedim(axis, -1) @ kernel).movedim(-1, axis)
    return values


class Weighted(nn.Module):
    """f = sum of w x + b."""

    def __init__(self, weight, bias=2.0):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def forward(self, x):
        return (self.weight * x).flatten(1).sum(1, keepdim=True) + self.bias


@pytest.mark.parametrize("estimator", ["ratio", "slope"])
@pytest.mark.parametrize("kind", ["classification", "segmentation", "two-images", "image-and-vector"])
@pytest.mark.parametrize("rank", RANKS)
def test_equal_to_the_second_implementation(kind, rank, estimator, subject, explained, reference):
    s = subject(kind, rank)
    method = RISE(masks=32, cell=2.5, estimator=estimator, **PLAIN)
    answer = explained(method, s.model, s.inputs, s.target, s.scene)
    primary = s.model.primary
    grid = Grid.regular(s.inputs[primary].shape[2:])
    family, second = method.family(grid), reference("rise")
    masks = [second.soft_mask(b, u, family.cell, grid.shape) for b, u in drawn_masks(method, grid)]
    for i in range(2):
        item = s.item(i)

        def score(masked, item=item):  # every image of this shape is hidden by the same mask
            mask = (masked - 0.3) / (item[primary] - 0.3)
            mask = mask[:, :1]
            moved = {n: mask * x + (1 - mask) * 0.3 if x.shape[2:] == mask.shape[2:] else x for n, x in item.items()}
            return s.score(moved).detach()

        slow = second.rise(score, item[primary], 0.3, [torch.from_numpy(m) for m in masks], estimator, family.variance)
        assert np.allclose(answer.maps[primary][i, 0], slow, rtol=1e-8, atol=1e-9)


def test_every_mask_has_a_shift_of_its_own():
    """B21: a peer crops all masks of a batch at one place."""
    shifts = [tuple(s) for _, s in drawn_masks(RISE(masks=64), Grid.regular((16, 16)))]
    assert len(set(shifts)) == 32  # a mask and its opposite share one


@pytest.mark.parametrize("estimator", ["ratio", "slope"])
@pytest.mark.parametrize("reduce", [True, False])
def test_a_constant_score_gives_exactly_zero_and_is_told(reduce, estimator, nets, model_of, explained):
    net, x = Weighted(torch.zeros(1, 1, 8, 8).double(), 0.7), nets.noise(2, 1, 8, 8)
    method = RISE(masks=64, estimator=estimator, reduce_variance=reduce)
    answer = explained(method, model_of(net, 2, channels=(1,)), x, ClassScore(0))
    assert bool((answer.maps["image"] == 0).all())
    assert any("taken off: 0.7, 0.7" in w for w in answer.warnings) == (estimator == "ratio")
    assert float(answer.error["image"].max()) == 0
    assert "reliability 1.00 after 64 masks" in answer.warnings[-1]


@pytest.mark.parametrize("rank", RANKS)
def test_a_linear_score_gives_the_blurred_weights(rank, nets, model_of, explained):
    shape = (12, 9, 10)[:rank]
    net, x = Weighted(nets.noise(1, 1, *shape, seed=3)), nets.noise(1, 1, *shape)
    model, terms = model_of(net, rank, channels=(1,)), (net.weight.detach() * x)[0, 0]
    for estimator in ("ratio", "slope"):
        method = RISE(masks=4096, reliability=None, cell=4.0, estimator=estimator, infill=Constant(0.0))
        smooth = blurred(terms, method.family(Grid.regular(shape)))
        truth = 0.5 * smooth if estimator == "ratio" else smooth / (2 / 3) ** rank
        answer = explained(method, model, x, ClassScore(0))
        away = answer.maps["image"][0, 0] - truth
        assert float(away.norm() / (truth - truth.mean()).norm()) < 0.08
        # four streams tell the error to about a factor of two
        assert 0.5 < float(answer.error["image"].norm() / away.norm()) < 2


def test_the_control_variate_lowers_the_error_of_a_score_that_is_linear(nets, model_of, explained):
    shape = (16, 16)
    net, x = Weighted(nets.noise(1, 1, *shape, seed=3)), nets.noise(1, 1, *shape)
    truth = blurred((net.weight.detach() * x)[0, 0], RISE(cell=5.0).family(Grid.regular(shape))) / (2 / 3) ** 2

    def error(reduce, seed):
        method = RISE(256, None, 5.0, estimator="slope", reduce_variance=reduce, infill=Constant(0.0))
        maps = explained(method, model_of(net, 2, channels=(1,)), x, ClassScore(0), Scene(seed=seed)).maps["image"]
        return float((maps[0, 0] - truth).norm())

    assert sum(error(True, s) for s in range(3)) < 0.8 * sum(error(False, s) for s in range(3))


@pytest.mark.parametrize("estimator", ["ratio", "slope"])
def test_all_masks_of_a_grid_of_two_by_two(estimator, nets):
    """At shift 0, with a cell as wide as the image less a voxel, four nodes matter: 16 masks are the expectation."""
    family = SoftMasks((4, 4), (3.0, 3.0))
    bits = torch.zeros(16, *family.nodes, dtype=torch.bool)
    bits[:, :2, :2] = torch.tensor(list(product((False, True), repeat=4))).view(16, 2, 2)
    drawn = Drawn(family, bits, torch.zeros(16, 2).double(), torch.zeros(16, dtype=torch.long))
    keeps = drawn.full(torch.zeros(1).double())
    weight = nets.noise(4, 4)
    scores = (keeps * weight).flatten(1).sum(1)[:, None] ** 2 + 1
    tally = Tally(family, torch.ones(1).double(), 1, linear=False)
    tally.add(drawn, keeps, scores[None])
    values = tally.estimate(True, estimator).effect[0, 0]
    expected = torch.zeros(4, 4).double()
    for i, j in product(range(4), repeat=2):
        m, f = keeps[:, i, j], scores[:, 0]
        covariance = (f * m).mean() - f.mean() * m.mean()
        expected[i, j] = covariance / (m.mean() if estimator == "ratio" else family.variance)
    assert torch.allclose(values, expected, atol=1e-10)
    assert torch.allclose(keeps.mean(0), torch.full((4, 4), 0.5).double())


@pytest.mark.parametrize("rank", RANKS)
def test_what_is_known_of_the_masks_without_drawing_one(rank):
    family = SoftMasks((9, 7, 8)[:rank], (3.0, 2.5, 4.0)[:rank], 0.4)
    points = torch.rand(40000, family.dimensions, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn, like = family.draw(points), torch.zeros(1).double()
    full, fine, blocks = drawn.full(like).flatten(1), drawn.fine(like), drawn.block_means(like)
    assert float((full.mean(0) - 0.4).abs().max()) < 0.01
    assert float((full.var(0) / family.variance - 1).abs().max()) < 0.05
    found = (blocks - blocks.mean(0)).T @ (fine - fine.mean(0)) / len(points)
    assert float((found - family.covariance).abs().max()) < 0.02 * 0.24
    assert bool(((full >= 0) & (full <= 1 + 1e-12)).all())


def test_cells_are_lengths_not_voxels():
    grid = Grid.regular((10, 40, 40), (5.0, 1.0, 1.0), Calibration.PATIENT)
    assert RISE(cell=10.0).family(grid).cell == pytest.approx((2.0, 10.0, 10.0))
    assert RISE(cell=2.0).family(grid).cell == pytest.approx((1.0, 2.0, 2.0))  # never less than a voxel


def test_reliability_is_that_of_spearman_and_brown():
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(1, 1, 4000, generator=generator)
    maps = signal + torch.randn(4, 1, 4000, generator=generator)
    reliability = float(reliability_of(maps))  # two streams agree to 1/2, so four have 4 (1/2) / (1 + 3/2)
    assert reliability == pytest.approx(0.8, abs=0.03)
    true = float(torch.corrcoef(torch.stack([maps.mean(0)[0], signal[0, 0]]))[0, 1])
    assert true**2 == pytest.approx(reliability, abs=0.03)
    assert float(reliability_of(torch.ones(4, 1, 9))) == 1
    lucky = torch.stack([signal, signal, -signal, torch.randn(1, 1, 4000, generator=generator)])
    assert float(reliability_of(lucky)) == 0  # two that agree are no evidence where two do not
    assert float(reliability_of(torch.randn(4, 1, 9999, generator=generator))) < 0.1


def test_it_stops_when_it_is_reliable_and_says_so(subject, explained):
    s = subject("classification", 2)
    method = RISE(masks=4096, reliability=0.5, infill=Constant(0.0))
    probe = Probe(s.model, s.inputs, s.target)
    answer = method(probe)
    assert probe.spent.own.forwards < method.cost(probe).forwards * 2
    assert answer.warnings[-1].startswith("reliability 0.")
    for i in range(2):  # an item that is reliable keeps its map while another goes on
        alone = explained(method, s.model, s.item(i), s.target)
        assert torch.allclose(alone.maps["image"], answer.maps["image"][i : i + 1], atol=1e-10)
    short = explained(RISE(masks=32, reliability=0.99, infill=Constant(0.0)), s.model, s.inputs, s.target)
    assert "after all 32 masks, 0.99 was asked" in short.warnings[-1]


def test_two_fills_are_averaged_and_their_spread_is_told(nets, model_of, explained):
    net, x = Weighted(torch.ones(1, 1, 8, 8).double()), nets.noise(1, 1, 8, 8) + 3
    model, scene = model_of(net, 2, channels=(1,)), Scene(infills=(Constant(0.0), Constant(6.0)))
    method = {"masks": 64, "reliability": None, "reduce_variance": False}  # what depends on agreement is not linear
    both = explained(RISE(**method), model, x, ClassScore(0), scene)
    apart = [explained(RISE(**method, infill=f), model, x, ClassScore(0)).maps["image"] for f in scene.infills]
    assert torch.allclose(both.maps["image"], (apart[0] + apart[1]) / 2, atol=1e-9)
    assert "differ by up to" in both.warnings[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_decides(seed, subject, explained):
    s, method = subject("classification", 2), RISE(masks=64, reliability=None)
    first, second, other = (
        explained(method, s.model, s.inputs, s.target, Scene(seed=k)).maps["image"] for k in (seed, seed, seed + 7)
    )
    assert torch.equal(first, second)
    assert not torch.allclose(first, other, rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"masks": 100}, "expected a multiple of 8 masks"),
        ({"masks": 8}, "at least 32"),
        ({"reliability": 1.0}, "expected a reliability between 0 and 1"),
        ({"shown": 0.0}, "expected a shown between 0 and 1"),
        ({"cell": 0.0}, "expected a positive cell"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(BadOption, match=words):
        RISE(**settings)


def test_too_many_nodes_are_refused(nets, model_of, explained):
    net, x = Weighted(torch.zeros(1, 1, 160, 160).double()), nets.noise(1, 1, 160, 160)
    with pytest.raises(BadOption, match="take larger cells"):
        explained(RISE(cell=1.0), model_of(net, 2, channels=(1,)), x, ClassScore(0))
