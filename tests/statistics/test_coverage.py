"""Every interval of the room holds the true value as often as it says, on simulated studies with seeds.

An interval that is known to be wide (Wilson's for clusters, the betting sequence) may hold it more often, and its
bound here says by how much.
"""

import math

import numpy as np
import pytest
from scipy import special, stats

from pellucid.statistics.bootstrap import Resampling, interval, paired
from pellucid.statistics.crossed import two_way, two_way_gap
from pellucid.statistics.merits import roc
from pellucid.statistics.multireader import analyze
from pellucid.statistics.proportions import clustered, wilson
from pellucid.statistics.sequences import betting

LEVEL = 0.9
QUICK = Resampling(300, level=LEVEL)
PLAIN = Resampling(300, level=LEVEL, kind="percentile")


def covered(ask, truth, studies=250, seed=0):
    """The share of studies whose interval holds the truth, and three standard errors of it."""
    rng = np.random.default_rng(seed)
    held = []
    for _ in range(studies):
        found = ask(rng)
        assert found.bounded
        held.append(found.low <= truth <= found.high)
    return float(np.mean(held)), 3 * math.sqrt(LEVEL * (1 - LEVEL) / studies)


def lesions(rng, patients=80):
    """Scores of one to five lesions a patient, which share the patient's level; many have more."""
    sizes = rng.integers(1, 6, patients)
    who = np.repeat(np.arange(patients), sizes)
    return rng.normal(size=patients)[who] + rng.normal(size=len(who)), who


@pytest.mark.parametrize("by", [QUICK, PLAIN], ids=lambda b: b.kind)
def test_the_mean_over_clusters(by):
    share, margin = covered(lambda rng: interval(*lesions(rng), by=by), 0.0)
    assert share == pytest.approx(LEVEL, abs=margin)


@pytest.mark.parametrize("patients", [12, 20])
def test_the_mean_over_few_clusters(patients):
    share, margin = covered(lambda rng: interval(*lesions(rng, patients), by=PLAIN), 0.0)
    assert share == pytest.approx(LEVEL, abs=margin)


def test_the_mean_as_if_items_were_patients_is_too_narrow():
    share, margin = covered(lambda rng: interval(lesions(rng)[0], by=PLAIN), 0.0)
    assert share < LEVEL - margin


def test_a_skewed_mean_with_bca():
    share, margin = covered(lambda rng: interval(rng.gamma(2.0, size=80), by=QUICK), 2.0)
    assert share == pytest.approx(LEVEL, abs=margin)


def test_a_median():
    share, margin = covered(lambda rng: interval(rng.normal(size=81), statistic=np.median, by=PLAIN), 0.0, studies=80)
    assert share == pytest.approx(LEVEL, abs=margin)


def test_strata():
    site = np.repeat([0, 1, 2], 25)
    share, margin = covered(lambda rng: interval(rng.normal(size=75) + 3 * site, strata=site, by=QUICK), 3.0)
    assert share == pytest.approx(LEVEL, abs=margin)


def test_a_paired_difference():
    def ask(rng):
        hard, who = lesions(rng)
        return paired(hard + 0.5 + rng.normal(size=len(who)), hard, who, by=QUICK)

    share, margin = covered(ask, 0.5)
    assert share == pytest.approx(LEVEL, abs=margin)


@pytest.mark.parametrize(("share", "count"), [(0.5, 60), (0.8, 60), (0.93, 200)])
def test_wilson(share, count):
    # exactly, not by simulation: Wilson's holds it near the level for every share, never far below
    hits = np.arange(count + 1)
    held = [found.low <= share <= found.high for found in (wilson(int(h), count, LEVEL) for h in hits)]
    assert stats.binom.pmf(hits, count, share)[held].sum() == pytest.approx(LEVEL, abs=0.03)


@pytest.mark.parametrize(("mean", "spread"), [(0.7, 3.0), (0.9, 20.0), (0.7, 1e6)])
def test_wilson_of_clusters(mean, spread):
    def ask(rng):
        who = np.repeat(np.arange(40), 4)
        return clustered(rng.random(160) < rng.beta(mean * spread, (1 - mean) * spread, 40)[who], who, LEVEL)

    share, margin = covered(ask, mean)
    # it never counts answers of a patient as worth more than they are, so that without clusters it is a little wide
    assert LEVEL - margin <= share <= LEVEL + margin + 0.02


