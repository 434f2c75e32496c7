"""``pellucid verify``: its table, its JSON and its exit codes."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pellucid.cli import verify
from pellucid.verify.metrics_running import ChosenMetrics
from pellucid.verify.verdict import Row, Shown, Verdict, Verification

Command = Callable[..., object]
ROW = Row("GradCAM", "captum", "LayerGradCam", "pooled-2d act2", "film 40x48", "as they are", 1e-6, Verdict.EQUAL, 2e-9)
MISSING = Row(
    "GradCAM", "zennit", "Gradient", "net", "film", "as they are", 1e-6, Verdict.NOT_RUN, reason="no module 'zennit'"
)
EXPLAINED = Row(
    "CAM", "monai", "CAM", "net", "film", "cells", 1e-6, Verdict.EXPLAINED, 0.4, ("C1",), as_it_is=0.0, mended=1e-12
)
DIFFERENT = Row("CAM", "monai", "CAM", "net", "film", "cells", 1e-6, Verdict.DIFFERS, 0.4)
METRIC = Row(
    "HitRate of Saliency",
    "quantus",
    "PointingGame",
    "dense-2d",
    "film",
    "as they are",
    1e-9,
    Verdict.EQUAL,
    0.0,
    here=0.25,
    there=0.25,
)
SHOWN = Shown("B9", "monai", "hooks grow", "they do not", Verdict.SHOWN)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the comparison find these rows."""

    def set_rows(*rows: Row) -> None:
        monkeypatch.setattr(verify, "compare", lambda *_: Verification(rows, [SHOWN], {"here": {"torch": "2"}}, 3.0))

    return set_rows


@pytest.mark.parametrize(
    ("rows", "words", "code"),
    [
        ((ROW, EXPLAINED), (), 0),
        ((ROW, EXPLAINED), ("--require-all",), 0),
        ((ROW, MISSING), (), 0),
        ((ROW, MISSING), ("--require-all",), 1),
        ((ROW, DIFFERENT), (), 1),
    ],
)
def test_exit_codes(
    pellucid: Command, found: Callable[..., None], rows: tuple[Row, ...], words: tuple[str, ...], code: int
) -> None:
    found(*rows)
    done = pellucid("verify", *words, "--json")
    assert done.code == code
    assert done.json["passed"] is (code == 0)
    assert pellucid("verify", *words).code == code


def test_the_table_tells_each_verdict(pellucid: Command, found: Callable[..., None]) -> None:
    found(ROW, MISSING, EXPLAINED, DIFFERENT)
    out = pellucid("verify").out
    for words in ("2.0e-09", "NOT RUN (no module 'zennit')", "explained C1", "DIFFERS", "hooks grow", "1 shown"):
        assert words in out, words


def test_metrics_have_their_numbers_beside_the_peers(
    pellucid: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, ...]] = []

    def compare(plan: ChosenMetrics, *_: object) -> Verification:
        asked.append(tuple(c.call for c in plan.comparisons))
        return Verification([METRIC], [Shown("Q5", "quantus", "a hit", "no hit", Verdict.SHOWN)])

    monkeypatch.setattr(verify, "compare_metrics", compare)
    out = pellucid("verify", "--metrics").out
    for words in ("The same metric", "0.25", "Defects of the peers", "Q5", "a hit", "no hit", "1 equal, 1 shown"):
        assert words in out, words
    few = pellucid("verify", "--metrics", "--method", "hitrate", "--peer", "quantus", "--json", "--out", tmp_path)
    assert few.code == 0
    assert (few.json["rows"][0]["here"], few.json["rows"][0]["there"]) == (0.25, 0.25)
    assert (tmp_path / "verify-metrics.json").read_text() == few.out
    assert set(asked[1]) == {"PointingGame"}
    assert len(asked[0]) > 30


def test_a_map_has_no_single_number(pellucid: Command, found: Callable[..., None]) -> None:
    found(ROW)
    assert "here" not in pellucid("verify", "--json").json["rows"][0]


def test_a_real_comparison_with_a_peer_that_is_absent(pellucid: Command, tmp_path: Path) -> None:
    """This interpreter has MONAI, and zennit is in another environment."""
    few = ("--method", "SmoothGrad", "--peer", "monai", "--peer", "zennit", "--peers-python", sys.executable)
    done = pellucid("verify", *few, "--json", "--out", tmp_path)
    assert done.code == 0, done.err
    report = done.json
    assert (tmp_path / "verify.json").read_text() == done.out
    by_peer = {p: [r for r in report["rows"] if r["peer"] == p] for p in ("monai", "zennit")}
    assert {r["verdict"] for r in by_peer["monai"]} == {"equal"}
    assert all(r["deviation"] < r["tolerance"] for r in by_peer["monai"])
    assert {r["verdict"] for r in by_peer["zennit"]} == {"NOT RUN"}
    assert all("zennit" in r["reason"] for r in by_peer["zennit"])
    assert report["summary"]["NOT RUN"] == len(by_peer["zennit"])
    assert "monai" in report["versions"]["peers beside pellucid"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--method", "Phrenology"), "there are: "),
        (("--peer", "keras"), "captum, torchcam, monai, grad-cam, zennit, shap, lime, SALib, scikit-learn"),
        (("--peers-python", "nowhere/python"), "there is no interpreter"),
        (("--metrics", "--method", "GradCAM"), "there are: AverageSensitivity, "),
        (("--metrics", "--peer", "zennit"), "quantus, captum"),
    ],
)
def test_bad_input(pellucid: Command, words: tuple[str, ...], told: str) -> None:
    done = pellucid("verify", *words)
    assert done.code == 2
    assert told in done.err
