"""What CI promises: a skip because something is absent is a failure there, and each step has its limit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_a_skip_is_a_failure_on_ci_only(tmp_path: Path, root: Path, ci: str, code: int) -> None:
    shutil.copy(root / "tests" / "conftest.py", tmp_path)
    absent = "import pytest\n\n\ndef test_absent():\n    pytest.skip('the data are absent')\n"
    (tmp_path / "test_absent.py").write_text(absent, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert ("skipped on CI" in done.stdout) == (code == 1), done.stdout


def test_ci_runs_the_three_steps_within_their_limits(tmp_path: Path, root: Path) -> None:
    """The script runs with a make that only tells what it was asked for."""
    folder = tmp_path / "clone" / ".ci"
    folder.mkdir(parents=True)
    shutil.copy(root / ".ci" / "run", folder)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "make").write_text('#!/bin/sh\necho "asked: $*"\n[ "$1" != "$REFUSED" ]\n', encoding="utf-8")
    (tools / "make").chmod(0o755)
    path = os.pathsep.join([str(tools), os.environ["PATH"]])

    def run(refused: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": path, "REFUSED": refused}
        return subprocess.run(
            [str(folder / "run")], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
        )

    done = run("nothing")
    assert done.returncode == 0, done.stderr
    asked = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("asked: ")]
    assert asked[-3:] == ["check", "test", "integration"]
    assert "900 s" in done.stdout
    assert "2400 s" in done.stdout
    failed = run("test")
    assert failed.returncode != 0
    assert "asked: integration" not in failed.stdout
