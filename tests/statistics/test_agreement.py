"""Kappa, Krippendorff's alpha and intraclass correlation against published tables and other implementations."""

import krippendorff as peer
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import fleiss_kappa

from pellucid.statistics.agreement import cohen, fleiss, icc, krippendorff, krippendorff_interval
from pellucid.statistics.errors import Unfit

MANY = settings(max_examples=60, deadline=None)
NAN = np.nan
SCALES = ("nominal", "ordinal", "interval", "ratio")

# Fleiss' kappa, the worked example of the encyclopedia: 10 subjects, 14 raters, 5 categories
FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]
# Krippendorff (2011): 4 observers of 12 units
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)
# Shrout and Fleiss (1979), table 2: 6 subjects, 4 judges
JUDGES = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_cohen_of_the_textbook_table():
    found = cohen([[20, 5], [10, 15]])
    assert (found.value, found.low, found.high) == pytest.approx((0.4, 0.151, 0.649), abs=5e-4)
    assert cohen([[20, 5], [10, 15]], level=0.5).low > found.low


@pytest.mark.parametrize(("units", "kappa"), [(200, 0.4), (2000, 0.6842), (200000, 0.69985)])
def test_kappa_grows_toward_dice_with_the_background(units, kappa):
    """Dice .700 all the time: 100 voxels each, 70 of them in common."""
    assert cohen([[70, 30], [30, units - 130]]).value == pytest.approx(kappa, abs=5e-5)


def test_fleiss_of_the_textbook_table():
    found = fleiss(FLEISS)
    assert found.value == pytest.approx(0.2099, abs=5e-5)
    assert found.low < found.value < found.high


@MANY
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(2, 6), st.integers(2, 12))
def test_fleiss_equals_statsmodels(seed, categories, raters, units):
    counts = np.random.default_rng(seed).multinomial(raters, np.full(categories, 1 / categories), size=units)
    assume(((counts > 0).sum(0) > 0).sum() > 1)
    assert fleiss(counts).value == pytest.approx(fleiss_kappa(counts), abs=1e-12)


@MANY
@given(st.integers(0, 10**6))
def test_weights_stand_for_repeated_units(seed):
    draw = np.random.default_rng(seed)
    counts, often = draw.multinomial(3, [0.5, 0.5], size=6), draw.integers(0, 4, 6)
    ratings = np.array([[1] * a + [0] * b for a, b in counts])
    for one, many in (
        (fleiss(counts, often), fleiss(np.repeat(counts, often, 0))),
        (krippendorff(ratings, weights=often), krippendorff(np.repeat(ratings, often, 0))),
    ):
        assert (one.value, one.low, one.high) == pytest.approx((many.value, many.low, many.high), nan_ok=True)


@pytest.mark.parametrize("cases", [50, 400])
def test_the_interval_of_fleiss_is_as_wide_as_its_values_spread(cases):
    """Kappa .6 of three raters: half an interval is .17 with 50 cases and .06 with 400."""
    draw = np.random.default_rng(cases)
    found = []
    for _ in range(300):
        truth = draw.random(cases) < 0.5
        flips = draw.random((cases, 3)) < (1 - np.sqrt(0.6)) / 2  # kappa = (1 - 2 share)^2
        ones = (truth[:, None] ^ flips).sum(1)
        found.append(fleiss(np.stack([ones, 3 - ones], 1)))
    halves, values = np.array([(f.high - f.low) / 2 for f in found]), np.array([f.value for f in found])
    assert values.mean() == pytest.approx(0.6, abs=0.02)
    assert halves.mean() == pytest.approx(1.96 * values.std(), rel=0.12)
    assert halves.mean() == pytest.approx(1.2 / np.sqrt(cases), rel=0.05)
    assert 0.91 < np.mean([f.low <= 0.6 <= f.high for f in found]) < 0.985


@pytest.mark.parametrize(
    ("scale", "alpha"), [("nominal", 0.7434), ("ordinal", 0.8154), ("interval", 0.8491), ("ratio", 0.7974)]
)
def test_alpha_of_krippendorffs_matrix(scale, alpha):
    assert krippendorff(OBSERVERS.T, scale).value == pytest.approx(alpha, abs=5e-5)


@MANY
@given(st.integers(0, 10**6), st.sampled_from(SCALES), st.integers(2, 5), st.integers(2, 10), st.floats(0, 0.5))
def test_alpha_equals_the_package(seed, scale, raters, units, gaps):
    draw = np.random.default_rng(seed)
    ratings = draw.integers(0, 5, (units, raters)).astype(float)
    ratings[draw.random(ratings.shape) < gaps] = NAN
    pairable = ratings[(~np.isnan(ratings)).sum(1) >= 2]
    known = pairable[~np.isnan(pairable)]
    assume(len(np.unique(known)) > 1)
    assert krippendorff(ratings, scale).value == pytest.approx(
        peer.alpha(reliability_data=ratings.T, level_of_measurement=scale), abs=1e-9
    )


@MANY
@given(st.integers(0, 10**6), st.integers(2, 5))
def test_alpha_of_categories_is_fleiss_but_for_small_samples(seed, raters):
    """1 - alpha = (1 - kappa) (n - 1) / n, n the number of ratings."""
    draw = np.random.default_rng(seed)
    ratings = draw.integers(0, 2, (20, raters))
    assume(0 < ratings.mean() < 1)
    counts, n = np.stack([ratings.sum(1), raters - ratings.sum(1)], 1), ratings.size
    assert 1 - krippendorff(ratings).value == pytest.approx((1 - fleiss(counts).value) * (n - 1) / n)


