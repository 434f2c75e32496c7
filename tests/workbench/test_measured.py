"""What stands beside a score on a page, as the metrics themselves give it."""

from dataclasses import replace

import pytest
import torch

from pellucid.core.infill import Blur, Constant
from pellucid.core.metric import Score
from pellucid.core.model import Model
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.explain.gradient import InputXGradient
from pellucid.metrics.faithfulness.curves import DeletionAUC
from pellucid.metrics.localization.overlap import IoU
from pellucid.metrics.localization.pointing import HitRate
from pellucid.metrics.randomization.weights import ModelParameterRandomization
from pellucid.metrics.robustness.sensitivity import AverageSensitivity
from pellucid.workbench.measured import beside, curve_of, given


@pytest.fixture
def scored():
    """A metric's score of a map on a linear model of 8 x 8."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    region = torch.zeros(8, 8, dtype=torch.bool)
    region[2:4, 2:6] = True

    def score(metric) -> Score:
        scene = Scene(infills=(Constant(), Blur(2.0)))
        probe = Probe(
            Model(net),
            torch.rand(1, 1, 8, 8),
            ClassScore(1),
            InputXGradient().needs(Model(net), {"image": torch.rand(1, 1, 8, 8)}),
            scene,
        )
        return metric(probe, InputXGradient()(probe), InputXGradient(), region)

    return score


def test_a_curve_stands_beside_random_order_and_the_other_fill(scored):
    score = scored(DeletionAUC(4))
    words = beside(score)
    assert [w.rpartition(" ")[0] for w in words] == [
        "random order",
        "lead over random",
        "departure from linear",
        f"fill {Blur(2.0).words}:",
    ]
    assert words[3].endswith(f" {score.detail['by fill'][Blur(2.0).words][0]:.3g}".replace("-", "\u2212"))
    assert given(score) == (f"fill {Constant().words}",)


def test_a_hit_stands_beside_chance(scored):
    assert beside(scored(HitRate())) == ("chance 0.125",)


def test_a_map_among_readers_stands_beside_what_they_reach_alone(scored):
    score = replace(
        scored(IoU("fixed", 0.4, "0123456789ab+ba9876543210")),
        detail={
            "readers alone": [0.71],
            "readers": ["anna", "boris"],
            "roi": "the region lung",
            "interval": "needs cases",
        },
    )
    assert beside(score) == ("the readers alone 0.71",)
    assert given(score) == ("in the region lung", "tuned on 2 other cases", "threshold fixed", "level 0.4")
    assert beside(replace(score, detail={"readers": 0.8})) == ("readers among themselves 0.8",)


def test_a_similarity_of_maps_stands_beside_what_unrelated_maps_would_give(scored):
    score = scored(ModelParameterRandomization(1))
    low, high = (score.detail["chance"][end][0] for end in ("low", "high"))
    minus = {"-": "\u2212"}
    assert beside(score) == tuple(
        words.translate(str.maketrans(minus))
        for words in (
            f"of the magnitudes {score.detail['of the magnitudes'][0]:.3g}",
            f"similarity to the image's edges {score.detail['similar to edges'][0]:.3g}",
            f"chance {low:.3g} to {high:.3g}",
        )
    )


def test_a_threshold_and_noise_are_named(scored):
    assert given(scored(IoU())) == ("threshold area",)
    (noise,) = given(scored(AverageSensitivity(samples=2)))
    assert noise.startswith("noise uniform within 0.05")


def test_nothing_stands_beside_a_bare_score():
    bare = Score("Sparseness", torch.tensor([0.5]))
    assert (beside(bare), given(bare)) == ((), ())


def test_an_area_brings_its_curve_and_that_of_random_order(scored):
    score = scored(DeletionAUC(4))
    curve = curve_of(score)
    assert curve is not None
    assert curve.share == pytest.approx((0, 0.25, 0.5, 0.75, 1))
    assert torch.trapezoid(torch.tensor(curve.score), torch.tensor(curve.share)).item() == pytest.approx(
        score.values[0].item(), rel=1e-5
    )
    assert (curve.random[0], curve.random[-1]) == pytest.approx((curve.score[0], curve.score[-1]))
    assert torch.trapezoid(torch.tensor(curve.random), torch.tensor(curve.share)).item() == pytest.approx(
        score.detail["random"][0], rel=1e-5
    )


def test_what_asks_only_some_points_brings_those(scored):
    curve = curve_of(scored(DeletionAUC(32, tolerance=0.05)))
    assert curve is not None
    assert len(curve.share) == len(curve.score) == len(curve.random) <= 33


def test_other_scores_have_no_curve(scored):
    assert curve_of(scored(HitRate())) is None
    assert curve_of(scored(DeletionAUC(4, random_orders=0))).random == ()
