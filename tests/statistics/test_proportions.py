"""Proportions: against statsmodels, published figures and simulated clusters."""

import math

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from pellucid.statistics.bootstrap import interval
from pellucid.statistics.errors import Unfit
from pellucid.statistics.proportions import clustered, needed, wilson


@pytest.mark.parametrize(("hits", "count", "low", "high"), [(8, 10, 0.49, 0.94), (11, 14, 0.52, 0.92)])
def test_wilson_of_few_cases(hits, count, low, high):
    found = wilson(hits, count)
    assert (round(found.low, 2), round(found.high, 2)) == (low, high)
    assert (found.value, found.count, found.how, found.note) == (hits / count, count, "Wilson", "")


def test_wilson_has_a_width_at_the_ends():
    all_hit, none = wilson(12, 12), wilson(0, 12)
    assert all_hit.low == pytest.approx(12 / (12 + 1.959964**2), abs=1e-6)
    assert (all_hit.high, none.low) == (1.0, 0.0)
    assert none.high == pytest.approx(1 - all_hit.low, abs=1e-12)


def test_nothing_asked_is_undefined():
    found = wilson(0, 0)
    assert math.isnan(found.value)
    assert math.isnan(found.low)
    assert found.note == "there are no answers"


@pytest.mark.parametrize(("share", "cases"), [(0.75, 317), (0.80, 80), (0.85, 36), (0.90, 21)])
def test_cases_needed_for_seventy_percent(share, cases):
    """The published figures compare the bound as printed with three decimals; exactly it takes a few more."""
    assert needed(share, 0.70, decimals=3) == cases
    assert round(proportion_confint(share * cases, cases, method="wilson")[0], 3) >= 0.70
    assert round(proportion_confint(share * (cases - 1), cases - 1, method="wilson")[0], 3) < 0.70


@pytest.mark.parametrize("share", [0.1, 0.55, 0.69, 0.75, 0.80, 0.85, 0.90, 1.0])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_cases_needed_exactly(share, level):
    cases = int(needed(share, 0.70, level))

    def leaves(n):
        low, high = proportion_confint(share * n, n, alpha=1 - level, method="wilson")
        return low >= 0.70 - 1e-12 or high <= 0.70 + 1e-12

    assert leaves(cases)
    assert cases == 1 or not leaves(cases - 1)


def test_at_the_threshold_no_number_is_enough():
    assert needed(0.7, 0.7) == math.inf
    assert needed(0.5, 0.0004, decimals=3) == 1.0


def test_clusters_of_one_are_wilson_but_for_the_degrees_of_freedom():
    hits = np.r_[np.ones(140), np.zeros(60)]
    found, plain = clustered(hits, np.arange(200)), wilson(140, 200)
    assert found.value == plain.value
    assert found.low == pytest.approx(plain.low, abs=2e-3)
    assert found.high == pytest.approx(plain.high, abs=2e-3)


def test_copies_are_not_more_answers():
    hits = np.r_[np.ones(28), np.zeros(12)]
    once, often = clustered(hits, np.arange(40)), clustered(np.repeat(hits, 5), np.repeat(np.arange(40), 5))
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=1e-9)
    assert (often.count, often.clusters) == (200, 40)


def test_it_is_near_the_bootstrap_where_there_are_many():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(150), 4)
    hits = (rng.random(600) < np.repeat(rng.beta(3, 2, 150), 4)).astype(float)
    one, two = clustered(hits, who), interval(hits, who)
    assert (one.low, one.high) == pytest.approx((two.low, two.high), abs=0.008)
    assert one.high - one.low > 1.1 * (wilson(int(hits.sum()), 600).high - wilson(int(hits.sum()), 600).low)


def test_negative_correlation_buys_nothing():
    # one hit and one miss of every patient: the share between patients does not vary at all
    found = clustered(np.tile([1.0, 0.0], 50), np.repeat(np.arange(50), 2))
    assert found.high - found.low > wilson(50, 100).high - wilson(50, 100).low


def test_what_cannot_be_said_is_said():
    alike = clustered([1, 1, 1, 1, np.nan], ["a", "a", "b", "c", "c"])
    assert (alike.value, alike.count, alike.clusters, alike.undefined) == (1.0, 4, 3, 1)
    assert alike.low == pytest.approx(wilson(3, 3).low, abs=1e-12)
    assert "all alike" in alike.how
    one = clustered([1, 0], ["a", "a"])
    assert one.value == 0.5
    assert math.isnan(one.low)
    assert one.note.startswith("one patient")
    none = clustered([np.nan], ["a"])
    assert math.isnan(none.value)
    assert none.note == "no answer is defined"
    assert none.undefined == 1


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda: wilson(5, 4), "5 hits of 4"),
        (lambda: wilson(1, 4, 95), "level of an interval"),
        (lambda: clustered([0.5], ["a"]), "neither 0 nor 1"),
        (lambda: clustered([1, 0], ["a"]), "2 items and clusters"),
        (lambda: needed(1.2, 0.7), "a share of 1.2"),
        (lambda: needed(0.7, 1.0), "a threshold of 1.0"),
    ],
)
def test_what_is_no_proportion_is_refused(ask, problem):
    with pytest.raises(Unfit, match=problem):
        ask()
