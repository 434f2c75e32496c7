"""A minute of mutated headers: no crash, no stall, no word of the patient."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

TARGET = Path(__file__).resolve().parents[1] / "fuzz" / "headers.py"


def test_a_minute_of_mutated_headers_finds_nothing() -> None:
    spec = importlib.util.spec_from_file_location("fuzz_headers", TARGET)
    assert spec is not None
    assert spec.loader is not None
    target = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(target)
    counts, crashes = target.run(seed=0, seconds=60)
    assert crashes == []
    assert counts["refused"] > 50
    assert counts["read"] > 20
