"""What cannot be scored is NaN with a reason, item by item: never 0, never 1, never an error."""

import math

import pytest
import torch
from torch import nn

from pellucid.core.errors import BadOption
from pellucid.core.explanation import Answer
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore
from pellucid.explain.gradient import Saliency
from pellucid.metrics.complexity import EffectiveComplexity
from pellucid.metrics.faithfulness.curves import DeletionAUC, InsertionAUC
from pellucid.metrics.faithfulness.infidelity import Infidelity
from pellucid.metrics.faithfulness.normalized import NormalizedDeletionAUC
from pellucid.metrics.faithfulness.singles import Monotonicity
from pellucid.metrics.localization.overlap import Dice, IoU
from pellucid.metrics.localization.pointing import HitRate
from pellucid.metrics.randomization.classes import RandomLogit
from pellucid.metrics.randomization.efficient import EfficientMPRT
from pellucid.metrics.randomization.weights import ModelParameterRandomization
from pellucid.metrics.robustness.attack import ExplanationAttack
from pellucid.metrics.robustness.psc import PredictionSaliencyCorrelation
from pellucid.metrics.robustness.retrained import Repeatability, Reproducibility

CURVES = [DeletionAUC(4), InsertionAUC(4)]
PLACES = [IoU(), Dice(), IoU("otsu"), HitRate()]
MOVED = [
    ExplanationAttack(steps=4, tries=1),
    PredictionSaliencyCorrelation(pairs=3),
    Repeatability(),
    Reproducibility(),
]
EVERY = [*CURVES, *PLACES, ModelParameterRandomization(1), EfficientMPRT(), RandomLogit(), *MOVED]


@pytest.fixture
def model(nets, model_of):
    """A linear model of 6 x 6."""
    return model_of(nets.linear(6), 2)


@pytest.fixture
def region():
    """A box."""
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[1:3, 2:5] = True
    return mask


def undefined(score, reason):
    """Every item is NaN for the reason."""
    return bool(torch.isnan(score.values).all()) and set(score.reasons) == {reason}


@pytest.mark.parametrize("metric", PLACES, ids=lambda m: m.name)
def test_without_a_region(metric, model, nets, scored):
    score = scored(metric, model, nets.noise(2, 1, 6, 6), nets.noise(2, 1, 6, 6))
    assert undefined(score, "no expert or planted region")


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        *((m, "the map is constant: it ranks nothing") for m in CURVES),
        *((m, "the map is constant: it has no highest part") for m in PLACES[:3]),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
@pytest.mark.parametrize("level", [0.0, 2.5])
def test_of_a_constant_map(metric, reason, level, model, nets, scored, region):
    score = scored(metric, model, nets.noise(2, 1, 6, 6), torch.full((2, 1, 6, 6), level), region)
    assert undefined(score, reason)


@pytest.mark.parametrize("metric", [*CURVES, *PLACES], ids=lambda m: m.name)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_map_that_is_not_finite_leaves_the_others_defined(metric, bad, model, nets, scored, region):
    maps, x = nets.noise(3, 1, 6, 6), nets.noise(3, 1, 6, 6, seed=2)
    whole = scored(metric, model, x, maps, region)
    maps[1, 0, 2, 2] = bad
    score = scored(metric, model, x, maps, region)
    assert torch.isnan(score.values).tolist() == [False, True, False]
    assert score.reasons == ("", "the map is not finite", "")
    assert torch.equal(score.values[[0, 2]], whole.values[[0, 2]])


@pytest.mark.parametrize("metric", CURVES, ids=lambda m: m.name)
def test_nothing_is_evaluated_for_a_map_that_ranks_nothing(metric, model, nets):
    from pellucid.core.explanation import Attribution

    probe = Probe(model, nets.noise(1, 1, 6, 6), ClassScore(0))
    answer = Attribution({"image": torch.zeros(1, 1, 6, 6)}, "logit", signed=True)
    metric(probe, answer, Saliency(), None)
    assert probe.spent.own.forwards == 0


def test_a_radius_in_millimeters_without_millimeters(model, nets, scored, region):
    score = scored(HitRate(5.0), model, nets.noise(2, 1, 6, 6), nets.noise(2, 1, 6, 6), region)
    assert undefined(score, "the image has no millimeters, so a radius in mm means nothing")


@pytest.mark.parametrize("bad", [1.0, float("nan")])
def test_ranks_of_a_map_without_ranks(bad, model, nets, stand):
    x = nets.noise(2, 1, 6, 6)
    still = stand(lambda probe: torch.full((probe.batch, 1, 6, 6), bad))
    probe = Probe(model, x, ClassScore(0))
    score = ModelParameterRandomization(1)(probe, still(probe), still, None)
    assert undefined(score, "a map is constant or not finite, so ranks mean nothing")


def test_a_model_without_weights_cannot_be_randomized(nets, model_of, stand):
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    probe = Probe(model_of(net, 2), nets.noise(2, 1, 6, 6), ClassScore(0))
    method = stand(lambda p: p.inputs["image"])
    for metric in (ModelParameterRandomization(), EfficientMPRT()):
        assert undefined(metric(probe, method(probe), method, None), "the model shows no weights")


class Sentence(Answer):
    """An answer that is no map."""

    @property
    def kind(self):
        """In one word."""
        return "sentence"


@pytest.mark.parametrize("metric", EVERY, ids=lambda m: m.name)
def test_an_answer_that_is_no_map(metric, model, nets, region):
    probe = Probe(model, nets.noise(2, 1, 6, 6), ClassScore(0))
    score = metric(probe, Sentence(), Saliency(), region)
    assert bool(torch.isnan(score.values).all())
    assert all("the answer is not a map" in reason for reason in score.reasons)


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        *((m, "the score is the same whatever is hidden or changed") for m in (Monotonicity(), Infidelity())),
        (Infidelity("noise"), "the score is the same whatever is hidden or changed"),
        (EffectiveComplexity(), "the fill does not change the score"),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_a_model_that_never_reacts_praises_no_map(metric, reason, nets, model_of, scored):
    """Every map would be perfect: each step leaves the score as it is, and no prediction can fail."""

    class Deaf(nn.Module):
        def forward(self, v):
            return 1.7 + 1e-17 * v.flatten(1).sum(1, keepdim=True)

    score = scored(metric, model_of(Deaf(), 2), nets.noise(2, 1, 6, 6), nets.noise(2, 1, 6, 6, seed=4))
    assert undefined(score, reason)


def test_a_lead_over_random_order_needs_a_change_to_be_a_share_of(nets, model_of, scored):
    x = nets.noise(2, 1, 6, 6)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    nn.init.constant_(net[1].weight, 0.0)
    score = scored(DeletionAUC(steps=4), model_of(net, 2), x, nets.noise(2, 1, 6, 6, seed=4))
    assert torch.isfinite(score.values).all()
    for said in ("lead over random", "departure"):
        assert all(math.isnan(v) for v in score.detail[said])


@pytest.mark.parametrize("metric", [DeletionAUC, InsertionAUC, NormalizedDeletionAUC])
@pytest.mark.parametrize("block", [0.0, -3.0, float("nan")])
def test_blocks_without_an_edge_are_refused(metric, block):
    with pytest.raises(BadOption, match="expected blocks with an edge above 0"):
        metric(block=block)
