"""Figures of merit: against scikit-learn and counting by hand; covariances against resampling; missing reads."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pellucid.statistics.errors import Unfit
from pellucid.statistics.merits import lroc, roc, wafroc
from pellucid.statistics.reads import column, crossed

TRUTH = np.r_[np.zeros(30), np.ones(20)]


@pytest.fixture
def ratings():
    """Two arms, three readers, 50 cases, in five steps so that ties are common."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=50) + 1.2 * TRUTH
    return np.clip(np.round(base + rng.normal(size=(2, 3, 50)) + 2), 0, 4)


def test_the_area_is_that_of_scikit_learn(ratings):
    found = roc(ratings, TRUTH).values
    for i, j in product(range(2), range(3)):
        assert found[i, j] == pytest.approx(roc_auc_score(TRUTH, ratings[i, j]), abs=1e-12)


def without_each(ask, patients):
    """The jackknife by leaving patients out of the data."""
    left = np.array([ask(patients != p).ravel() for p in np.unique(patients)])
    gaps = left - left.mean(axis=0)
    return (len(left) - 1) / len(left) * gaps.T @ gaps


@pytest.mark.parametrize("of_two", [False, True])
def test_the_jackknife_is_leaving_patients_out(ratings, of_two):
    patients = np.arange(50) // 2 if of_two else np.arange(50)
    # a patient with a normal and a diseased case too
    patients = np.where(np.arange(50) == 40, patients[3], patients) if of_two else patients
    by_hand = without_each(lambda kept: roc(ratings[..., kept], TRUTH[kept]).values, patients)
    assert np.allclose(roc(ratings, TRUTH, patients).jackknife(), by_hand, atol=1e-14)


def test_delong_is_near_the_jackknife(ratings):
    patients = np.arange(50) // 2
    for who in (None, patients):
        one, two = roc(ratings, TRUTH, who).delong(), roc(ratings, TRUTH, who).jackknife()
        assert np.allclose(one, two, rtol=0.25, atol=3e-4)
        assert (np.linalg.eigvalsh(one) > -1e-12).all()


def test_copies_of_a_case_are_not_more_patients(ratings):
    once = roc(ratings, TRUTH)
    often = roc(np.tile(ratings, 3), np.tile(TRUTH, 3), np.tile(np.arange(50), 3))
    assert np.allclose(often.values, once.values)
    assert np.allclose(often.delong(), once.delong(), rtol=1e-9)
    assert np.allclose(often.jackknife(), once.jackknife(), rtol=1e-9)


def test_lroc_by_hand(ratings):
    located = np.random.default_rng(1).random(ratings.shape) < 0.7
    found = lroc(ratings, TRUTH, located).values
    pairs = [
        (d > n) * right + 0.5 * (d == n) * right
        for n, (d, right) in product(ratings[0, 0, :30], zip(ratings[0, 0, 30:], located[0, 0, 30:], strict=True))
    ]
    assert found[0, 0] == pytest.approx(np.mean(pairs), abs=1e-12)
    assert np.allclose(lroc(ratings, TRUTH, np.ones_like(located)).values, roc(ratings, TRUTH).values)
    assert not lroc(ratings, TRUTH, np.zeros_like(located)).values.any()


def test_wafroc_by_hand():
    # two normal cases, one without a mark; two diseased, the second with two lesions, one of them not marked
    false = np.array([[[1.0, -math.inf, 9.0, -math.inf]]])
    lesions, where = np.array([[[1.0, 2.0, -math.inf]]]), [2, 3, 3]
    found = wafroc(false, lesions, where, [0, 0, 1, 1])
    first = (0.5 + 1) / 2
    second = ((1 + 1) / 2 + (0 + 0.5) / 2) / 2
    assert found.values[0, 0] == pytest.approx((first + second) / 2, abs=1e-12)
    heavy = wafroc(false, lesions, where, [0, 0, 1, 1], weights=[1.0, 0.9, 0.1]).values[0, 0]
    assert heavy == pytest.approx((first + 0.9 + 0.025) / 2, abs=1e-12)


