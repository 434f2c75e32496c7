"""A whole volume through the command, by the windows that the model card names: no crop, and no size to fit."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pellucid.demo

DEMO = Path(pellucid.demo.__file__).parent / "models" / "hippocampus"
WINDOWS = '[inference]\nsize = [24, 32, 24]\noverlap = 0.25\nblend = "gaussian"\n\n[applies_to]'


def test_a_volume_is_explained_by_windows(pellucid: Callable[..., object], shared_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(DEMO / "weights.safetensors", folder)
    card = (DEMO / "model.toml").read_text(encoding="utf-8").partition("[[golden]]")[0]  # its values are of a crop
    card = card.replace("size = [40, 56, 40]\n", "").replace("[applies_to]", WINDOWS)
    (folder / "model.toml").write_text(card, encoding="utf-8")
    volume = sorted((shared_data / "mri_hippocampus" / "images").glob("*.nii.gz"))[0]
    done = pellucid(
        "explain", volume, "--model", folder / "model.toml", "--out", tmp_path / "out", "--json",
        "--method", "InputXGradient", "--method", "GradCAM", "--target", "anterior hippocampus", "--override",
    )  # fmt: skip
    assert done.code == 0, done.err
    case = done.json["cases"][0]
    told = {e["method"]: " ".join(e["warnings"]) for e in case["explanations"]}
    assert "per window: the model predicts by windows of 24 x 32 x 24 voxels, overlap 0.25" in told["GradCAM"]
    assert "per window" not in told["InputXGradient"]
    assert {c["state"] for c in case["checks"]["results"] if c["name"].startswith("gradient to input")} == {"pass"}
    page = next((tmp_path / "out").rglob("report.html")).read_text(encoding="utf-8")
    assert "per window: the model predicts by windows of 24 x 32 x 24 voxels" in page
