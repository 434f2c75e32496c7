"""Areas in shares of the score's change: exact on linear scores, without a unit, and at no cost of their own."""

from math import isfinite

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.errors import BadOption
from pellucid.core.explanation import Attribution
from pellucid.core.infill import Constant
from pellucid.core.probe import Probe, Scene
from pellucid.core.sweep import Sweep
from pellucid.core.target import ClassScore
from pellucid.explain.gradient import Saliency
from pellucid.metrics.faithfulness.curves import DeletionAUC, InsertionAUC
from pellucid.metrics.faithfulness.normalized import NormalizedDeletionAUC, NormalizedInsertionAUC

BOTH = [NormalizedDeletionAUC, NormalizedInsertionAUC]
SHAPE = {2: (6, 8), 3: (4, 4, 3)}
ZERO = Constant(0.0)


class Sum(nn.Module):
    """``scale * sum(w x) + shift``."""

    def __init__(self, w, scale=1.0, shift=0.0):
        super().__init__()
        self.w, self.scale, self.shift = w, scale, shift

    def forward(self, x):
        return (self.scale * (self.w * x).flatten(1).sum(1) + self.shift)[:, None]


class Least(nn.Module):
    """The least voxel: one hole takes everything."""

    def forward(self, x):
        return x.flatten(1).amin(1)[:, None]


@pytest.mark.parametrize("rank", [2, 3])
def test_where_all_voxels_weigh_alike_every_order_is_random(rank, model_of, scored):
    shape = SHAPE[rank]
    x, maps = torch.ones(1, 1, *shape).double(), torch.arange(np.prod(shape)).double().view(1, 1, *shape)
    model = model_of(Sum(torch.ones(1, *shape)), rank)
    for kind in BOTH:
        score = scored(kind(infill=ZERO), model, x, maps)
        assert float(score.values[0]) == pytest.approx(0, abs=1e-12)
        assert score.detail["departure"] == pytest.approx([0], abs=1e-12)


@pytest.mark.parametrize("rank", [2, 3])
def test_one_voxel_that_holds_everything(rank, model_of, scored):
    """Hidden first, the score is gone after the first of d steps: half of one step is left of the area."""
    shape, d = SHAPE[rank], int(np.prod(SHAPE[rank]))
    w = torch.zeros(1, *shape).double()
    w.view(-1)[7] = 3.0
    x = torch.ones(1, 1, *shape).double()
    for shift in (0.0, 5.0):
        model = model_of(Sum(w, shift=shift), rank)
        down = scored(NormalizedDeletionAUC("ends", steps=d, infill=ZERO), model, x, w[None])
        up = scored(NormalizedInsertionAUC("ends", steps=d, infill=ZERO), model, x, w[None])
        assert float(down.values[0]) == pytest.approx(1 / (2 * d), abs=1e-12)
        assert float(up.values[0]) == pytest.approx(1 - 1 / (2 * d), abs=1e-12)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("against", ["random", "ends"])
def test_the_unit_of_the_score_does_not_matter(kind, against, nets, model_of, scored):
    x, maps, w = nets.noise(2, 1, 6, 8).abs(), nets.noise(2, 1, 6, 8, seed=3), nets.noise(1, 6, 8, seed=4).abs()
    values = [
        scored(kind(against, infill=ZERO), model_of(Sum(w, scale, shift), 2), x, maps).values
        for scale, shift in ((1.0, 0.0), (7.0, -3.0))
    ]
    assert torch.allclose(values[0], values[1], atol=1e-10)
    assert bool(torch.isfinite(values[0]).all())


@pytest.mark.parametrize("kind", BOTH)
def test_where_the_fill_scores_higher_a_better_map_is_still_better(kind, nets, model_of, scored):
    """The score is below that of the fill: what holds it down least is hidden first by a true map, and rises last."""
    x, w = nets.noise(1, 1, 6, 8).abs() + 1, -(nets.noise(1, 6, 8, seed=4) ** 4)
    maps = {s: s * w[None] * x for s in (1, -1)}
    right, wrong = (float(scored(kind(infill=ZERO), model_of(Sum(w), 2), x, maps[s]).values[0]) for s in (1, -1))
    assert (right < wrong) == (kind is NormalizedDeletionAUC)
    assert right * wrong < 0
    ends = scored(kind("ends", infill=ZERO), model_of(Sum(w), 2), x, maps[1])
    assert ends.reasons == ("the fill scores higher than the image: a share of its fall means nothing",)
    assert bool(torch.isnan(ends.values).all())


@pytest.mark.parametrize("kind", BOTH)
def test_a_true_map_beats_random_and_its_reverse_loses(kind, nets, model_of, scored):
    x, w = nets.noise(1, 1, 6, 8).abs() + 1, nets.noise(1, 6, 8, seed=4) ** 4
    right, wrong = (
        float(scored(kind(infill=ZERO), model_of(Sum(w), 2), x, s * w[None] * x).values[0]) for s in (1, -1)
    )
    good = -1 if kind is NormalizedDeletionAUC else 1
    assert good * right > 0.1
    assert good * wrong < -0.1


