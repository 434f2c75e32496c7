"""Comparisons of methods: Demsar's published example, exact permutations, Holm by hand, ranks with their shares."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from pellucid.statistics.bootstrap import Resampling
from pellucid.statistics.comparing import compare, critical_difference, holm, rank
from pellucid.statistics.errors import Unfit

# Table 6 of Demsar (2006): AUC of four variants of C4.5 on 14 sets. Voting ties as printed; the published ranks, of
# unrounded values, put the third before the fourth there.
PUBLISHED = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)
VARIANTS = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
QUICK = Resampling(300)


def test_the_published_critical_difference():
    found = critical_difference(PUBLISHED, VARIANTS)
    assert dict(zip(found.names, np.round(found.ranks, 3), strict=True)) == {
        "C4.5+m+cf": 1.964,
        "C4.5+m": 2.0,
        "C4.5+cf": 2.893,
        "C4.5": 3.143,
    }
    # without the correction for ties, as published
    squares = sum(r**2 for r in found.ranks) - 4 * 25 / 4
    assert 12 * 14 / 20 * squares == pytest.approx(9.28, abs=0.005)
    assert round(found.difference, 2) == 1.25
    assert found.statistic > 9.28
    assert found.groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)
    at_ten = critical_difference(PUBLISHED, VARIANTS, level=0.9)
    assert round(at_ten.difference, 2) == 1.12
    assert at_ten.groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf"), ("C4.5+cf", "C4.5"))


@pytest.mark.parametrize(("methods", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_the_published_values_of_nemenyi(methods, q):
    scores = np.random.default_rng(0).normal(size=(30, methods))
    found = critical_difference(scores, [f"m{i}" for i in range(methods)])
    assert found.difference / math.sqrt(methods * (methods + 1) / 180) == pytest.approx(q, abs=1e-3)


def test_lower_can_be_better():
    up, down = (
        critical_difference(PUBLISHED, VARIANTS),
        critical_difference(-PUBLISHED, VARIANTS, higher_is_better=False),
    )
    assert up == down
    assert critical_difference(PUBLISHED, VARIANTS, higher_is_better=False).names[0] == "C4.5"


def test_permutations_are_exact_for_few_patients():
    gaps = np.array([0.3, -0.1, 0.5, 0.2, 0.4, 0.7, -0.2, 0.1])
    sums = [abs(np.dot(s, gaps)) for s in product([-1, 1], repeat=8)]
    by_hand = np.mean(np.array(sums) >= abs(gaps.sum()) - 1e-12)
    (found,) = compare(np.column_stack([gaps + 1, np.ones(8)]), ("a", "b"))
    assert found.p == pytest.approx(by_hand, abs=1e-12)
    assert found.adjusted == found.p
    assert found.test == "permutation over 8 patients"
    assert found.ahead.value == 6 / 8


def test_many_permutations_are_near_the_t_test():
    gaps = np.random.default_rng(5).normal(0.3, 1, size=40)
    found = compare(np.column_stack([gaps, np.zeros(40)]), ("a", "b"))[0].p
    assert found == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue, abs=0.01)
    sure = compare(np.column_stack([gaps + 9, np.zeros(40)]), ("a", "b"))[0].p
    assert sure == 1 / 10_000


def test_all_items_of_a_patient_flip_together():
    gaps = np.array([0.3, -0.1, 0.5, 0.2, 0.4, 0.7])
    table = np.column_stack([gaps, np.zeros(6)])
    once = compare(table, ("a", "b"))[0]
    often = compare(np.repeat(table, 9, axis=0), ("a", "b"), np.repeat(np.arange(6), 9))[0]
    assert often.p == once.p
    assert often.ahead == once.ahead
    assert often.difference.clusters == 6


@pytest.mark.parametrize("test", ["permutation", "wilcoxon"])
def test_the_tests_of_the_published_pair(test):
    found = compare(PUBLISHED[:, :2], VARIANTS[:2], test=test)[0]
    gaps = PUBLISHED[:, 0] - PUBLISHED[:, 1]
    if test == "wilcoxon":
        ranks = stats.rankdata(np.abs(gaps).round(6))
        # published: the sums of ranks are 93 and 12, zeros split
        above = ranks[gaps > 0].sum() + ranks[gaps == 0].sum() / 2
        assert (above, ranks.sum() - above) == (12.0, 93.0)
        assert found.p < 0.02
    assert found.difference.value == pytest.approx(gaps.mean(), abs=1e-12)
    assert found.ahead.value == pytest.approx((2 + 1) / 14)
    assert found.p < 0.05


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.04, math.nan, 0.01]) == pytest.approx([0.04, math.nan, 0.02], nan_ok=True)
    assert holm([math.nan]) == pytest.approx([math.nan], nan_ok=True)
    three = compare(PUBLISHED[:, :3], VARIANTS[:3], by=QUICK)
    assert [(c.first, c.second) for c in three] == [VARIANTS[:2], (VARIANTS[0], VARIANTS[2]), VARIANTS[1:3]]
    assert [c.adjusted for c in three] == pytest.approx(holm([c.p for c in three]))


def test_holm_is_that_of_statsmodels():
    ps = np.random.default_rng(0).random(30) ** 3
    ps[4] = ps[9]
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1].tolist(), abs=1e-15)


def test_ranks_of_what_is_plain_are_sure():
    base = np.random.default_rng(0).normal(size=(40, 1))
    found = rank(base + np.array([0.0, 5.0, 2.0]), ("low", "high", "middle"), by=QUICK)
    assert found.names == ("high", "middle", "low")
    assert found.shares == ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    turned = rank(base + np.array([0.0, 5.0, 2.0]), ("low", "high", "middle"), higher_is_better=False, by=QUICK)
    assert turned.names == ("low", "middle", "high")
    assert turned.means == pytest.approx(found.means[::-1])


def test_ranks_of_what_is_alike_are_even():
    column = np.random.default_rng(0).normal(size=30)
    found = rank(np.column_stack([column] * 3), ("a", "b", "c"), by=QUICK)
    assert np.allclose(found.shares, 1 / 3)


def test_the_share_of_the_first_rank_is_that_of_a_normal_mean():
    rng = np.random.default_rng(2)
    gaps = rng.normal(0.1, 1.0, size=100)
    found = rank(np.column_stack([gaps, np.zeros(100)]), ("a", "b"))
    expected = stats.norm.cdf(gaps.mean() / (gaps.std() / 10))
    assert found.shares[found.names.index("a")][0] == pytest.approx(expected, abs=0.03)
    assert np.allclose(np.sum(found.shares, axis=0), 1)
    assert np.allclose(np.sum(found.shares, axis=1), 1)


def test_undefined_scores_are_counted():
    table = PUBLISHED.copy()
    table[0, 0] = table[3, 2] = np.nan
    assert rank(table, VARIANTS, by=QUICK).undefined == 2
    assert critical_difference(table, VARIANTS).undefined == 2
    assert [c.difference.undefined for c in compare(table, VARIANTS, by=QUICK)] == [1, 2, 1, 1, 0, 1]


def test_what_cannot_be_said_is_said():
    nothing = np.full((3, 3), np.nan)
    ranked, apart = rank(nothing, "abc"), critical_difference(nothing, "abc")
    assert "fewer than two patients" in ranked.note
    assert np.isnan(ranked.shares).all()
    assert math.isnan(apart.difference)
    assert all(math.isnan(c.p) and math.isnan(c.adjusted) for c in compare(nothing, "abc"))
    alike = critical_difference(np.ones((5, 3)), "abc")
    assert math.isnan(alike.p)
    assert alike.note == "all methods tie on every patient"
    assert alike.groups == (("a", "b", "c"),)
    one = compare([[1.0, 2.0], [1.5, 2.0]], "ab", ["p", "p"])[0]
    assert math.isnan(one.p)
    assert one.difference.note.startswith("one patient")
    same = compare(np.ones((5, 2)), "ab", test="wilcoxon")[0]
    assert (same.p, same.ahead.value) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda: compare([[1.0], [2.0]], ["a"]), "1 methods where 2 or more"),
        (lambda: compare([[1.0, 2.0]], ["a"]), "scores of shape"),
        (lambda: compare([[1.0, 2.0]], ["a", "a"]), "scores of shape"),
        (lambda: compare([[1.0, 2.0]], ["a", "b"], test="t"), "no test 't'"),
        (lambda: critical_difference([[1.0, 2.0]], ["a", "b"]), "2 methods where 3 or more"),
    ],
)
def test_what_is_no_comparison_is_refused(ask, problem):
    with pytest.raises(Unfit, match=problem):
        ask()
