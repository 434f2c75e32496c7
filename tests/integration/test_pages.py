"""The pages in a real browser: they open without a network, show what they must, and are not blank."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from typer.testing import CliRunner

from pellucid.cli.main import app
from pellucid.demo.cases import MODELS

pytestmark = pytest.mark.integration
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--disable-quic")  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium: `apt-get install chromium`, or run `make integration` as root")
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures explained through the command."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "in").mkdir()
    for name in ("one", "two"):
        Picture.radial_gradient("L").save(folder / "in" / f"{name}.png")
    words = ["explain", folder / "in", "--model", MODELS / "nodule" / "model.toml", "--out", folder / "out",
             "--method", "HiResCAM", "--method", "GradCAM", "--audit", folder / "audit" / "audit.jsonl"]  # fmt: skip
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exit_code == 0, done.output
    maps = [folder / "out" / name / "HiResCAM.json" for name in ("one", "two")]
    words = ["compare", *maps, "--out", folder / "out" / "c", "--prior", "--audit", folder / "audit" / "audit.jsonl"]
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exit_code == 0, done.output
    return folder / "out"


def run(browser: str, profile: Path, *words: str) -> str:
    command = [browser, *FLAGS, f"--user-data-dir={profile}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("page", ["index.html", "one/report.html", "c/compare.html"])
def test_page_opens_and_is_not_blank(browser: str, pages: Path, tmp_path: Path, page: str) -> None:
    shot = tmp_path / "shot.png"
    run(browser, tmp_path / "a", "--window-size=1400,1800", f"--screenshot={shot}", (pages / page).as_uri())
    pixels = np.asarray(Picture.open(shot).convert("L"), float)
    assert pixels.shape == (1800, 1400)
    assert pixels.std() > 10, "the page is blank"
    assert len(np.unique(pixels)) > 100, "the pictures are not drawn"


def test_page_says_what_it_must(browser: str, pages: Path, tmp_path: Path) -> None:
    page = run(browser, tmp_path / "b", "--dump-dom", (pages / "one" / "report.html").as_uri())
    assert "not a medical device" in page
    assert "HiResCAM" in page
    assert "says nothing about whether the model is right" in page.lower() or "calculation checks" in page.lower()
    assert "http://" not in page
    assert "https://" not in page
