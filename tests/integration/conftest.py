"""Running tests in a network namespace of their own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
LIMIT_S = 280


def _namespace() -> list[str] | None:
    """The command that opens one: as root, or with a user namespace where the system lets anybody make one."""
    for words in (["unshare", "-n"], ["unshare", "-r", "-n"]):
        if (
            shutil.which("unshare")
            and subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
        ):
            return words
    return None


@pytest.fixture
def run_alone() -> Callable[..., str]:
    """Run a file of the folder ``inside`` where nothing but it has a network; its failures are ours."""

    def run(name: str, *more: str) -> str:
        words = _namespace()
        if words is None:
            pytest.skip("no network namespace can be made here (unshare): a server is not started beside a network")
        command = [
            *words,
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            "-rA",
            "--tb=short",
        ]
        environment = {**os.environ, "PELLUCID_ALONE": "yes"}
        done = subprocess.run(
            [*command, str(HERE / "inside" / name), *more], env=environment, cwd=HERE.parents[1], timeout=LIMIT_S,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        return done.stdout

    return run
