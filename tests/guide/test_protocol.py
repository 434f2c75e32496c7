"""Protocols: built-in ones say what the review says, and a wrong file names its key."""

import re

import pytest

from pellucid.core.errors import BadOption, UnknownName
from pellucid.guide.protocol import TIERS, built_in, load_protocol, parse_protocol

HEAD = "id='own'\nversion=1\ntitle='t'\nsource='s'\n"
CRITERION = """[[criterion]]
id = "overlap"
tier = "readers"
dimension = "localization"
metric = "IoU"
relation = ">="
value = 0.5
unit = "1"
quote = "q"
source = "s"
source_status = "verified"
"""
SCENARIOS = ("complex-diagnostics", "emergency-triage", "research-development", "screening-mammography")


def plain(text):
    """Without the marks of formulas and with one space between words."""
    text = text.replace("$", "").replace("\\geq", ">=").replace("\\leq", "<=").replace("\\kappa", "kappa")
    text = text.replace("κ", "kappa").replace("\\%", "%").replace("\\", "")
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("name", built_in())
def test_every_quotation_stands_in_the_review(name, shared_data):
    review = plain((shared_data.parent / "review.txt").read_text("utf-8"))
    for criterion in load_protocol(name).criteria:
        assert plain(criterion.quote) in review, criterion.id


def test_the_four_scenarios_and_the_cascade_are_there():
    assert set(SCENARIOS) < set(built_in())
    assert {c.tier for c in load_protocol("evaluation-cascade").criteria} == set(TIERS)


@pytest.mark.parametrize("name", built_in())
def test_no_limit_of_the_review_passes_for_verified(name):
    protocol = load_protocol(name)
    assert protocol.indicative == protocol.criteria
    assert all(c.note for c in protocol.criteria)


def test_a_protocol_of_ones_own(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(HEAD + CRITERION, encoding="utf-8")
    own = load_protocol(str(path))
    assert own.indicative == ()
    assert own.criteria[0].words == "mean IoU >= 0.5"
    assert own.digest != parse_protocol(HEAD + CRITERION.replace("0.5", "0.6")).digest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id = ", "is not TOML"),
        (HEAD, "at least one"),
        (HEAD + CRITERION + CRITERION, "given twice"),
        (HEAD + CRITERION.replace("0.5", "nan"), "criteria.0.value"),
        (HEAD + CRITERION.replace("0.5", "'half'"), "criteria.0.value"),
        (HEAD + CRITERION.replace('">="', '"about"'), "criteria.0.relation"),
        (HEAD + CRITERION.replace("unit", "units"), "criteria.0.unit"),
        (HEAD.replace("version=1", "version=0") + CRITERION, "version of at least 1"),
        (HEAD + "confidence=95.0\n" + CRITERION, "between 0.5 and 1"),
    ],
)
def test_a_wrong_file_names_its_key(text, words):
    with pytest.raises(BadOption, match=words):
        parse_protocol(text)


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(UnknownName, match="screening-mammography"):
        load_protocol("mammography")