def test_wafroc_of_one_lesion_and_one_mark_each_is_roc(ratings):
    false = np.where(TRUTH == 1, -np.inf, ratings)
    found = wafroc(false, ratings[..., 30:], np.arange(30, 50), TRUTH)
    assert np.allclose(found.values, roc(ratings, TRUTH).values)
    assert np.allclose(found.jackknife(), roc(ratings, TRUTH).jackknife())


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda r: roc(r[0], TRUTH), "ratings of shape"),
        (lambda r: roc(r, np.zeros(50)), "not made of normal"),
        (lambda r: roc(r, TRUTH * 2), "not made of normal"),
        (lambda r: roc(np.where(np.arange(50) == 7, np.nan, r), TRUTH), "6 of 300 ratings are missing, in 1 cases"),
        (lambda r: lroc(r, TRUTH, r[0] > 1), "located has shape"),
        (lambda r: roc(r, TRUTH, np.r_[np.zeros(30), np.arange(1, 21)]).jackknife(), "one patient has all"),
        (lambda r: roc(r, TRUTH, np.r_[np.zeros(30), np.arange(1, 21)]).delong(), "one patient has all"),
        (lambda r: wafroc(r, r[..., 30:-1], np.arange(30, 49), TRUTH), "a diseased case has no lesion"),
        (lambda r: wafroc(r, r[..., 30:], np.arange(30, 49), TRUTH), "lesion marks of shape"),
        (lambda r: wafroc(r, r[..., 30:], np.arange(30, 50), TRUTH, weights=np.ones(20) / 2), "weights of lesions"),
    ],
)
def test_what_is_no_reading_is_refused(ratings, ask, problem):
    with pytest.raises(Unfit, match=problem):
        ask(ratings)


@pytest.fixture
def table():
    """Two arms, two readers, three cases, in no order."""
    rows = [(a, r, c) for c in ("c3", "c1", "c2") for a in ("x", "a") for r in (7, 3)]
    frame = pd.DataFrame(rows, columns=["arm", "reader_id", "case_id"])
    frame["truth"] = (frame["case_id"] == "c2").astype(int)
    frame["rating"] = np.arange(12.0)
    return frame


def test_a_table_is_laid_out(table):
    found = crossed(table)
    assert (found.arms, found.readers, found.cases, found.left_out) == (("a", "x"), ("3", "7"), ("c1", "c2", "c3"), 0)
    assert found.spread(table["rating"])[0, 0].tolist() == [7.0, 11.0, 3.0]
    assert found.of_case(table["truth"], "truth").tolist() == [0, 1, 0]
    columns = {name: table[name].to_numpy() for name in table}
    assert (crossed(columns).rows == found.rows).all()


def test_names_may_be_of_several_types(table):
    assert crossed(table.assign(reader_id=[7, "b"] * 6)).readers == ("7", "b")


def test_missing_reads_are_refused_or_counted(table):
    holes = table.drop(index=[5])
    with pytest.raises(Unfit, match="1 of 12 reads are missing, such as c1 by 3 in x"):
        crossed(holes.reset_index())
    found = crossed(holes, incomplete="leave out")
    assert (found.cases, found.left_out) == (("c2", "c3"), 1)
    with pytest.raises(Unfit, match="no case was read by every reader"):
        crossed(table[table["arm"].eq("a") ^ table["reader_id"].eq(3)], incomplete="leave out")


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda t: crossed(pd.concat([t, t.iloc[[4]]])), "1 reads are there twice"),
        (lambda t: crossed(t.drop(columns="arm")), "no column 'arm' in the table of reads"),
        (lambda t: crossed(t.iloc[:0]), "the table of reads is empty"),
        (lambda t: crossed(t.assign(reader_id=[np.nan] * 12)), "12 reads have no reader_id"),
        (lambda t: crossed(t.assign(reader_id=[pd.NA, "a"] * 6)), "6 reads have no reader_id"),
        (lambda t: crossed(t).of_case(t["rating"], "truth"), "truth differs between reads of c1, c2, c3"),
        (lambda t: column(t, "trust"), "no column 'trust'"),
    ],
)
def test_what_is_no_table_of_reads_is_refused(table, ask, problem):
    with pytest.raises(Unfit, match=problem):
        ask(table)
