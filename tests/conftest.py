"""Shared by all tests: real data beside the project, and shapes checked at run time."""

import importlib.util
import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from jaxtyping import install_import_hook

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # an int where a float is expected is right in Python, and beartype must be told
    install_import_hook("pellucid.core", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
REFERENCE = Path(__file__).resolve().parent / "reference"


@cache
def _second(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"reference_{name}", REFERENCE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def reference() -> Callable[[str], ModuleType]:
    """The second implementation of a method or metric, or the networks to compare on, by file name."""
    return _second


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images with expert annotation; absent on a machine that has only the clone."""
    if not DATA.is_dir():
        pytest.skip("the folder shared/data beside the clone is absent: real-data checks are not run")
    return DATA


@pytest.fixture(scope="session")
def write_series() -> Callable[..., Path]:
    """Writes a NIfTI volume as an MR or PET series in DICOM; see ``tests/dicom_series.py``."""
    spec = importlib.util.spec_from_file_location("dicom_series", Path(__file__).with_name("dicom_series.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_series


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> object:
    """On CI a test that skips because something is absent is a failure."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and "wasxfail" not in vars(report):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI: {report.longrepr}"
    return report
