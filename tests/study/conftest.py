"""Simulated studies, for the tests of this room and of the command."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


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
