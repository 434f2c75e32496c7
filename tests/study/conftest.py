"""Simulated studies, for the tests of this room and of the command."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from pellucid.cli.main import app


@pytest.fixture(scope="session")
def simulated() -> ModuleType:
    """How to write a study with known scores."""
    place = Path(__file__).parent / "simulated.py"
    spec = importlib.util.spec_from_file_location("simulated_study", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Answer:
    """What the command said with --json."""

    code: int
    err: str
    json: Any


@pytest.fixture
def pellucid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """The command in this process, its audit log out of the way."""
    monkeypatch.setenv("PELLUCID_AUDIT", str(tmp_path / "audit" / "audit.jsonl"))

    def call(*arguments: object) -> Answer:
        done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
        return Answer(done.exit_code, done.stderr, json.loads(done.stdout))

    return call
