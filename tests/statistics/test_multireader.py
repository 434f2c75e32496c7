"""Obuchowski-Rockette-Hillis: the Van Dyke study to every printed digit, power, and errors of the first kind."""

import math
from csv import DictReader

import numpy as np
import pytest
from scipy import stats

from pellucid.statistics.errors import Unfit
from pellucid.statistics.merits import roc
from pellucid.statistics.multireader import analyze, components
from pellucid.statistics.power import cases_needed, power
from pellucid.statistics.reads import crossed

# Roe and Metz (1997): spreads of readers, of cases, of arms by cases, of readers by cases and of a read by itself, at
# an area of 0.856; first letter: how cases correlate reads, second: how far readers lie apart
ROE_METZ = {
    "HL": (0.0055, 0.3, 0.3, 0.2, 0.2),
    "LL": (0.0055, 0.1, 0.1, 0.2, 0.6),
    "HH": (0.0300, 0.3, 0.3, 0.2, 0.2),
    "LH": (0.0300, 0.1, 0.1, 0.2, 0.6),
}


@pytest.fixture(scope="module")
def table(shared_data):
    """Ratings of five readers for 114 patients in two arms, 45 of them with an aortic dissection."""
    with (shared_data / "mrmc_vandyke" / "ratings.csv").open(encoding="utf-8") as file:
        rows = list(DictReader(file))
    return {name: np.array([float(r[name]) for r in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def merit(table):
    reads = crossed(table, arm="modality", reader="reader", case="case")
    assert (len(reads.arms), len(reads.readers), len(reads.cases)) == (2, 5, 114)
    return roc(reads.spread(table["rating"]), reads.of_case(table["truth"], "truth"))


@pytest.fixture(scope="module")
def study(merit):
    return analyze(merit, ("spin echo", "cine"))


def printed(value, figures):
    """As a table prints it, to so many significant figures."""
    return float(f"{value:.{figures}g}")


def test_the_areas_of_van_dyke(study):
    spin, cine = study.values
    assert [printed(v, 8) for v in spin] == [0.91964573, 0.85877617, 0.90386473, 0.97310789, 0.82979066]
    assert [printed(v, 8) for v in cine] == [0.94782609, 0.90531401, 0.92173913, 0.99935588, 0.92995169]
    assert [printed(a.value, 8) for a in study.rrrc.arms] == [0.89703704, 0.94083736]


def test_the_components_of_van_dyke(study):
    parts = study.components
    assert printed(parts.variance, 8) == 0.00080228827
    assert printed(parts.cov1, 8) == 0.00034661371
    assert printed(parts.cov2, 8) == 0.00034407483
    assert printed(parts.cov3, 8) == 0.00023902837
    assert printed(parts.ms_t, 9) == 0.00479617053
    assert printed(parts.ms_tr, 8) == 0.00055103062
    assert printed(parts.var_tr, 8) == 0.00020040252


@pytest.mark.parametrize(
    ("kind", "statistic", "p", "error", "ends"),
    [
        ("rrrc", 4.4563187, 0.051665686, 0.020748618, (-0.087959499, 0.00035885444)),
        ("frrc", 5.4759532, 0.019279843, 0.018717483, (-0.080485914, -0.0071147303)),
        ("rrfc", 8.704, 0.041958752, 0.014846287, (-0.085020224, -0.0025804202)),
    ],
)
def test_the_comparison_of_van_dyke(study, kind, statistic, p, error, ends):
    found = getattr(study, kind)
    pair = found.differences[0]
    assert printed(found.statistic, 8) == statistic
    assert printed(found.p, 8) == p
    assert printed(pair.p, 8) == p
    assert printed(pair.difference.value, 8) == -0.043800322
    assert printed(pair.error, 8) == error
    assert (printed(pair.difference.low, 8), printed(pair.difference.high, 8)) == ends
    assert found.df == {"rrrc": (1, pytest.approx(15.259675, abs=5e-7)), "frrc": (1, math.inf), "rrfc": (1, 4)}[kind]


@pytest.mark.parametrize(
    ("kind", "spin", "cine"),
    [
        ("rrrc", (0.82522360, 0.96885048), (0.89413783, 0.98753689)),
        ("frrc", (0.84943008, 0.94464399), (0.90795637, 0.97371835)),
        ("rrfc", (0.82809808, 0.96597599), (0.89598936, 0.98568536)),
    ],
)
def test_the_arms_of_van_dyke(study, kind, spin, cine):
    found = getattr(study, kind).arms
    assert [(round(a.low, 8), round(a.high, 8)) for a in found] == [spin, cine]
    assert found[0].count == 570


def test_van_dyke_with_delongs_covariance(merit):
    found = analyze(merit, ("spin echo", "cine"), covariance="delong").rrrc
    assert round(found.differences[0].error, 6) == 0.020683
    assert round(found.df[1], 3) == 15.066
    assert round(found.p, 5) == 0.05123


def test_one_reader_of_van_dyke_by_the_normal(table, merit):
    """Each reader's difference as printed: the analysis of these readers, of one."""
    reads = crossed(table, arm="modality", reader="reader", case="case")
    ratings, truth = reads.spread(table["rating"]), reads.of_case(table["truth"], "truth")
    errors = [0.025512133, 0.026301827, 0.031209647, 0.017291289, 0.044057460]
    ps = [0.269338854, 0.076831017, 0.566834139, 0.129017153, 0.023000993]
    for j in range(5):
        found = analyze(roc(ratings[:, [j]], truth), ("spin echo", "cine"))
        assert found.frrc.differences[0].error == pytest.approx(errors[j], abs=5e-10)
        assert found.frrc.p == pytest.approx(ps[j], abs=5e-10)
        assert math.isnan(found.rrrc.p)
        assert found.rrrc.note == "one reader: nothing can be said of random readers and random cases"
        assert math.isnan(found.rrrc.differences[0].difference.low)
        assert found.rrrc.arms[0].note.startswith("one reader")


def test_one_arm_of_van_dyke(table, study):
    reads = crossed(table, arm="modality", reader="reader", case="case")
    alone = analyze(roc(reads.spread(table["rating"])[:1], reads.of_case(table["truth"], "truth")), ("spin echo",))
    assert alone.rrrc.arms[0].low == pytest.approx(study.rrrc.arms[0].low, abs=1e-12)
    assert math.isnan(alone.rrrc.p)
    assert alone.rrrc.note == "one arm: nothing to compare"
    assert alone.rrrc.differences == ()


def test_the_published_power(study):
    pilot, gap = study.components, -0.043800322
    assert round(power(pilot, gap, 10, 165).power, 8) == 0.80541995
    assert round(power(pilot, 0.05, 6, 251).power, 4) == 0.8923
    assert round(power(pilot, gap, 6, 111).power, 7) == 0.5526116
    assert round(power(pilot, gap, 10, 131, kind="FRRC").power, 8) == 0.80091813
    assert round(power(pilot, gap, 10, 53, kind="RRFC").power, 8) == 0.80496663
    plan = cases_needed(pilot, gap, 6)
    assert (plan.cases, round(plan.power, 3)) == (251, 0.801)
    assert power(pilot, gap, 6, 250).power < 0.8


def test_power_at_no_difference_is_the_error(study):
    for kind in ("RRRC", "FRRC", "RRFC"):
        assert power(study.components, 0.0, 6, 100, kind=kind).power == pytest.approx(0.05, abs=1e-12)


def test_too_few_readers_never_get_there(study):
    plan = cases_needed(study.components, 0.02, 2)
    assert plan.cases == 100_000
    assert plan.power < 0.8
    with pytest.raises(Unfit, match="1 readers and 10 cases are no study of RRRC"):
        power(study.components, 0.05, 1, 10)


def roe_metz(structure, rng, *, readers=5, normal=25, diseased=25, mu=1.5, arms=2):
    """Ratings "arm reader case" under the null: arms differ by chance alone."""
    of_reader, of_case, arm_case, reader_case, own = (math.sqrt(v) for v in ROE_METZ[structure])
    sides = []
    for count, shift in ((normal, 0.0), (diseased, mu)):
        sides.append(
            shift
            + of_reader * (rng.normal(size=(1, readers, 1)) + rng.normal(size=(arms, readers, 1)))
            + of_case * rng.normal(size=(1, 1, count))
            + arm_case * rng.normal(size=(arms, 1, count))
            + reader_case * rng.normal(size=(1, readers, count))
            + own * rng.normal(size=(arms, readers, count))
        )
    return np.concatenate(sides, axis=-1), np.r_[np.zeros(normal), np.ones(diseased)]


@pytest.mark.parametrize("structure", ROE_METZ)
def test_errors_of_the_first_kind(structure):
    rng, studies = np.random.default_rng(1997), 600
    found = [analyze(roc(*roe_metz(structure, rng)), ("a", "b")).rrrc.p < 0.05 for _ in range(studies)]
    assert np.mean(found) == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / studies))


def test_a_true_difference_is_found_as_often_as_planned():
    rng, found = np.random.default_rng(5), []
    for _ in range(300):
        ratings, truth = roe_metz("LL", rng, readers=6, normal=40, diseased=40)
        ratings[0, :, 40:] += 0.45
        found.append(analyze(roc(ratings, truth), ("a", "b")))
    pilot = components_of_many(found)
    gap = np.mean([f.rrrc.differences[0].difference.value for f in found])
    planned = power(pilot, float(gap), 6, 80).power
    assert np.mean([f.rrrc.p < 0.05 for f in found]) == pytest.approx(planned, abs=0.09)


def components_of_many(studies):
    """Components averaged over many simulated studies."""
    kind = type(studies[0].components)
    names = ("variance", "cov1", "cov2", "cov3", "ms_t", "ms_tr")
    means = [float(np.mean([getattr(s.components, n) for s in studies])) for n in names]
    return kind(*means, studies[0].components.readers, studies[0].components.cases)


def test_readers_who_agree_leave_nothing_to_test_with():
    ratings = np.tile(np.arange(10.0), (2, 3, 1))
    found = analyze(roc(ratings, np.arange(10) > 4), ("a", "b"))
    assert found.rrrc.note == "readers and arms do not vary: nothing to test with"
    assert math.isnan(found.rrrc.p)
    assert found.rrrc.differences[0].difference.value == 0


def test_the_same_reads_twice_leave_nothing_to_test_with():
    ratings, truth = roe_metz("LL", np.random.default_rng(3), arms=1)
    found = analyze(roc(np.concatenate([ratings, ratings]), truth), ("a", "b"))
    for analysis in (found.rrrc, found.frrc, found.rrfc):
        assert math.isnan(analysis.p)
        assert analysis.note == "readers and arms do not vary: nothing to test with"
        assert analysis.arms[0].bounded


def test_three_arms_make_three_pairs():
    ratings, truth = roe_metz("LL", np.random.default_rng(0), arms=3)
    found = analyze(roc(ratings, truth), ("a", "b", "c"))
    assert [(c.first, c.second) for c in found.rrrc.differences] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found.rrrc.df[0] == 2
    parts = found.components
    by_hand = parts.ms_t / (parts.ms_tr + 5 * max(parts.cov2 - parts.cov3, 0))
    assert found.rrrc.statistic == pytest.approx(by_hand, abs=1e-12)
    assert found.rrrc.p == pytest.approx(stats.f.sf(by_hand, 2, found.rrrc.df[1]), abs=1e-12)


def test_components_are_means_of_the_covariance():
    values, shared = np.array([[0.8, 0.9], [0.7, 0.85]]), np.arange(16.0).reshape(2, 2, 2, 2)
    parts = components(values, shared, 7)
    assert parts.variance == np.mean([0, 5, 10, 15])
    assert parts.cov1 == np.mean([2, 7, 8, 13])
    assert parts.cov2 == np.mean([1, 4, 11, 14])
    assert parts.cov3 == np.mean([3, 6, 9, 12])


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda m: analyze(m, ("a",)), "1 names for 2 arms"),
        (lambda m: analyze(m, ("a", "b"), covariance="bootstrap"), "no covariance 'bootstrap'"),
        (lambda m: analyze(m, ("a", "b"), level=5), "level of an interval"),
    ],
)
def test_what_is_no_study_is_refused(merit, ask, problem):
    with pytest.raises(Unfit, match=problem):
        ask(merit)
