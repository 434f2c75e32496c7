"""The documentation builds with warnings as errors, and holds a page for every card and a picture for every example."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid.workbench.registry import explainers, metrics

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built from a copy: a build writes beside its sources."""
    copy = tmp_path_factory.mktemp("documentation")
    made = shutil.ignore_patterns("generated", "gallery", "_build", "__pycache__")
    for folder in ("docs", "examples", "adr"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=made)
    shutil.copytree(ROOT / "benchmarks" / "results", copy / "benchmarks" / "results")  # figures are drawn from them
    for file in (*ROOT.glob("*.md"), ROOT / "references.bib"):
        shutil.copy(file, copy)
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", "pages"],
        cwd=copy,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return copy / "pages"


def test_every_card_is_in_the_pages(built: Path) -> None:
    for folder, names in (("methods", explainers()), ("metrics", metrics())):
        for name, cls in names.items():
            if cls.__module__.startswith("pellucid."):
                page = (built / "generated" / folder / f"{name}.html").read_text(encoding="utf-8")
                assert "What it is bad at" in page, name


def test_the_gallery_has_its_pictures(built: Path) -> None:
    for script in sorted((ROOT / "examples").glob("*.py")):
        assert (built / "gallery" / f"{script.stem}.html").is_file(), script.name
        assert list((built / "_images").glob(f"sphx_glr_{script.stem}_001*.png")), script.name


def test_no_page_shows_markup_that_was_not_understood(built: Path) -> None:
    for page in built.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "{cite:" not in text, page.name
        assert "system-message" not in text, page.name
