"""The null that a region must exceed: how often normal cases exceed it, by simulation."""

import numpy as np
import pytest

from pellucid.core.explanation import Reference
from pellucid.workbench.referencing import merged, tolerance_null

REPEATS = 4000


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("count", [59, 100, 299])
def test_few_normal_cases_exceed_the_null(alpha, count) -> None:
    """In at most 5 % of cohorts more than alpha of all normal cases exceed it, whatever their distribution."""
    draws = np.random.default_rng(0).uniform(size=(REPEATS, count))
    exceed = np.array([1 - tolerance_null(list(cohort), alpha) for cohort in draws])  # for a uniform value
    missed = (exceed > alpha).mean()
    assert missed <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / REPEATS)
    assert missed > 0.001  # it is not the largest value for safety's sake
    error = exceed.std() / np.sqrt(REPEATS)
    assert exceed.mean() <= alpha + 3 * error


def test_the_null_is_one_of_the_values_whatever_their_order() -> None:
    values = list(np.random.default_rng(1).exponential(size=200))
    null = tolerance_null(values)
    assert null in values
    assert tolerance_null(sorted(values)) == tolerance_null(values[::-1]) == null
    assert sum(v > null for v in values) == 4  # Wilks: of 200, the fifth largest


@pytest.mark.parametrize(("alpha", "fewest"), [(0.05, 59), (0.1, 29), (0.01, 299)])
def test_too_few_cases_give_no_null(alpha, fewest) -> None:
    assert tolerance_null([1.0] * (fewest - 1), alpha) is None
    assert tolerance_null([1.0] * fewest, alpha) == 1.0
    assert tolerance_null([], alpha) is None


def test_a_larger_cohort_brings_the_null_down_to_the_quantile() -> None:
    values = np.random.default_rng(2).normal(size=20_000)
    assert tolerance_null(list(values)) == pytest.approx(1.645, abs=0.06)


def test_newer_references_win_and_the_rest_stay() -> None:
    old, new = (Reference(s, None, 0.05, 1, 0, "c") for s in (1.0, 2.0))
    before = {"GradCAM": {"a": old, "b": old}, "Saliency": {"a": old}}
    table = merged(before, {"GradCAM": {"b": new}, "Occlusion": {"a": new}})
    assert table == {"GradCAM": {"a": old, "b": new}, "Saliency": {"a": old}, "Occlusion": {"a": new}}
    assert before["GradCAM"]["b"] is old
