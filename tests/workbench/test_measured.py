"""What stands beside a score on a page, as the metrics themselves give it."""

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
from pellucid.workbench.measured import beside, given


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
        "lead over random order, share of the fall",
        "departure (0: a linear score)",
        f"fill {Blur(2.0).words}:",
    ]
    assert words[3].endswith(f" {score.detail['by fill'][Blur(2.0).words][0]:.3g}".replace("-", "\u2212"))
    assert given(score) == (f"fill {Constant().words}",)


def test_a_hit_stands_beside_chance(scored):
    assert beside(scored(HitRate())) == ("chance 0.125",)


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