@pytest.mark.parametrize(
    ("readers", "spreads"),
    [(5, (0.3, 0.3, 1.0)), (5, (1.0, 0.3, 0.3)), (5, (0.3, 1.0, 0.3)), (12, (0.3, 0.3, 1.0)), (12, (1.0, 0.3, 0.3))],
)
def test_two_ways(readers, spreads):
    who, whose = np.indices((readers, 40)).reshape(2, -1)

    def ask(rng):
        parts = (s * rng.normal(size=n) for s, n in zip(spreads, (readers, 40, len(who)), strict=True))
        of_reader, of_patient, own = parts
        return two_way(of_reader[who] + of_patient[whose] + own, who, whose, by=PLAIN)

    share, margin = covered(ask, 0.0, studies=200)
    assert share == pytest.approx(LEVEL, abs=margin)


def test_two_ways_of_decisions():
    who, whose = np.indices((8, 50)).reshape(2, -1)
    logits = 1.0 + math.sqrt(1.25) * np.random.default_rng(9).normal(size=1_000_000)

    def ask(rng):
        chance = special.expit(1.0 + 0.5 * rng.normal(size=8)[who] + rng.normal(size=50)[whose])
        return two_way((rng.random(len(who)) < chance).astype(float), who, whose, within=(0, 1), by=PLAIN)

    share, margin = covered(ask, float(special.expit(logits).mean()), studies=200)
    assert share == pytest.approx(LEVEL, abs=margin)


def test_the_gap_of_two_arms():
    who, whose = np.indices((8, 60)).reshape(2, -1)
    first = whose < 30

    def ask(rng):
        values = 0.5 * rng.normal(size=8)[who] + rng.normal(size=60)[whose] + rng.normal(size=len(who)) + 0.4 * first
        return two_way_gap(values, who, whose, first, by=PLAIN)

    share, margin = covered(ask, 0.4, studies=200)
    # a reader's level cancels between the arms
    assert LEVEL - margin <= share <= LEVEL + margin + 0.02


@pytest.mark.parametrize("covariance", ["jackknife", "delong"])
def test_a_difference_of_areas(covariance):
    truth = np.repeat([0, 1], 30)
    shift = np.array([1.2, 0.8])
    area = special.ndtr(shift / math.sqrt(2 * 1.55))

    def ask(rng):
        cases = math.sqrt(0.5) * rng.normal(size=60) + 0.5 * rng.normal(size=(2, 1, 60))
        readers = math.sqrt(0.05) * rng.normal(size=(1, 5, 2)) + math.sqrt(0.05) * rng.normal(size=(2, 5, 2))
        own = math.sqrt(0.7) * rng.normal(size=(2, 5, 60))
        ratings = cases + readers[..., truth] + own + truth * shift[:, None, None]
        return (
            analyze(roc(ratings, truth), ("a", "b"), covariance=covariance, level=LEVEL).rrrc.differences[0].difference
        )

    share, margin = covered(ask, float(area[0] - area[1]))
    assert share == pytest.approx(LEVEL, abs=margin)


def test_one_arm_of_readers():
    truth = np.repeat([0, 1], 30)

    def ask(rng):
        ratings = rng.normal(size=(1, 1, 60)) + 0.3 * rng.normal(size=(1, 6, 2))[..., truth]
        ratings = ratings + rng.normal(size=(1, 6, 60)) + 1.5 * truth
        return analyze(roc(ratings, truth), ("a",), level=LEVEL).rrrc.arms[0]

    share, margin = covered(ask, float(special.ndtr(1.5 / math.sqrt(2 * 2.09))))
    assert share == pytest.approx(LEVEL, abs=margin)


def test_the_betting_sequence_at_its_last_patient():
    share, margin = covered(lambda rng: betting(rng.beta(2, 6, 100), level=LEVEL).last, 0.25, studies=150)
    assert share >= LEVEL - margin
