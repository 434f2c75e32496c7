"""Archives, tried on a real one; the tests themselves stand in ``inside/archives.py``."""

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.integration


def test_archives(run_alone: Callable[..., str]) -> None:
    told = run_alone("archives.py")
    assert " skipped" not in told
    assert "PASSED" in told
