"""Power of reliance studies: the error of the first kind, what more readers buy, and a plan that is none."""

import math

import numpy as np
import pytest

from pellucid.statistics.bootstrap import Resampling
from pellucid.statistics.errors import Unfit
from pellucid.statistics.simulating import Plan, _study, simulated_power

QUICK = Resampling(200, kind="percentile")


def test_without_a_difference_it_is_the_error():
    found = simulated_power(Plan(8, 30, 0.3, 0.3), studies=200, by=QUICK)
    # one side of a 95% interval
    assert found.value <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 200)
    assert found.how == "200 simulated studies, seed 0"


def test_more_readers_and_cases_find_more():
    few, more, many = (
        simulated_power(Plan(r, c, 0.2, 0.35), studies=60, by=QUICK).value for r, c in ((4, 15), (8, 30), (20, 100))
    )
    assert few < more < many
    assert many > 0.95


def test_a_margin_helps():
    plan = Plan(8, 40, 0.3, 0.3)
    assert simulated_power(plan, margin=0.2, studies=60, by=QUICK).value > 0.4


def test_shares_come_out_as_planned():
    plan = Plan(40, 140, 0.2, 0.4, reader_spread=0.8, patient_spread=1.0)
    gaps = [_study(plan, np.random.default_rng(s), Resampling(100)).value for s in range(30)]
    assert np.mean(gaps) == pytest.approx(-0.2, abs=0.02)


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda: Plan(1, 10, 0.2, 0.3), "1 readers and 10 cases are no plan"),
        (lambda: Plan(5, 10, 0.0, 0.3), "shares of 0, 0.3"),
        (lambda: Plan(5, 10, 0.2, 0.3, arm_spread=-1), "a standard deviation is below 0"),
    ],
)
def test_what_is_no_plan_is_refused(ask, problem):
    with pytest.raises(Unfit, match=problem):
        ask()
