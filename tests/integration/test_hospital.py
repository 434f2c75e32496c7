"""Hospital in, hospital out, on real series and a real archive; the tests stand in ``inside/hospital.py``."""

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", ["ct-one", "ct-two", "mr", "pet"])
def test_fetched_explained_sent_fetched_and_verified(run_alone: Callable[..., str], name: str) -> None:
    told = run_alone("hospital.py", "-k", name)
    assert "PASSED" in told
    assert " skipped" not in told