def test_the_bootstrap_interval_covers_and_clusters_widen_it():
    """30 patients of 4 units each that are rated alike: drawn by unit the interval is too narrow by half."""
    draw, covered, ratio = np.random.default_rng(1), [], []
    patients = np.repeat(np.arange(30), 4)
    for seed in range(25):
        truth = (draw.random(30) < 0.5)[patients]
        wrong = (draw.random((30, 2)) < (1 - np.sqrt(0.5)) / 2)[patients]
        ratings = (truth[:, None] ^ wrong).astype(float)
        units = krippendorff_interval(ratings, draws=200, seed=seed)
        whole = krippendorff_interval(ratings, clusters=patients, draws=200, seed=seed)
        covered.append(whole.low <= 0.5 <= whole.high)
        ratio.append((whole.high - whole.low) / (units.high - units.low))
    assert np.mean(covered) >= 0.8
    assert np.mean(ratio) == pytest.approx(2, rel=0.15)
    again = krippendorff_interval(ratings, clusters=patients, draws=200, seed=seed)
    assert (again.low, again.high) == (whole.low, whole.high)


@pytest.mark.parametrize(
    ("form", "value", "low", "high"),
    [
        ("1,1", 0.17, -0.133, 0.723),
        ("2,1", 0.29, 0.019, 0.761),
        ("3,1", 0.71, 0.342, 0.946),
        ("1,k", 0.44, -0.884, 0.912),
        ("2,k", 0.62, 0.071, 0.927),
        ("3,k", 0.91, 0.676, 0.986),
    ],
)
def test_icc_of_shrout_and_fleiss(form, value, low, high):
    """The values are theirs; the limits are those that R's psych prints for the same table."""
    found = icc(JUDGES, form)
    assert found.value == pytest.approx(value, abs=0.005)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3)


@pytest.mark.parametrize("form", ["1,1", "2,1", "3,1"])
def test_icc_intervals_cover(form):
    """Subjects of variance 2, noise of variance 1, judges alike: 2/3."""
    draw, covered = np.random.default_rng(7), []
    for _ in range(300):
        ratings = np.sqrt(2) * draw.normal(size=(15, 1)) + draw.normal(size=(15, 3))
        found = icc(ratings, form)
        covered.append(found.low <= 2 / 3 <= found.high)
    assert 0.91 < np.mean(covered) < 0.99


def test_a_judge_who_is_always_higher():
    table = np.array([[1.0, 3.0], [2.0, 4.0], [4.0, 6.0], [7.0, 9.0]])
    assert icc(table, "3,1").value == 1
    assert icc(table, "2,1").value < 1
    assert icc(table[:, [0, 0]], "2,k").value == 1


@MANY
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-5, 5))
def test_units_and_raters_have_no_order_and_scales_no_zero(seed, factor, shift):
    draw = np.random.default_rng(seed)
    ratings = draw.normal(size=(6, 4))
    turned = draw.permutation(draw.permutation(ratings).T).T
    for form in ("1,1", "2,k", "3,1"):
        assert icc(turned * factor + shift, form).value == pytest.approx(icc(ratings, form).value, abs=1e-8)
    for scale in ("nominal", "ordinal", "interval"):
        moved = krippendorff(turned * factor + shift, scale).value
        assert moved == pytest.approx(krippendorff(ratings, scale).value, abs=1e-8)


def test_what_is_undefined_says_why():
    same = "all ratings are the same: what chance would give is total"
    found = {
        cohen([[10, 0], [0, 0]]): same,
        cohen([[0, 0], [0, 0]]): "there is nothing that both raters rated",
        fleiss([[3, 0], [3, 0]]): same,
        fleiss(np.zeros((0, 2))): "there are no units",
        krippendorff([[1, 1], [1, 1]]): same,
        krippendorff_interval([[1, 1], [1, 1]]): same,
        krippendorff([[1, NAN], [NAN, 2]]): "no unit has two ratings",
        icc([[0.1, 0.3], [0.1, 0.3]]): "the judges see no difference between subjects",
    }
    for estimate, note in found.items():
        assert np.isnan([estimate.value, estimate.low, estimate.high]).all()
        assert estimate.note == note
    assert fleiss([[2, 1]]).note == "one unit has no interval"
    assert krippendorff_interval([[1, 2], [NAN, 2]]).note == "fewer than two units"
    assert krippendorff_interval([[1, 2]] * 3, clusters=["a"] * 3).note == "fewer than two clusters"


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (lambda: cohen([[1, 2, 3]]), "expected a square table"),
        (lambda: cohen([[1, 2], [3, 4]], level=95), "between 0 and 1, and 95 does not"),
        (lambda: fleiss([[1, 0], [0, 1]]), "needs two raters or more"),
        (lambda: fleiss([[2, 1], [1, 1]]), "as many for every unit"),
        (lambda: krippendorff([[1, 2], [1, 1]], "cardinal"), "one of the scales nominal, ordinal, interval, ratio"),
        (lambda: icc([[1, 2]]), "two subjects and two judges or more"),
        (lambda: icc([[1, NAN], [1, 2]]), "a rating is missing"),
        (lambda: icc(JUDGES, "4,1"), "expected one of the forms"),
    ],
)
def test_what_cannot_be_analyzed_is_refused(wrong, problem):
    with pytest.raises(Unfit, match=problem):
        wrong()


def test_an_estimate_says_how_it_was_made():
    found = krippendorff_interval(OBSERVERS.T, "ordinal", draws=100, seed=4)
    assert (found.count, found.clusters, found.undefined) == (11, 11, 1)
    assert "ordinal, percentile interval of 100 bootstrap draws of units, seed 4" in found.how
    assert icc(JUDGES).how == "ICC(2,1) of 4 judges, interval by the F distribution"
