"""Agreement of methods: known correlations and overlaps, and what is not compared."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import spearmanr

from pellucid.core.explanation import Explanation
from pellucid.metrics.likeness import block_means, common_blocks, rank_correlation, top_overlap
from pellucid.workbench.agreeing import agreement, agreements
from pellucid.workbench.answering import answer, ground

Make = Callable[..., Explanation]


def test_ranks_are_spearmans() -> None:
    random = np.random.default_rng(0)
    one = random.normal(size=400).round(1)  # with ties
    other = one + random.normal(size=400).round(1)
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic, abs=1e-12)
    assert rank_correlation(one, np.zeros(400)) is None
    assert rank_correlation(one[:19], other[:19]) is None


def test_overlap_of_the_strongest_tenth() -> None:
    one, other = np.zeros(100), np.zeros(100)
    one[:10], other[5:15] = 1, 1
    assert top_overlap(one, other) == pytest.approx(0.5)
    assert top_overlap(one, one) == 1
    lone = np.zeros(100)
    lone[3] = 1
    assert top_overlap(one, lone) == pytest.approx(0.1), "zeros never belong to the strongest tenth"
    assert top_overlap(np.zeros(100), np.zeros(100)) is None
    assert top_overlap(one[:40], other[:40]) is None, "four blocks are too few"


def test_chance_is_what_the_note_says() -> None:
    random = np.random.default_rng(1)
    found = [top_overlap(random.random(1000), random.random(1000)) for _ in range(50)]
    assert np.mean(found) == pytest.approx(0.1, abs=0.02)


def test_blocks_are_means_and_never_finer_than_the_coarser_cell() -> None:
    values = np.arange(64.0).reshape(8, 8)
    np.testing.assert_allclose(block_means(values, (2, 4)), values.reshape(2, 4, 4, 2).mean((1, 3)))
    assert common_blocks((224, 224), ((1.0, 1.0), (32.0, 32.0))) == (7, 7)
    assert np.prod(common_blocks((96, 96, 96), ((), ()))) <= 65_536


def test_signed_and_unsigned_maps_are_compared_by_their_positive_part(explained: Make) -> None:
    values = np.random.default_rng(2).normal(size=(20, 20))
    signed = explained(values, method="InputXGradient")
    plain = explained(np.maximum(values, 0), method="Saliency", signed=False)
    found = agreement([signed, plain], ["InputXGradient", "Saliency"], ["", ""])
    assert found.rank[0][1] == pytest.approx(1)
    assert found.overlap[1][0] == pytest.approx(1)
    assert "nothing about whether any of the maps is right" in found.plain()["caution"]


def test_a_map_that_shows_nothing_is_left_out_with_the_reason(explained: Make) -> None:
    values = np.random.default_rng(3).random((20, 20))
    maps = [explained(values, method="A"), explained(values, null=5.0, method="B"), explained(-values, method="C")]
    (found,) = agreements(maps, ["A", "B", "C"], [answer(e, ground(e.image.grid, e.prepared)) for e in maps])
    assert found.names == ("A",)
    assert [name for name, _ in found.left_out] == ["B", "C"]
    assert all(why for _, why in found.left_out)


def test_each_target_has_its_own_and_below_the_operating_point_it_is_withheld(explained: Make) -> None:
    values = np.random.default_rng(4).random((20, 20))
    maps = [explained(values, target=t, method=m, score=s) for t, s in (("mass", 2), ("edema", 0)) for m in ("A", "B")]
    read = [answer(e, ground(e.image.grid, e.prepared)) for e in maps]
    mass, edema = agreements(maps, ["A", "B"] * 2, read)
    assert (mass.target, mass.withheld) == ("mass", "")
    assert set(edema.plain()) == {"target", "withheld"}
    assert agreements(maps[:1], ["A"], read[:1]) == ()