def test_random_order_departs_from_the_middle_where_one_hole_takes_everything(model_of, scored):
    x = torch.ones(1, 1, 8, 8).double()
    score = scored(DeletionAUC(16, infill=ZERO), model_of(Least(), 2), x, torch.rand(1, 1, 8, 8).double())
    assert score.detail["departure"][0] == pytest.approx(0.5 - 1 / 32, abs=1e-12)  # only the first trapezoid is left


@pytest.mark.parametrize("kind", BOTH)
def test_beside_its_curve_it_costs_nothing(kind, nets, model_of):
    model = model_of(nets.classifier(2), 2, 2)
    curve = DeletionAUC(8) if kind is NormalizedDeletionAUC else InsertionAUC(8)
    counts = []
    for metrics in ([curve], [curve, kind(steps=8), kind("ends", steps=8)]):
        probe = Probe(model, nets.noise(1, 2, 8, 8), ClassScore(0), Saliency().needs(model, {}), Scene(infills=(ZERO,)))
        answer = Attribution({"image": nets.noise(1, 1, 8, 8, seed=5)}, "logit", True, cell=(1.0, 1.0))
        Sweep(probe, Saliency(), [m.asking(probe, answer, Saliency(), None) for m in metrics]).run()
        counts.append(probe.spent.own.forwards)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("kind", BOTH)
def test_what_is_undefined_says_why(kind, nets, model_of, scored):
    x = nets.noise(2, 1, 6, 8)
    flat = scored(kind(), model_of(Sum(torch.ones(1, 6, 8).double()), 2), x, torch.ones(2, 1, 6, 8).double())
    assert set(flat.reasons) == {"the map is constant: it ranks nothing"}
    assert flat.metric == kind.__name__
    same = scored(kind(infill=ZERO), model_of(Sum(torch.zeros(1, 6, 8).double()), 2), x, nets.noise(2, 1, 6, 8, seed=2))
    assert set(same.reasons) == {"the fill does not change the score"}
    assert bool(torch.isnan(same.values).all())
    with pytest.raises(BadOption, match="random or ends"):
        kind("nothing")
    with pytest.raises(BadOption, match="at least 1 random order"):
        kind(random_orders=0)
    with pytest.raises(BadOption, match="at least 2 steps"):
        kind(steps=1)


@pytest.mark.parametrize("against", ["random", "ends"])
@pytest.mark.parametrize("kind", BOTH)
def test_beside_the_value_stands_the_same_under_the_other_fill(kind, against, nets, model_of):
    """As measured under that fill alone: not the area, which has a unit."""
    model, fills = model_of(nets.classifier(2), 2, 2), (Constant(0.0), Constant(-3.0))
    x, maps = nets.noise(2, 2, 8, 8), nets.noise(2, 1, 8, 8, seed=3)
    probe = Probe(model, x, ClassScore(1), scene=Scene(infills=fills))
    answer = Attribution({"image": maps}, "logit", signed=True)
    both = kind(against, steps=4)(probe, answer, Saliency(), None)
    for fill in fills:
        alone = kind(against, steps=4, infill=fill)(probe, answer, Saliency(), None)
        assert both.detail["by fill"][fill.words] == pytest.approx(alone.values.tolist(), rel=1e-9, nan_ok=True)
    assert both.values.tolist() == pytest.approx(both.detail["by fill"][fills[0].words], nan_ok=True)
    assert both.detail["area by fill"][fills[0].words] == both.detail["area"]
    assert any(isfinite(v) for found in both.detail["by fill"].values() for v in found)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("kind", BOTH)
def test_it_equals_the_second_implementation(kind, rank, nets, model_of, scored, reference):
    net, shape = nets.classifier(rank), SHAPE[rank]
    x, maps, d = nets.noise(2, 2, *shape), nets.noise(2, 1, *shape, seed=5), int(np.prod(SHAPE[rank]))
    counts = [round(point * d / 6) for point in range(7)]
    draw = torch.Generator().manual_seed(0)  # the scene's seed
    drawn = [torch.randperm(d, generator=draw) for _ in range(2)]
    # reversed, an order that shows hides the same
    others = [(o if kind is NormalizedDeletionAUC else o.flip(0)).tolist() for o in drawn]
    name = "normalized_deletion_auc" if kind is NormalizedDeletionAUC else "normalized_insertion_auc"
    slow, zero = getattr(reference(name), name), torch.zeros_like(x[:1])
    for against, orders in (("random", others), ("ends", [])):
        got = scored(kind(against, steps=6, infill=ZERO), model_of(net, rank, 2), x, maps)
        for i in range(2):
            one = slow(lambda y: net(y)[:, 0].detach(), x[i : i + 1], zero, maps[i, 0].numpy(), counts, orders)
            if got.reasons[i]:
                assert against == "ends"
                continue
            assert float(got.values[i]) == pytest.approx(one, abs=1e-9)
