"""The betting sequence: holds at all times, is the paper's process, and stops when it may."""

import math

import numpy as np
import pytest

from pellucid.statistics.bootstrap import interval
from pellucid.statistics.errors import Unfit
from pellucid.statistics.sequences import betting, settled

DRAWS = {
    "rare": (lambda rng, n: (rng.random(n) < 0.1).astype(float), 0.1),
    "common": (lambda rng, n: (rng.random(n) < 0.75).astype(float), 0.75),
    "spread": (lambda rng, n: rng.beta(2, 2, n), 0.5),
}


def by_the_book(scores, candidate, error):
    """How rich either side ever got on one candidate, score after score as the paper writes it."""
    up = down = most_up = most_down = 1.0
    total, squares = 0.5, 0.25
    for t, score in enumerate(scores, 1):
        spread = squares / t
        bet = math.sqrt(2 * math.log(2 / error) / (spread * t * math.log(t + 1)))
        up *= 1 + min(bet, 0.5 / candidate) * (score - candidate)
        down *= 1 - min(bet, 0.5 / (1 - candidate)) * (score - candidate)
        most_up, most_down = max(most_up, up), max(most_down, down)
        total += score
        squares += (score - total / (t + 1)) ** 2
    return most_up, most_down


def test_it_is_the_process_of_the_paper():
    scores = np.random.default_rng(1).beta(2, 5, 90)
    found = betting(scores)
    limit = 2 / 0.05
    up, down = by_the_book(scores, found.lows[-1], 0.05)[0], by_the_book(scores, found.highs[-1], 0.05)[1]
    assert up >= limit
    assert down >= limit
    inside = (found.lows[-1] + 0.001, found.highs[-1] - 0.001)
    assert max(by_the_book(scores, inside[0], 0.05)) < limit
    assert max(by_the_book(scores, inside[1], 0.05)) < limit


@pytest.mark.parametrize("name", DRAWS)
def test_no_interval_at_any_time_misses_the_mean_too_often(name):
    draw, mean = DRAWS[name]
    rng, studies, level = np.random.default_rng(11), 120, 0.8
    missed = 0
    for _ in range(studies):
        found = betting(draw(rng, 120), level=level)
        missed += max(found.lows) > mean or min(found.highs) < mean
    assert missed / studies <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / studies)
    # and it is no empty promise: it does miss, or is at least far narrower than 0 to 1
    assert found.highs[-1] - found.lows[-1] < 0.35


def test_it_narrows_as_the_spread_does():
    rng = np.random.default_rng(0)
    wide, narrow = betting((rng.random(400) < 0.5).astype(float)).last, betting(rng.beta(50, 50, 400)).last
    assert narrow.high - narrow.low < 0.35 * (wide.high - wide.low)
    fixed = interval(rng.beta(50, 50, 400))
    assert narrow.high - narrow.low > fixed.high - fixed.low


def test_bounds_never_widen_and_hold_the_mean():
    found = betting(np.random.default_rng(3).random(200))
    assert (np.diff(found.lows) >= 0).all()
    assert (np.diff(found.highs) <= 0).all()
    assert found.last.low < found.last.value < found.last.high
    assert (found.last.count, found.last.clusters, found.note) == (200, 200, "")


def test_the_future_changes_nothing():
    scores = np.random.default_rng(4).random(80)
    assert betting(scores).lows[:50] == betting(scores[:50]).lows


def test_scores_may_have_other_bounds():
    scores = np.random.default_rng(5).random(60)
    one, two = betting(scores), betting(2 * scores - 1, bounds=(-1, 1))
    assert two.lows == pytest.approx(2 * np.array(one.lows) - 1, abs=1e-9)
    assert two.highs == pytest.approx(2 * np.array(one.highs) - 1, abs=1e-9)
    mirrored = betting(1 - scores)
    assert mirrored.lows == pytest.approx(1 - np.array(one.highs), abs=1e-9)


def test_items_of_a_patient_count_once():
    scores, who = np.array([0.2, 0.4, 0.9, np.nan, 0.6]), ["b", "b", "a", "a", "c"]
    found = betting(scores, who)
    assert found.means == pytest.approx(np.cumsum([0.3, 0.9, 0.6]) / [1, 2, 3])
    assert found.undefined == 1
    assert found.lows == betting([0.3, 0.9, 0.6]).lows


def test_the_end_of_the_scale_settles_nothing():
    """That the mean is at least 0 is known beforehand, and is not that it lies above."""
    scores = np.random.default_rng(0).random(20) * 0.02
    assert settled(betting(scores[:1]), 0.0).side == "open"
    assert settled(betting(1 - scores[:1]), 1.0).side == "open"


def test_it_stops_when_the_verdict_is_settled():
    scores = (np.random.default_rng(6).random(600) < 0.9).astype(float)
    found = betting(scores)
    verdict = settled(found, 0.7)
    assert verdict.side == "above"
    assert verdict.after < 150
    assert found.lows[verdict.after - 1] >= 0.7 > found.lows[verdict.after - 2]
    assert settled(betting(1 - scores), 0.3).side == "below"
    assert settled(betting(1 - scores), 0.3).after <= verdict.after + 1
    assert settled(found, 0.9).side == "open"
    assert settled(found, 0.9).after is None


def test_scores_without_spread_settle_soonest():
    found = betting(np.full(3000, 0.5))
    assert not found.note
    assert found.last.low < 0.5 < found.last.high
    assert found.last.high - found.last.low < 0.01


def test_a_drift_is_said():
    found = betting(np.r_[np.zeros(300), np.ones(300)])
    assert found.note.startswith("no mean is left")
    assert found.last.low <= found.last.high


def test_nothing_yet():
    empty = betting([np.nan, np.nan])
    assert empty.last.note == "no patient has a defined score"
    assert math.isnan(empty.last.low)
    assert empty.undefined == 2
    assert settled(empty, 0.5).side == "open"


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda: betting([0.5, 1.5]), "scores between 0.5 and 1.5 where 0 to 1"),
        (lambda: betting([0.5], bounds=(1, 0)), "scores from 1 to 0 are not bounded"),
        (lambda: betting([0.5], bounds=(0, math.inf)), "are not bounded"),
        (lambda: betting([[0.5]]), "scores have 2 axes"),
        (lambda: betting([0.5], level=2), "level of an interval"),
    ],
)
def test_what_is_no_bounded_score_is_refused(ask, problem):
    with pytest.raises(Unfit, match=problem):
        ask()
