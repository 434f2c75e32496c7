"""Every method through the command, on a real film (classification) and a real volume (segmentation)."""

import math
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from pellucid.core.card import Family
from pellucid.demo.cases import MODELS
from pellucid.io.archive import load_explanation
from pellucid.workbench.registry import explainers

# fewer samples than the defaults, so that the whole takes seconds
FEWER = (
    "BlurIG:steps=4",
    "ExactShapley:players=superpixels:4",
    "ExpectedGradients:samples=6",
    "IntegratedGradients:steps=4",
    "KernelSHAP:players=grid:2,samples=16",
    "LIME:players=grid:2,samples=32",
    "MorrisSensitivity:players=grid:2,trajectories=2",
    "OneAtATime:players=grid:2",
    "PartitionSHAP:players=grid:2,samples=16",
    "RISE:masks=64",
    "SmoothGrad:samples=4",
    "SquareGrad:samples=4",
    "VarGrad:samples=4",
)
LISTED = [word for text in FEWER for word in ("--method", text)]


def declared(task: str) -> set[str]:
    """Methods for the task; those that read attention are refused on a network that has none."""
    cards = {name: cls.card for name, cls in explainers().items() if name != "AttnLRP"}
    return {name for name, card in cards.items() if task in card.tasks and card.family is not Family.ATTENTION}


def marked(path: Path, folder: Path) -> Path:
    """A mask of the image, for the method that asks about a region: a box in its middle."""
    if path.suffix == ".jpg":
        with Image.open(path) as image:
            width, height = image.size
        mask = np.zeros((height, width), np.uint8)
        mask[height // 3 : height // 2, width // 3 : width // 2] = 255
        Image.fromarray(mask).save(folder / "mask.png")
        return folder / "mask.png"
    volume = nib.load(path)
    mask = np.zeros(volume.shape, np.uint8)
    mask[tuple(slice(n // 3, n // 2) for n in volume.shape)] = 1
    nib.save(nib.Nifti1Image(mask, volume.affine), folder / "mask.nii.gz")
    return folder / "mask.nii.gz"


@pytest.mark.parametrize("kind", ["film", "volume"])
def test_every_method_on_a_real_case(
    pellucid: Callable[..., object], shared_data: Path, tmp_path: Path, kind: str
) -> None:
    folder, pattern, model, task = {
        "film": ("xray_nih/images", "*.jpg", "pneumonia", "classification"),
        "volume": ("mri_hippocampus/images", "*.nii.gz", "hippocampus", "segmentation"),
    }[kind]
    path = sorted((shared_data / folder).glob(pattern))[0]
    card = MODELS / model / "model.toml"
    window = {"film": "Occlusion", "volume": "Occlusion:window=16,stride=16"}[kind]
    done = pellucid(
        "explain", path, "--model", card, "--out", tmp_path / "o", "--override", "--json",
        "--region", marked(path, tmp_path),
        "--method", "all", "--method", window, *LISTED,
    )  # fmt: skip
    assert done.code == 0, done.err
    case = done.json["cases"][0]
    made = {e["method"]: e for e in case["explanations"]}
    assert set(made) | {s["method"] for s in case["skipped"]} == set(explainers())
    assert set(made) == declared(task)  # none of them is refused on this network
    assert all(s["reason"] for s in case["skipped"])
    for name in made:
        values = load_explanation(Path(case["files"][f"archive {name}"])).numpy()
        assert np.isfinite(values).all(), name
        assert values.any(), name
    assert all(math.isfinite(c["value"]) for c in case["checks"]["results"] if c["value"] is not None)
    assert case["checks"]["about"] == "Calculation checks say nothing about whether the model is right."
    assert case["checks"]["forwards"] > 0
