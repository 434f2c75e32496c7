"""The wheel works outside the clone: it holds all that is needed, and the demo runs from it."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the project's own backend."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return next(folder.glob("pellucid-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an environment that has the wheel and the dependencies, and not the clone."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    site = next((home / "lib").glob("python*/site-packages"))
    # a plain line adds the folder and does not follow the editable installation in it
    ours = next(p for p in sys.path if p.endswith("site-packages"))
    (site / "dependencies.pth").write_text(f"{ours}\n", encoding="utf-8")
    subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--ignore-installed", str(wheel)],
        check=True,
    )
    where = [str(python), "-c", "import pellucid; print(pellucid.__file__)"]
    found = subprocess.run(where, check=True, capture_output=True, text=True, cwd=home).stdout.strip()
    assert Path(found).is_relative_to(home), found
    return home / "bin" / "pellucid"


def test_the_wheel_holds_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    inside = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src" / "pellucid").rglob("*") if p.is_file()}
    inside = {n for n in inside if "__pycache__" not in n}
    assert inside <= names, sorted(inside - names)
    assert "pellucid/py.typed" in names
    assert {"pellucid/references.bib", "pellucid/show/static/niivue.umd.js.gz"} <= names
    assert not [n for n in names if n.startswith(("tests/", "docs/", "training/"))]
    assert wheel.stat().st_size < 10_000_000


def test_the_command_lists_methods_outside_the_clone(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(installed), "methods", "--json"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    listed = json.loads(done.stdout)
    names = {m["name"] for m in listed}
    assert {"Saliency", "InputXGradient", "IntegratedGradients", "GradCAM", "HiResCAM", "Occlusion"} <= names


def test_the_demo_runs_outside_the_clone(installed: Path, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(installed), "demo", "--out", str(tmp_path / "demo")],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "demo" / "index.html").is_file()
    reports = list((tmp_path / "demo").rglob("report.html"))
    assert len(reports) >= 3
    for report in reports:
        text = report.read_text(encoding="utf-8")
        assert "https://" not in text.split("<body")[0], f"{report} loads something from a network"
