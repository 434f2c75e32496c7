"""``pellucid explain --within``: the price is said before the first pass, and what a time leaves out is told."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

from pellucid.plan.budget import Pace
from pellucid.workbench import budgeting

Command = Callable[..., object]


@pytest.fixture
def asked(pellucid: Command, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Two methods on a picture, a forward taking a tenth of a second."""
    monkeypatch.setattr(budgeting, "measure_pace", lambda probe, backward: Pace(0.1, 0.1))
    Image.fromarray(data.retina()).convert("L").resize((60, 60)).save(tmp_path / "gray.png")
    words = ["explain", tmp_path / "gray.png", "--model", classifier, "--trust-code", "--out", tmp_path / "out"]
    words += ["--method", "Occlusion:window=30,stride=30", "--method", "LIME:players=grid:2,samples=128"]
    return lambda *more: pellucid(*words, *more)


def test_the_price_is_said_before_and_nothing_is_reduced(asked: Command) -> None:
    done = asked()
    assert done.code == 0, done.err
    said = "2 methods: at most 265 forwards, about 26 s here (100 ms a forward), without checks and measures"
    assert said in " ".join(done.out.split())


def test_a_time_is_kept_to_and_the_page_says_how(asked: Command) -> None:
    done = asked("--within", 8, "--json")
    assert done.code == 0, done.err
    (case,) = done.json["cases"]
    lime = next(e for e in case["explanations"] if e["method"] == "LIME")
    assert lime["settings"]["samples"] == 32
    assert "samples=32 instead of 128, to fit into the 8 s asked for" in lime["warnings"]
    assert case["budget"]["seconds"] <= 8
    assert case["budget"]["reduced"] == [{"method": "LIME", "what": "samples=32 instead of 128"}]
    assert "samples=32 instead of 128, to fit into" in Path(case["files"]["report"]).read_text("utf-8")


def test_what_is_left_out_is_listed(asked: Command) -> None:
    done = asked("--within", 2, "--json")
    assert done.code == 0, done.err
    (case,) = done.json["cases"]
    assert [e["method"] for e in case["explanations"]] == ["Occlusion"]
    (skipped,) = case["skipped"]
    assert skipped["method"] == "LIME"
    assert "do not fit into the 2 s asked for" in skipped["reason"]
    assert "left out: 256 forwards" in Path(case["files"]["report"]).read_text("utf-8")


@pytest.mark.parametrize(("within", "words"), [(0, "above 0 seconds"), (0.5, "no method fits into 0.5 s")])
def test_a_time_that_cannot_be_kept_is_refused(asked: Command, within: float, words: str) -> None:
    done = asked("--within", within)
    assert done.code == 2
    assert words in " ".join(done.err.split())
