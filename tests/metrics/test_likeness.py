"""Likeness of two maps: known values, shared ties, and what says nothing."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from pellucid.metrics.likeness import kept_part, part_iou, spearman, structure, top_part, unit_ranks

NOISE = np.random.default_rng(0).normal(size=(3, 12, 10))


def test_the_same_map_is_alike_exactly():
    one, flat = NOISE[0], NOISE[0].ravel()
    part = top_part(flat, 12)
    assert (spearman(flat, flat), structure(one, one), kept_part(part, part), part_iou(part, part)) == (1, 1, 1, 1)
    assert (spearman(flat, np.exp(flat)), spearman(flat, -flat)) == (1, pytest.approx(-1))


def test_ranks_with_ties_are_scipys():
    one, other = NOISE[0].round(1).ravel(), (NOISE[0] + NOISE[1]).round(1).ravel()
    assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic, abs=1e-12)


def test_ranks_of_length_one_multiply_to_the_correlation():
    one, other = unit_ranks(NOISE[0]), unit_ranks(NOISE[1])
    assert (one**2).sum() == pytest.approx(1, abs=1e-12)
    assert (one * other).sum() == pytest.approx(spearman(NOISE[0].ravel(), NOISE[1].ravel()), abs=1e-12)
    broken = np.where(NOISE[0] == NOISE[0].max(), np.nan, NOISE[0])
    assert math.isnan(spearman(broken.ravel(), NOISE[1].ravel()))


def test_values_tied_at_the_end_share_what_is_left():
    values = np.array([5.0, 1.0, 1.0, 0.0, 1.0])
    assert top_part(values, 2).tolist() == pytest.approx([1, 1 / 3, 1 / 3, 0, 1 / 3])
    other = np.array([5.0, 1.0, 0.0, 0.0, 0.0])
    assert kept_part(top_part(values, 2), top_part(other, 2)) == pytest.approx((1 + 1 / 3) / 2)
    assert part_iou(top_part(other, 2), top_part(other[::-1], 2)) == 0


def test_structure_is_compared_on_the_map_s_own_axes():
    """Of flattened maps, which is Quantus' way, neighbors across a row's end count as neighbors along it."""
    one, other = NOISE[0], NOISE[0] + 0.3 * NOISE[1]
    assert structure(one, other) == pytest.approx(structure(one.T, other.T), abs=1e-12)
    assert structure(one, 40 * other + 7) == pytest.approx(structure(one, other), abs=1e-12)
    assert structure(one, other) > structure(one, NOISE[1])
    volume = np.random.default_rng(1).normal(size=(2, 4, 9, 8))
    assert structure(volume[0], volume[1]) < 0.2


@pytest.mark.parametrize("flat", [np.ones((12, 10)), np.zeros((12, 10))])
def test_a_constant_map_is_like_nothing(flat):
    assert math.isnan(structure(flat, NOISE[0]))
    assert math.isnan(spearman(flat.ravel(), NOISE[0].ravel()))
    assert np.isnan(unit_ranks(flat)).all()
    assert math.isnan(structure(NOISE[0][:2], NOISE[1][:2])), "two rows have no structure to compare"
