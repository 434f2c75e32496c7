"""Keeping to a time: what is reduced or left out stands beside the maps and in the numbers; nothing is silent."""

import pytest

from pellucid.core.card import Cost
from pellucid.core.target import ClassScore, RegionScore
from pellucid.explain.byhand import AskByHand
from pellucid.explain.gradient import Saliency
from pellucid.explain.occlusion import Occlusion
from pellucid.explain.pooled import CAM
from pellucid.explain.rise import RISE
from pellucid.plan import budget
from pellucid.workbench import budgeting
from pellucid.workbench.explaining import Manner, explain_case
from pellucid.workbench.opening import open_case


@pytest.fixture
def steady(monkeypatch):
    """A tenth of a second for each pass."""
    monkeypatch.setattr(budgeting, "measure_pace", lambda probe, backward: budget.Pace(0.1, 0.1 if backward else 0.0))


ASKED = (RISE(masks=512), Saliency(), AskByHand())


def test_without_a_limit_the_price_is_said_and_nothing_reduced(steady, classifier, make_case):
    made = budgeting.draw_up(open_case(make_case(), classifier), [ClassScore(0), ClassScore(1)], ASKED)
    assert made.methods == ASKED
    assert made.plan.cost == Cost(2 * (2 * 512 + 2) + 1, 2)
    assert made.words == (
        "3 methods: at most 2,053 forwards and 2 backwards, about 3 min here (100 ms a forward), without checks and "
        "measures; --within SECONDS keeps to a time"
    )
    assert made.said == {}


def test_a_reduced_method_says_so_beside_its_map(steady, classifier, make_case):
    opened = open_case(make_case(), classifier)
    made = budgeting.draw_up(opened, [ClassScore(2)], ASKED, within=30)
    assert made.methods == (RISE(masks=128), Saliency(), AskByHand())
    assert "reduced: RISE masks=128 instead of 512" in made.words
    panel = explain_case(opened, [ClassScore(2)], made.methods, Manner(said=made.said))
    rise, saliency, _ = panel.explanations
    assert "masks=128 instead of 512, to fit into the 30 s asked for" in rise.provenance.warnings
    assert not any("to fit" in words for words in saliency.provenance.warnings)
    assert rise.provenance.settings["masks"] == 128


def test_what_cannot_explain_the_model_stays_to_be_listed_as_such(steady, segmenter, make_case):
    opened = open_case(make_case(), segmenter)
    target = [RegionScore(2)]
    made = budgeting.draw_up(opened, target, (CAM(), RISE(masks=512), Occlusion()), within=20)
    assert made.methods[0] == CAM()
    panel = explain_case(opened, target, made.methods, Manner(strict=False))
    assert [name for name, _ in panel.skipped] == ["CAM"]
