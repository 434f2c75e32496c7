"""Intervals by drawing patients: against scipy, closed forms and what cannot be answered."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.datasets import load_breast_cancer

from pellucid.statistics.bootstrap import Resampling, by_stratum, interval, paired
from pellucid.statistics.crossed import two_way, two_way_gap
from pellucid.statistics.errors import Unfit

PLAIN = Resampling(kind="percentile")
QUICK = Resampling(200)


@pytest.fixture(scope="module")
def radii():
    """Mean radius of the nuclei in 569 real biopsies."""
    return load_breast_cancer().data[:, 0]


@pytest.mark.parametrize("kind", ["BCa", "percentile"])
def test_without_clusters_it_is_the_bootstrap_of_scipy(radii, kind):
    ours = interval(radii[:80], by=Resampling(kind=kind))
    # at the level whose percentiles reach as far as t does
    level = 2 * stats.norm.cdf(math.sqrt(80 / 79) * stats.t.ppf(0.975, 79)) - 1
    theirs = stats.bootstrap(
        (radii[:80],), np.mean, n_resamples=2000, method=kind, confidence_level=level, rng=np.random.default_rng(0)
    )
    assert ours.value == pytest.approx(radii[:80].mean(), abs=1e-12)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=1e-10)
    assert (ours.count, ours.clusters, ours.undefined, ours.note) == (80, 80, 0, "")
    assert ours.how == f"{kind} bootstrap, B=2000, seed 0, 80 clusters"


def test_any_statistic_draws_as_the_mean_does(radii):
    who = np.arange(90) // 3
    asked, plain = (interval(radii[:90], who, s, by=QUICK) for s in (np.mean, None))
    assert (asked.low, asked.high) == pytest.approx((plain.low, plain.high), abs=1e-12)
    assert (asked.count, asked.clusters, asked.how) == (plain.count, plain.clusters, plain.how)


def test_copies_of_an_item_are_not_more_patients(radii):
    once = interval(radii[:40])
    often = interval(np.repeat(radii[:40], 7), np.repeat(np.arange(40), 7))
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=1e-12)
    assert (often.count, often.clusters) == (280, 40)
    alone = interval(np.repeat(radii[:40], 7))
    assert (alone.high - alone.low) * 2.4 < often.high - often.low


def test_clusters_may_come_in_any_order_and_by_any_name(radii):
    who = np.arange(60) // 4
    shuffle = np.random.default_rng(3).permutation(60)
    names = np.array([f"P{n:03}" for n in who])
    mixed, sorted_ = interval(radii[:60][shuffle], names[shuffle], by=PLAIN), interval(radii[:60], who, by=PLAIN)
    assert (mixed.low, mixed.high) == pytest.approx((sorted_.low, sorted_.high), abs=1e-12)


def test_labels_may_be_of_several_types(radii):
    mixed = np.array([1, "b", 2.5] * 10, dtype=object)
    assert interval(radii[:30], mixed, by=PLAIN).clusters == 3


def test_undefined_items_are_counted_and_left_out(radii):
    holes = radii[:50].copy()
    holes[[3, 10, 11]] = np.nan
    found = interval(holes, np.arange(50) // 2)
    assert (found.count, found.clusters, found.undefined) == (47, 24, 3)
    assert found.value == pytest.approx(np.nanmean(holes), abs=1e-12)


def test_strata_take_out_what_they_explain():
    site = np.repeat(["a", "b"], 50)
    scores = np.where(site == "a", 0.0, 10.0) + np.random.default_rng(0).normal(size=100)
    apart, together = interval(scores, strata=site), interval(scores)
    assert together.high - together.low > 4 * (apart.high - apart.low)
    half = 1.96 * math.sqrt(scores[:50].var() / 50 + scores[50:].var() / 50) / 2
    assert apart.high - apart.value == pytest.approx(half, rel=0.1)
    assert apart.how.endswith("100 clusters in 2 strata")
    each = by_stratum(scores, site)
    assert list(each) == ["a", "b"]
    assert each["a"] == interval(scores[:50])


def test_pairs_cancel_what_items_share():
    rng = np.random.default_rng(1)
    hard, first = rng.normal(size=80), rng.normal(size=80) * 0.1
    found = paired(hard + first + 0.2, hard, by=PLAIN)
    assert found.low > 0.15
    assert found.high < 0.25
    missing = paired([0.4, np.nan, 0.6, 0.9], [0.1, 0.2, np.nan, 0.4])
    assert (missing.count, missing.undefined) == (2, 2)


@given(st.integers(0, 1000), st.floats(0.1, 50), st.floats(-5, 5))
@settings(max_examples=15, deadline=None)
def test_scale_and_shift_go_through(seed, scale, shift):
    values = np.random.default_rng(seed).normal(size=20)
    one, two = interval(values, by=QUICK), interval(scale * values + shift, by=QUICK)
    assert (two.low, two.high) == pytest.approx((scale * one.low + shift, scale * one.high + shift), abs=1e-9)


@pytest.mark.parametrize(
    ("values", "clusters", "note"),
    [
        ([], None, "there are no items"),
        ([np.nan, np.nan], None, "no item is defined"),
        ([0.2, 0.4, 0.9], ["p", "p", "p"], "one patient: nothing is known of how much patients differ"),
        ([1.0, 1.0, 1.0, 1.0], None, "every resample gives the same: a bootstrap cannot say how uncertain this is"),
    ],
)
@pytest.mark.parametrize("statistic", [None, np.median])
def test_what_cannot_be_said_is_said(values, clusters, note, statistic):
    found = interval(values, clusters, statistic)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert note in found.note
    assert not found.bounded
    assert math.isnan(found.clusters_needed(0.5))


def test_a_statistic_that_some_resamples_lack():
    rows = np.column_stack([np.linspace(0, 1, 12), np.r_[1.0, 1.0, np.zeros(10)]])

    def gap(drawn):
        if len(set(drawn[:, 1])) < 2:
            return float("nan")
        return float(drawn[drawn[:, 1] == 1, 0].mean() - drawn[drawn[:, 1] == 0, 0].mean())

    found = interval(rows, statistic=gap, by=Resampling(kind="percentile"))
    assert found.bounded
    assert "of 2000 resamples, which are left out" in found.note
    lost = int(found.note.split()[2])
    # a resample of 12 misses both positive items with this share
    assert lost == pytest.approx(2000 * (10 / 12) ** 12, abs=3 * math.sqrt(2000 * 0.112 * 0.888))
    never = interval(rows, statistic=lambda drawn: float("nan"))
    assert never.note == "the statistic is undefined on these items"


def test_few_patients_are_noted():
    assert interval(np.arange(5.0)).note == "only 5 patients: the interval is too narrow"
    assert not interval(np.arange(10.0)).note


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda: interval([1.0, 2.0], ["a"]), "2 items and clusters of shape"),
        (lambda: interval([1.0, 2.0], ["a", None]), "1 of 2 items have no label among the clusters"),
        (lambda: interval([1.0, 2.0], [1.0, math.nan]), "1 of 2 items have no label among the clusters"),
        (lambda: interval([1.0, math.inf]), "a value is infinite"),
        (lambda: interval([1.0, 2.0], [1, 1], strata=["x", "y"]), "a cluster lies in two strata"),
        (lambda: interval([[1.0, 2.0], [1.0, 3.0]]), "the mean of rows with several numbers"),
        (lambda: interval(np.zeros((2, 2, 2))), "values have 3 axes"),
        (lambda: paired([1.0], [1.0, 2.0]), "paired scores have shapes"),
        (lambda: Resampling(times=10), "10 resamples give no bound"),
        (lambda: Resampling(level=95), "the level of an interval lies between 0 and 1"),
        (lambda: Resampling(kind="normal"), "no bootstrap of kind 'normal'"),
        (lambda: two_way([1.0, math.inf], [0, 1], [0, 1]), "a value is infinite"),
    ],
)
def test_what_is_no_table_is_refused(ask, problem):
    with pytest.raises(Unfit, match=problem) as caught:
        ask()
    assert caught.value.mend


def test_how_many_patients_settle_it(radii):
    found = interval(radii[:50])
    # ten times as near to the threshold takes a hundred times the patients
    far, near = found.value - 1.0, found.value - 0.1
    assert found.clusters_needed(near) == pytest.approx(100 * 50 * (found.value - found.low) ** 2, abs=1)
    assert found.clusters_needed(far) >= 50
    assert found.clusters_needed(found.value) == math.inf
    assert found.clusters_needed(found.value + 0.1) == pytest.approx(5000 * (found.high - found.value) ** 2, abs=1)


def reads(readers, patients, spread, seed=0):
    """A crossed table with spreads of readers, of patients, and of a read by itself."""
    rng = np.random.default_rng(seed)
    r, p, e = (rng.normal(size=s) * k for s, k in zip((readers, patients, (readers, patients)), spread, strict=True))
    table = r[:, None] + p + e
    who, whose = np.indices(table.shape)
    return table.ravel(), who.ravel(), whose.ravel(), table


def test_two_ways_add_the_spread_of_readers_and_of_patients():
    values, who, whose, table = reads(12, 60, (0.3, 1.0, 0.5))
    found = two_way(values, who, whose)
    of_reader, of_patient = table.mean(axis=1).var(ddof=1) / 12, table.mean(axis=0).var(ddof=1) / 60
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    own = (left**2).sum() / (11 * 59) / 720
    by_hand = of_reader + of_patient - own
    df = by_hand**2 / (of_reader**2 / 11 + of_patient**2 / 59 + own**2 / (11 * 59))
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, df) * math.sqrt(by_hand), rel=0.08)
    assert (found.count, found.clusters, found.note) == (720, 60, "")
    one_way = interval(values, whose)
    assert found.high - found.low > one_way.high - one_way.low


def test_two_ways_of_any_statistic_are_those_of_the_mean():
    values, who, whose, _ = reads(6, 20, (0.3, 1.0, 0.5))
    plain, asked = (two_way(values, who, whose, s, by=QUICK) for s in (None, np.mean))
    assert (plain.low, plain.high) == pytest.approx((asked.low, asked.high), abs=1e-12)


@pytest.mark.parametrize(
    ("readers", "patients", "note"),
    [
        ([0, 0, 0], [0, 1, 2], "one reader: nothing is known of how much readers differ"),
        ([0, 1, 2], [0, 0, 0], "one patient: nothing is known of how much patients differ"),
        ([0, 1, 2], [0, 1, 0], "only 3 readers: their spread is hardly known"),
    ],
)
def test_two_ways_need_two_of_each(readers, patients, note):
    assert note in two_way([0.1, 0.5, 0.8], readers, patients).note


def test_two_ways_of_missing_reads():
    found = two_way([np.nan, 0.5, 0.8, 0.9, 0.1], [0, 0, 1, 1, 2], [0, 1, 0, 1, 1])
    assert (found.count, found.undefined) == (4, 1)
    assert two_way([np.nan], [0], [0]).note == "no read is defined"
    assert two_way([0.5, 0.5], [0, 1], [0, 1]).note.startswith("every resample gives the same")
    assert two_way([0.5, 0.6], [0, 1], [0, 1], lambda rows: math.nan).note.startswith("the statistic is undefined")


def test_a_gap_of_two_groups_of_reads():
    values, who, whose, table = reads(10, 40, (0.3, 1.0, 0.2))
    twice = [np.concatenate([x, x]) for x in (who, whose)]
    arm = np.repeat([True, False], 400)
    same = two_way_gap(np.concatenate([values + 0.5, values]), *twice, arm)
    # readers and patients with reads on both sides cancel: only the shift is left, without a spread
    assert same.value == pytest.approx(0.5)
    assert same.note.startswith("every resample gives the same")
    fresh = np.random.default_rng(4).normal(size=400) * 0.2
    paired_up = two_way(values + 0.5 + fresh - values, who, whose)
    gap = two_way_gap(np.concatenate([values + 0.5 + fresh, values]), *twice, arm)
    assert (gap.low, gap.high) == pytest.approx((paired_up.low, paired_up.high), abs=1e-9)
    apart = two_way_gap(values, who, whose, whose < 20)
    assert apart.value == pytest.approx(table[:, :20].mean() - table[:, 20:].mean())
    assert apart.high - apart.low > 4 * (gap.high - gap.low)
