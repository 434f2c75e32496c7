"""The floors: imports run downward only, and the contract is shown to bite on planted imports."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of the pyproject.toml in ``folder`` on the package there."""
    tool = Path(sys.executable).with_name("lint-imports")
    path = os.pathsep.join([str(folder), str(folder / "src")])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [str(tool), "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path, root: Path) -> Path:
    """The package and its contracts in a folder of their own."""
    shutil.copytree(root / "src" / "pellucid", tmp_path / "pellucid", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    return tmp_path


def test_floors_hold(root: Path) -> None:
    done = lint(root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout, done.stdout


def test_a_copy_without_a_plant_holds(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "planted"),
    [
        ("core/space.py", "import pellucid.explain.cam"),
        ("core/space.py", "from pellucid import Grid"),
        ("core/space.py", "import matplotlib"),
        ("explain/cam.py", "from pellucid.metrics import faithfulness"),
        ("explain/cam.py", "import pydicom"),
        ("io/__init__.py", "import pellucid.show.palette"),
        ("metrics/faithfulness/curves.py", "import pellucid.workbench"),
        ("workbench/__init__.py", "import pellucid.cli"),
        ("attic.py", "import pellucid.core.grid"),
    ],
)
def test_a_planted_import_breaks_the_contract(copy: Path, file: str, planted: str) -> None:
    target = copy / "pellucid" / file
    before = target.read_text(encoding="utf-8") if target.exists() else ""
    target.write_text(f"{before}\n{planted}\n", encoding="utf-8")
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    module = "pellucid." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert module in done.stdout, done.stdout
    assert "BROKEN" in done.stdout, done.stdout
