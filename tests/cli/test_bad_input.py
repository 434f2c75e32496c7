"""What bad input gets: one line with expected, got and mend; exit code 2; nothing half-written."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Picture
from safetensors.torch import load_file, save_file

Command = Callable[..., object]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Picture.radial_gradient("L").save(path)
    return path


@pytest.fixture
def refused(pellucid: Command, tmp_path: Path) -> Callable[..., str]:
    """Run ``explain``, expect a refusal, and give its line."""

    def run(*words: object, out: Path | None = None) -> str:
        folder = out or tmp_path / "out"
        done = pellucid("explain", *words, "--trust-code", "--out", folder)
        assert done.code == 2, done.out + done.err
        line = done.err.strip()
        assert len(line.splitlines()) == 1, line
        assert "Traceback" not in line
        left = [p for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else []
        assert not left, f"something was half-written: {left}"
        return line

    return run


def write_nifti(path: Path, values: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.eye(4)), path)
    return path


def test_missing_file(refused: Callable[..., str], classifier: Path, tmp_path: Path) -> None:
    assert "check the path" in refused(tmp_path / "nothing.png", "--model", classifier)


def test_truncated_file(refused: Callable[..., str], classifier: Path, picture: Path) -> None:
    picture.write_bytes(picture.read_bytes()[:200])
    assert "UnreadableImage" in refused(picture, "--model", classifier)


def test_text_named_png(refused: Callable[..., str], classifier: Path, tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("no picture at all, only words")
    assert "UnreadableImage" in refused(path, "--model", classifier)


def test_wrong_rank(refused: Callable[..., str], classifier: Path, tmp_path: Path) -> None:
    line = refused(write_nifti(tmp_path / "v.nii.gz", np.zeros((8, 8, 8))), "--model", classifier)
    assert "2-D" in line
    assert "3-D" in line


def test_wrong_channel_count(refused: Callable[..., str], classifier: Path, tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    Picture.fromarray(rgb).save(tmp_path / "rgb.png")
    line = refused(tmp_path / "rgb.png", "--model", classifier)
    assert "takes 1 channel" in line
    assert "got 3" in line


def test_nan_voxels(refused: Callable[..., str], dark_voxels: Path, tmp_path: Path) -> None:
    values = np.zeros((16, 16, 8))
    values[3, 3, 3] = np.nan
    line = refused(write_nifti(tmp_path / "v.nii.gz", values), "--model", dark_voxels)
    assert "1 of 2048" in line


def test_label_the_model_lacks(refused: Callable[..., str], classifier: Path, picture: Path) -> None:
    line = refused(picture, "--model", classifier, "--target", "fracture")
    assert "'fracture'" in line
    assert "0 normal, 1 finding" in line


def test_layer_that_does_not_exist(refused: Callable[..., str], classifier: Path, picture: Path) -> None:
    line = refused(picture, "--model", classifier, "--method", "GradCAM:layer=conv9")
    assert "layer 'conv9' is not in the model" in line
    assert "0, 1, 2, 3" in line


def test_layer_without_spatial_extent(refused: Callable[..., str], classifier: Path, picture: Path) -> None:
    assert "no spatial extent" in refused(picture, "--model", classifier, "--method", "GradCAM:layer=6")


def test_unknown_method_and_parameter(refused: Callable[..., str], classifier: Path, picture: Path) -> None:
    assert "GradCAMPlusPlus" in refused(picture, "--model", classifier, "--method", "GradKAM")
    assert "parameters: steps" in refused(picture, "--model", classifier, "--method", "IntegratedGradients:stepz=3")
    assert "at least 1 step" in refused(picture, "--model", classifier, "--method", "IntegratedGradients:steps=0")


@pytest.mark.parametrize("kind", ["shape", "empty"])
def test_mask_of_another_shape_or_empty(
    refused: Callable[..., str], classifier: Path, picture: Path, tmp_path: Path, kind: str
) -> None:
    mask = np.zeros((256, 256) if kind == "empty" else (20, 20), np.uint8)
    mask[2, 2] = 0 if kind == "empty" else 255
    Picture.fromarray(mask).save(tmp_path / "mask.png")
    line = refused(picture, "--model", classifier, "--region", tmp_path / "mask.png")
    assert "BadRegion" in line
    assert ("empty" if kind == "empty" else "256 x 256") in line


def test_weights_that_do_not_fit(refused: Callable[..., str], classifier: Path, picture: Path) -> None:
    weights = classifier.parent / "weights.safetensors"
    tensors = load_file(weights)
    tensors["0.weight"] = tensors["0.weight"][:2].clone()
    save_file(tensors, weights)
    assert "WeightsMismatch" in refused(picture, "--model", classifier)


def test_unwritable_output(refused: Callable[..., str], classifier: Path, picture: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    line = refused(picture, "--model", classifier, out=blocked / "out")
    assert "UnwritableOutput" in line
    assert "--out" in line


def test_code_is_not_run_without_trust(pellucid: Command, classifier: Path, picture: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    source = classifier.parent / "user_networks.py"
    source.write_text(f"open({str(canary)!r}, 'w').close()\n" + source.read_text())
    done = pellucid("explain", picture, "--model", classifier, "--out", tmp_path / "o")
    assert done.code == 2
    assert "--trust-code" in done.err
    assert not canary.exists()


def test_device_that_is_not_there(refused: Callable[..., str], classifier: Path, picture: Path) -> None:
    assert "devices here: cpu" in refused(picture, "--model", classifier, "--device", "cuda:9")


def test_errors_as_json(pellucid: Command, classifier: Path, tmp_path: Path) -> None:
    done = pellucid(
        "explain", tmp_path / "x.png", "--model", classifier, "--trust-code", "--out", tmp_path / "o", "--json"
    )
    assert done.code == 2
    assert set(done.json) == {"error", "problem", "mend"}


def test_failed_run_is_in_the_audit_record(pellucid: Command, classifier: Path, tmp_path: Path) -> None:
    pellucid("explain", tmp_path / "x.png", "--model", classifier, "--trust-code", "--out", tmp_path / "o")
    assert '"event":"failure"' in (tmp_path / "audit" / "audit.jsonl").read_text()
