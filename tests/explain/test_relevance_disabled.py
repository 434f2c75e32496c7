"""A site that may not use the relevance family leaves it out by one setting."""

import json

import pytest
from typer.testing import CliRunner

from pellucid.cli.main import app
from pellucid.core.errors import BadOption, UnknownName
from pellucid.workbench.registry import explainers, make_explainer

FAMILY = {"LRP", "DeepTaylor", "DeepLIFT", "DeepSHAP"}


def test_the_family_is_there_and_can_be_left_out(monkeypatch):
    assert set(explainers()) >= FAMILY
    monkeypatch.setenv("PELLUCID_DISABLE", "relevance")
    assert not set(explainers()) & FAMILY
    assert "Saliency" in explainers()
    with pytest.raises(UnknownName, match=r"LRP is left out here.*PELLUCID_DISABLE"):
        make_explainer("LRP:rule=epsilon")
    listed = json.loads(CliRunner().invoke(app, ["methods", "--json"]).stdout)
    rows = listed["methods"] if isinstance(listed, dict) else listed
    names = {row["name"] for row in rows}
    assert "Saliency" in names
    assert not names & FAMILY


def test_single_methods_can_be_left_out_and_misspelled_ones_are_named(monkeypatch):
    monkeypatch.setenv("PELLUCID_DISABLE", "lrp, DeepTaylor")
    assert set(explainers()) & FAMILY == {"DeepLIFT", "DeepSHAP"}
    monkeypatch.setenv("PELLUCID_DISABLE", "relevancy")
    with pytest.raises(BadOption, match="relevancy"):
        explainers()
