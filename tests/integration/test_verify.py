"""Every method against every peer, on real images: nothing differs, nothing is left out, every listed defect shows."""

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


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """``pellucid verify --json --require-all``, as CI runs it."""
    if not (ROOT / ".venv-peers" / "bin" / "python").exists():
        pytest.skip("the environment of the peers is not there: make .venv-peers/.installed")
    command = [str(Path(sys.executable).with_name("pellucid")), "verify", "--json", "--require-all"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    wrong = [r for r in (*found["rows"], *found["defects_shown"]) if r["verdict"] in ("DIFFERS", "NOT RUN")]
    assert done.returncode == 0, json.dumps(wrong, indent=1)
    return found


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
    pinned = dict(re.findall(r"\b(grad-cam|zennit|torchvision)==([\d.]+)", (ROOT / "Makefile").read_text()))
    assert len(pinned) == 3
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
