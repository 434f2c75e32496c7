"""Every method and metric against every peer, on real images: none differs or is left out, every defect shows."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from pellucid.verify.plan import PEERS

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def run(*words: str) -> dict[str, Any]:
    """``pellucid verify --json --require-all``, as CI runs it."""
    if not (ROOT / ".venv-peers" / "bin" / "python").exists():
        pytest.skip("the environment of the peers is not there: make .venv-peers/.installed")
    command = [str(Path(sys.executable).with_name("pellucid")), "verify", "--json", "--require-all", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    wrong = [r for r in (*found["rows"], *found["defects_shown"]) if r["verdict"] in ("DIFFERS", "NOT RUN")]
    assert done.returncode == 0, json.dumps(wrong, indent=1)
    return found


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """Of methods."""
    return run()


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    """Of metrics."""
    return run("--metrics")


def test_nothing_differs_and_nothing_is_left_out(report: dict[str, Any]) -> None:
    assert report["passed"]
    assert report["require_all"]
    assert report["summary"]["DIFFERS"] == report["summary"]["NOT RUN"] == 0
    assert report["summary"]["equal"] > 190
    for row in report["rows"]:
        if row["verdict"] == "equal":
            assert row["deviation"] <= row["tolerance"]
        elif row["verdict"] == "within error":
            assert 0 < row["errors"] <= 4
        else:
            assert row["defects"], row
            assert row["deviation"] > row["tolerance"] >= max(row["as_it_is"], row["mended"])


def test_every_peer_took_part_in_the_version_that_is_pinned(report: dict[str, Any]) -> None:
    assert {r["peer"] for r in report["rows"]} == set(PEERS)
    apart = report["versions"]["peers apart"]
    pinned = dict(re.findall(r"\b(grad-cam|zennit|torchvision|quantus)==([\d.]+)", (ROOT / "Makefile").read_text()))
    assert len(pinned) == 4
    assert {name: apart[name] for name in pinned} == pinned
    ranges = dict(re.findall(r"'(shap|lime|SALib)(>=[^']+)'", (ROOT / "Makefile").read_text()))
    assert len(ranges) == 3
    assert all(SpecifierSet(wanted).contains(apart[name]) for name, wanted in ranges.items())
    assert apart["torch"] == report["versions"]["pellucid"]["torch"], "torch is shared, not installed twice"


def test_the_documented_defects_are_those_that_are_met(report: dict[str, Any]) -> None:
    met = {d for r in report["rows"] for d in r["defects"]} | {d["defect"] for d in report["defects_shown"]}
    page = (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| ([BC]\d+) \|", page, re.MULTILINE))
    assert met == documented


def test_no_metric_differs_and_none_is_left_out(metrics: dict[str, Any]) -> None:
    assert metrics["passed"]
    assert metrics["summary"]["DIFFERS"] == metrics["summary"]["NOT RUN"] == 0
    assert metrics["summary"]["equal"] > 80
    compared = {row["method"].partition(":")[0].partition(" of ")[0] for row in metrics["rows"]}
    assert len(compared) >= 23
    for row in metrics["rows"]:
        assert row["here"] is not None, row
        if row["verdict"] == "equal":
            assert row["deviation"] <= row["tolerance"] <= 1e-5
        else:
            assert row["defects"], row
            assert row["tolerance"] >= max(row["as_it_is"], row["mended"])
    volumes = {
        row["method"] for row in metrics["rows"] if row["image"].startswith("brain") and row["verdict"] == "equal"
    }
    assert len(volumes) >= 20


def test_each_of_the_sixteen_defects_is_seen_in_quantus(metrics: dict[str, Any]) -> None:
    seen = {d["defect"] for d in metrics["defects_shown"] if d["verdict"] == "shown" and d["peer"] == "quantus"}
    assert {f"Q{n}" for n in range(1, 17)} <= seen
    assert metrics["versions"]["peers apart"]["quantus"] == "0.6.0"


def test_the_documented_defects_of_metrics_are_those_that_are_met(metrics: dict[str, Any]) -> None:
    met = {d for r in metrics["rows"] for d in r["defects"]} | {d["defect"] for d in metrics["defects_shown"]}
    page = (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
    assert met == set(re.findall(r"^\| ([QM]\d+) \|", page, re.MULTILINE))
