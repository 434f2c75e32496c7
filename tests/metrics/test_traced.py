"""Curves that are asked only where their area can still move: near the whole curve, with fewer forwards."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pellucid.demo
from pellucid.core.card import Cost
from pellucid.core.errors import BadOption
from pellucid.core.explanation import Attribution
from pellucid.core.infill import Constant, ItemMean
from pellucid.core.probe import Probe
from pellucid.core.sweep import Sweep
from pellucid.core.target import ClassScore
from pellucid.explain.gradient import Saliency
from pellucid.io.models import load_model
from pellucid.metrics.faithfulness.curves import DeletionAUC, InsertionAUC
from pellucid.metrics.faithfulness.traced import Trace

STEPS = 128
BLACK = Constant(0.0)


class Bent(nn.Module):
    """A score that falls at once, then slowly: tanh of a multiple of the sum."""

    def forward(self, x):
        return torch.tanh(3 * x.flatten(1).mean(1, keepdim=True))


def order(shape, items=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(int(np.prod(shape)), generator=generator).float() for _ in range(items)]
    return torch.stack(rows).view(items, 1, *shape)


def scored_and_paid(metrics, model, x, maps, target=None):
    probe = Probe(model, x, target or ClassScore(0))
    answer = Attribution({model.primary: maps}, "logit", signed=True)
    sweep = Sweep(probe, Saliency(), [m.asking(probe, answer, Saliency(), None) for m in metrics])
    cost = sweep.cost * len(x)
    return sweep.run(), cost, probe.spent.own


def span(score, item=0):
    return float(np.ptp(score.detail["curve"][item]))


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("made", [DeletionAUC, InsertionAUC])
def test_a_smooth_curve_takes_few_forwards(made, rank, model_of):
    shape = (16, 24) if rank == 2 else (8, 6, 8)
    x, maps = torch.ones(1, 1, *shape), order(shape)
    whole = made(STEPS, infill=BLACK, random_orders=0)
    (exact,), _, all_of_it = scored_and_paid([whole], model_of(Bent(), rank), x, maps)
    (few,), most, paid = scored_and_paid([replace(whole, tolerance=0.005)], model_of(Bent(), rank), x, maps)
    assert abs(float(few.values - exact.values)) <= 0.005 * span(exact)
    assert few.detail["uncertainty"][0] <= 0.005
    assert (all_of_it, most) == (Cost(STEPS), Cost(STEPS))
    assert paid.forwards < STEPS / 4
    closed = np.log(np.cosh(3.0)) / 3  # of the integral of tanh(3 t)
    assert float(exact.values) == pytest.approx(closed, abs=1e-3)


@pytest.fixture(scope="module")
def films(shared_data):
    """The demo's network for pneumonia, taught, and films that it never saw."""
    card = Path(pellucid.demo.__file__).parent / "models" / "pneumonia" / "model.toml"
    loaded = load_model(card).model
    with np.load(shared_data / "xray_pneumoniamnist" / "pneumoniamnist.npz") as data:
        images = data["test_images"][data["test_labels"][:, 0] == 1][200:203]
    return loaded, torch.from_numpy(images).float()[:, None] / 255


def test_jagged_curves_of_a_taught_network(films):
    """Of its own logit on real films: never further off than it says, however jagged they are."""
    model, x = films
    label = next(iter(model.output.operating_point))
    answer = Probe(model, x, ClassScore(label, "head"), Saliency().needs(model, {model.primary: x}))
    maps = Saliency()(answer).maps[model.primary]
    metrics = [m(STEPS, infill=ItemMean(), random_orders=0) for m in (DeletionAUC, InsertionAUC)]
    near = [replace(m, tolerance=0.005) for m in metrics]
    exact, _, all_of_it = scored_and_paid(metrics, model, x, maps, ClassScore(label, "head"))
    few, most, paid = scored_and_paid(near, model, x, maps, ClassScore(label, "head"))
    assert paid.forwards < min(all_of_it.forwards, most.forwards)
    for one, other in zip(few, exact, strict=True):
        for item in range(len(x)):
            off = abs(float(one.values[item] - other.values[item])) / span(other, item)
            assert off <= 0.005
            assert len(one.detail["share"][item]) == len(one.detail["curve"][item]) <= STEPS + 1


def test_an_item_alone_is_refined_as_in_a_batch(model_of, nets):
    model, x, maps = model_of(nets.classifier(2), 2, 2), nets.noise(3, 2, 8, 10), order((8, 10), 3)
    metric = DeletionAUC(64, tolerance=0.01)
    (together,), _, _ = scored_and_paid([metric], model, x, maps)
    for item in range(3):
        one = slice(item, item + 1)
        (alone,), _, _ = scored_and_paid([metric], model, x[one], maps[one])
        assert torch.allclose(alone.values, together.values[one], rtol=1e-6)
        assert alone.detail["share"][0] == together.detail["share"][item]
        assert alone.detail["random"] == pytest.approx(together.detail["random"][one])


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), steps=st.sampled_from([2, 7, 20, 33]))
def test_no_tolerance_to_speak_of_is_the_whole_curve(model_of, nets, seed, steps):
    model, x, maps = model_of(nets.classifier(2), 2, 2), nets.noise(1, 2, 6, 7, seed=seed), order((6, 7), 1, seed)
    exact = InsertionAUC(steps, random_orders=1)
    (whole,), _, _ = scored_and_paid([exact], model, x, maps)
    (fine,), most, paid = scored_and_paid([replace(exact, tolerance=1e-9)], model, x, maps)
    assert paid.forwards <= most.forwards
    assert float(fine.values) == pytest.approx(float(whole.values), abs=1e-5 * span(whole))
    assert fine.detail["random"] == pytest.approx(whole.detail["random"], abs=1e-5 * span(whole))


def test_a_map_without_ranks_stays_undefined_beside_others(model_of, nets):
    model, x, maps = model_of(nets.classifier(2), 2, 2), nets.noise(2, 2, 8, 10), order((8, 10), 2)
    maps[1] = 1
    (score,), _, _ = scored_and_paid([DeletionAUC(32, tolerance=0.01)], model, x, maps)
    assert score.values.isnan().tolist() == [False, True]
    assert np.isnan(score.detail["curve"][1]).all()


def test_a_curve_read_backwards_is_halved_at_the_same_points():
    """So that deletion and insertion ask for the same images in random order."""
    share = np.linspace(0, 1, 38)
    scores = {p: float(np.cos(p)) * (p + 3) for p in (0, 5, 11, 20, 37)}
    there = Trace(share, (scores,)).wanted(0, 1e-3)
    back = Trace(share, ({37 - p: s for p, s in scores.items()},)).wanted(0, 1e-3)
    assert sorted(there) == sorted(37 - p for p in back)
    assert len(there) == 3


def test_a_flat_curve_is_looked_at_once():
    trace = Trace(np.linspace(0, 1, 129), (dict.fromkeys((0, 64, 128), 2.5),))
    assert (trace.wanted(0, 1e-6), trace.doubt(0), trace.areas.tolist()) == ([], 0, [2.5])


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -0.1, float("nan")])
def test_tolerances_outside_their_range(tolerance):
    with pytest.raises(BadOption, match="expected a tolerance above 0 and below 1"):
        DeletionAUC(tolerance=tolerance)
