"""Several readers' masks of one finding: their consensus is the truth, and the case says so."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.case import Region, consensus
from pellucid.core.errors import BadRegion
from pellucid.core.target import ClassScore
from pellucid.explain.gradient import Saliency
from pellucid.workbench.evaluating import score_panel, truth_region
from pellucid.workbench.explaining import explain_case
from pellucid.workbench.opening import open_case
from pellucid.workbench.readers import with_consensus
from pellucid.workbench.registry import make_metric


@pytest.fixture
def read(make_case):
    """``read(*shifts)``: the lesion as readers drew it who are ``shifts`` pixels apart; the 16 x 16 network halves."""

    def of(*shifts):
        case = make_case()
        lesion = case.regions["lesion"]
        drawn = {f"reader {i}": lesion.mask.roll(2 * s, 1) for i, s in enumerate(shifts, 1)}
        return replace(case, regions={n: Region(m, lesion.grid, reader=n) for n, m in drawn.items()})

    return of


@given(st.integers(1, 7), st.integers(0, 10**6))
def test_the_majority_counts_votes(readers, seed):
    masks = np.random.default_rng(seed).random((readers, 5, 6)) < 0.5
    votes = masks.sum(0)
    given_masks = [torch.from_numpy(m) for m in masks]
    assert np.array_equal(consensus(given_masks).numpy(), votes >= readers / 2)
    assert np.array_equal(consensus(given_masks, ties=False).numpy(), votes > readers / 2)


def test_of_two_readers_it_is_the_union_and_the_case_says_whose(classifier, read):
    case = read(0, 1)
    opened = open_case(case, classifier)
    first, second = opened.scene.readers.values()
    assert list(opened.scene.readers) == ["reader 1", "reader 2"]
    assert int((first & second).sum()) == 12
    assert list(opened.scene.regions) == ["consensus"]
    assert torch.equal(opened.scene.regions["consensus"], first | second)
    words = "the region is the consensus of reader 1, reader 2: what at least half of them marked (ties count)"
    assert opened.case.notes[-1] == words
    assert truth_region(case) == truth_region(opened.case) == "consensus"
    assert with_consensus(opened.case) is opened.case


def test_one_reader_is_an_expert_like_any_other(classifier, read):
    case = read(0)
    opened = open_case(case, classifier)
    assert list(opened.scene.regions) == list(opened.scene.readers) == ["reader 1"]
    assert opened.case.notes == case.notes
    assert truth_region(case) == "reader 1"


def test_planted_truth_comes_before_readers_and_readers_before_other_regions(read):
    case = read(0, 1)
    lesion = case.regions["reader 1"]
    other = replace(case, regions={"lung": Region(lesion.mask, lesion.grid), **case.regions})
    assert truth_region(other) == "consensus"
    planted = replace(case, regions={**case.regions, "disc": Region(lesion.mask, lesion.grid, "planted")})
    assert truth_region(planted) == "disc"


def test_a_reader_with_two_masks_is_refused(classifier, read):
    case = read(0, 1)
    twice = replace(case, regions={**case.regions, "edema": replace(case.regions["reader 1"])})
    with pytest.raises(
        BadRegion, match=r"one mask of each reader, got two of 'reader 1'.*name readers for one finding"
    ):
        open_case(twice, classifier)
    taken = replace(case, regions={**case.regions, "consensus": replace(case.regions["reader 1"], reader="")})
    with pytest.raises(BadRegion, match=r"a region named 'consensus' beside its readers'. give it another name"):
        open_case(taken, classifier)
    called = replace(case, regions={"anna": replace(case.regions["reader 1"], reader="consensus")})
    with pytest.raises(BadRegion, match=r"is named 'consensus'. that is what readers agree upon"):
        open_case(called, classifier)


def test_a_region_that_happens_to_be_called_so_is_nobodys_consensus(classifier, read):
    case = read(0)
    case = replace(case, regions={"consensus": replace(case.regions["reader 1"], reader="")})
    panel = explain_case(open_case(case, classifier), [ClassScore("bright")], [Saliency()])
    dice = score_panel(panel, case, [make_metric("Dice")])[0]
    assert dice.region == "consensus"
    assert "truth" not in dice.score.detail


def test_scores_against_the_consensus_say_whose_it_is(classifier, read):
    case = read(0, 1, -1)
    panel = explain_case(open_case(case, classifier), [ClassScore("bright")], [Saliency()])
    dice, entropy = score_panel(panel, case, [make_metric("Dice"), make_metric("Entropy")])
    assert (dice.region, entropy.region) == ("consensus", None)
    assert "reader 1, reader 2, reader 3" in dice.plain()["detail"]["truth"]
    assert "truth" not in entropy.score.detail
    assert any("consensus of reader 1" in w for w in panel.explanations[0].provenance.warnings)
