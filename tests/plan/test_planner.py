"""What fits into a time: closed arithmetic on declared costs, and one pass measured here."""

import time

import pytest
import torch
from torch import nn

from pellucid.core.card import Cost
from pellucid.core.errors import BadOption
from pellucid.core.model import Model
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore
from pellucid.explain.gradient import Saliency
from pellucid.explain.lime import LIME
from pellucid.explain.occlusion import Occlusion
from pellucid.explain.rise import RISE
from pellucid.explain.sensitivity import MorrisSensitivity
from pellucid.plan.budget import Pace, measure_pace
from pellucid.plan.planner import plan, thinner

PACE = Pace(0.1, 0.3)


def price(method):
    made = {
        "Saliency": lambda: Cost(),
        "Occlusion": lambda: Cost(40),
        "RISE": lambda: Cost(method.masks),
        "LIME": lambda: Cost(method.samples),
        "MorrisSensitivity": lambda: Cost(10 * method.trajectories, 1),
    }
    return made[method.name]()


ASKED = (RISE(masks=512), Occlusion(), LIME(samples=400), Saliency())
SHARED = Cost(1, 1)  # 0.4 s


def test_without_a_limit_nothing_is_taken_away():
    made = plan(ASKED, price, SHARED, PACE)
    assert [o.method for o in made.kept] == list(ASKED)
    assert not made.left_out
    assert made.cost == Cost(512 + 40 + 400 + 1, 1)
    assert made.seconds == pytest.approx(95.3 + 0.3)


def test_the_cheapest_stay_whole_and_the_dearest_get_fewer_samples():
    made = plan(ASKED, price, SHARED, PACE, within=60.0)  # 0.4 shared, 0, 4, 40; 15.6 s are left for RISE
    assert [o.method for o in made.kept] == [RISE(masks=128), *ASKED[1:]]  # in the order asked
    assert [o.reduced for o in made.kept] == ["masks=128 instead of 512", "", "", ""]
    assert made.seconds <= 60
    assert not made.left_out


def test_what_does_not_fit_even_with_an_eighth_is_left_out_and_said():
    made = plan(ASKED, price, SHARED, PACE, within=11.0)  # after 4.4 s, 6.6 s hold 50 of LIME's samples, not 64 masks
    assert [o.method for o in made.kept] == [Occlusion(), LIME(samples=50), Saliency()]
    ((name, why),) = made.left_out
    assert name == "RISE"
    assert why == "left out: 512 forwards, about 51 s, do not fit into the 11 s asked for"
    assert made.seconds <= 11


def test_gradients_cost_what_they_take():
    made = plan((MorrisSensitivity(trajectories=4),), price, Cost(), PACE)
    assert made.seconds == pytest.approx(40 * 0.1 + 0.3)


@pytest.mark.parametrize("within", [0.0, -1.0, float("nan")])
def test_a_time_that_is_none_is_refused(within):
    with pytest.raises(BadOption, match="a time above 0 seconds"):
        plan(ASKED, price, SHARED, PACE, within)


def test_a_time_into_which_nothing_fits_is_refused_with_the_cheapest():
    with pytest.raises(BadOption, match="no method fits into 1 s; the cheapest is Occlusion: left out: 40 forwards"):
        plan(ASKED[:3], price, SHARED, PACE, within=1.0)


def test_fewer_samples_stop_where_the_method_refuses():
    assert [m.masks for m, _ in thinner(RISE(masks=64))] == [32]  # 16 and 8 are refused
    assert [m.trajectories for m, _ in thinner(MorrisSensitivity(trajectories=6))] == [3]
    assert list(thinner(Occlusion())) == []


class Slow(nn.Module):
    """Takes 20 ms."""

    def __init__(self):
        super().__init__()
        self.flat, self.calls = nn.Linear(16, 2), 0

    def forward(self, x):
        self.calls += 1
        time.sleep(0.02)
        return self.flat(x.flatten(1))


@pytest.mark.parametrize("backward", [False, True])
def test_one_pass_is_measured_here(backward):
    net = Slow()
    needs = Saliency().needs(Model(net), {}) if backward else ()
    pace = measure_pace(Probe(Model(net), torch.rand(1, 1, 4, 4), ClassScore(1), needs), backward)
    assert 0.02 <= pace.forward < 0.5
    assert 0 <= pace.backward < 0.5
    assert (pace.backward > 0) <= backward
    assert net.calls <= 1 + 1 + 3 + 3  # the target is bound, the first is not timed
