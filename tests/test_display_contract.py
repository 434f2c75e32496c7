"""The honest display contract, on real images through the real path."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from typer.testing import CliRunner

from pellucid.cli.main import app
from pellucid.core.case import Case
from pellucid.core.grid import Grid
from pellucid.core.image import Image, Modality
from pellucid.demo.cases import MODELS
from pellucid.io.models import load_model
from pellucid.show.rules import decide
from pellucid.workbench.job import Request, run_case
from pellucid.workbench.registry import make_explainer

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("GradCAM", "HiResCAM", "Saliency", "InputXGradient")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    monkeypatch.setenv("PELLUCID_AUDIT", str(tmp_path / "audit" / "audit.jsonl"))

    def run(*words: object) -> tuple[int, str]:
        done = CliRunner().invoke(app, [str(w) for w in words])
        return done.exit_code, done.stdout + done.stderr

    return run


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.png"
    Picture.radial_gradient("L").save(path)
    return path


def normal_patches(folder: Path, count: int) -> list[np.ndarray]:
    """Patches of films of held-out patients in which nothing was planted."""
    listed = json.loads((ROOT / "training" / "results" / "nodule.json").read_text())["held_out"]["normal_patches"]
    chosen = [listed[i] for i in np.linspace(0, len(listed) - 1, count).astype(int)]
    out = []
    for one in chosen:
        pixels = np.asarray(Picture.open(folder / f"{one['film']}.jpg").convert("L"), np.float32) / 255
        out.append(pixels[one["row"] : one["row"] + 128, one["column"] : one["column"] + 128])
    return out


def test_at_most_five_of_a_hundred_normals_show_a_region(shared_data: Path) -> None:
    loaded = load_model(MODELS / "nodule" / "model.toml")
    request = Request(targets=("nodule",), methods=tuple(make_explainer(m) for m in METHODS))
    shown = dict.fromkeys(METHODS, 0)
    drawn = 0
    for index, pixels in enumerate(normal_patches(shared_data / "xray_nih" / "images", 100)):
        image = Image(torch.from_numpy(pixels.copy())[None], Grid.regular(pixels.shape), Modality.XRAY, "[0,1]")
        done = run_case(Case(f"normal-{index}", {"image": image}), loaded, request)
        for explanation in done.panel.explanations:
            assert explanation.reference is not None
            assert explanation.reference.null is not None
            values = explanation.numpy()[0]
            region = decide(explanation, values, show_anyway=True).region(values)
            shown[explanation.provenance.method] += bool(region is not None and region.any())
            drawn += decide(explanation, values).shown
    assert all(count <= 5 for count in shown.values()), f"regions on normal films, even when shown on request: {shown}"
    assert drawn < 4 * 100, "some normal films lie below the operating point and must show no map"


def test_planted_nodules_do_show_a_region(shared_data: Path) -> None:
    """The other side: a rule that never shows anything would keep the first one."""
    from pellucid.demo.planted import plant_nodule

    loaded = load_model(MODELS / "nodule" / "model.toml")
    request = Request(targets=("nodule",), methods=tuple(make_explainer(m) for m in ("GradCAM", "HiResCAM")))
    found = 0
    for index, pixels in enumerate(normal_patches(shared_data / "xray_nih" / "images", 20)):
        planted, _ = plant_nodule(pixels.astype(np.float32), (64.0, 64.0), 10.0, 0.22, index)
        image = Image(torch.from_numpy(planted)[None], Grid.regular(pixels.shape), Modality.XRAY, "[0,1]")
        done = run_case(Case(f"planted-{index}", {"image": image}), loaded, request)
        regions = [decide(e, v).region(v) for e in done.panel.explanations for v in [e.numpy()[0]]]
        found += any(r is not None and r.any() for r in regions)
    assert found >= 10, f"only {found} of 20 planted nodules show a region"


def test_case_outside_the_card_is_refused_and_an_override_is_the_first_line(
    command: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    volume = tmp_path / "whole.nii.gz"
    import nibabel as nib

    nib.save(
        nib.Nifti1Image(np.random.default_rng(0).normal(size=(120, 120, 120)).astype(np.float32), np.eye(4)), volume
    )
    model = MODELS / "hippocampus" / "model.toml"
    asked = (
        "explain",
        volume,
        "--model",
        model,
        "--out",
        tmp_path / "o",
        "--method",
        "Saliency",
        "--target",
        "anterior hippocampus",
    )
    code, words = command(*asked)
    assert code == 2
    assert "NotApplicable" in words
    assert not list((tmp_path / "o").rglob("report.html"))
    code, words = command(*asked, "--override")
    if code == 0:
        page = next((tmp_path / "o").rglob("report.html")).read_text()
        body = page[page.index("<body") :]
        assert "not for this image" in body[:1500], "the verdict must stand in the first line"
    else:
        assert "BadRegion" in words, "noise need not hold a hippocampus; nothing else may go wrong"


def test_model_whose_golden_vector_fails_explains_nothing(
    command: Callable[..., tuple[int, str]], film: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODELS / "nodule", folder)
    card = folder / "model.toml"
    text = card.read_text()
    start = text.index("expected = [")
    card.write_text(text[:start] + "expected = [12.5]" + text[text.index("]", start) + 1 :])
    code, words = command("explain", film, "--model", card, "--out", tmp_path / "o")
    assert code == 2
    assert "GoldenVectorMismatch" in words
    assert not [p for p in (tmp_path / "o").rglob("*") if p.is_file()]
    assert command("models", "check", card)[0] == 1


def test_a_picture_has_no_patient_left(command: Callable[..., tuple[int, str]], film: Path, tmp_path: Path) -> None:
    code, words = command(
        "explain",
        film,
        "--model",
        MODELS / "nodule" / "model.toml",
        "--out",
        tmp_path / "o",
        "--method",
        "HiResCAM",
        "--method",
        "GradCAM",
    )
    assert code == 0, words
    page = next((tmp_path / "o").rglob("report.html")).read_text().lower()
    assert "patient left" not in page
    assert "patient's left" not in page
    for word in ("probability", "confidence of", "certificate", "proof that"):
        assert word not in page
