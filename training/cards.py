"""Write the demo's model cards from what training measured, with a golden vector for each."""

import argparse
import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import vessels
from common import load_weights
from PIL import Image as Picture

from pellucid.core.case import Case
from pellucid.core.image import Modality
from pellucid.demo import networks
from pellucid.demo.cases import MODELS
from pellucid.demo.planted import plant_nodule
from pellucid.io.models import load_model
from pellucid.io.reader import read_image
from pellucid.workbench.opening import open_case

RESULTS = Path(__file__).parent / "results"
HEADS = {
    "vessels": """
[model]
name = "demo fundus vessels"
version = "1"
task = "segmentation"
modality = ["fundus"]
weights = "weights.safetensors"
sha256 = "{sha}"
license = "Apache-2.0"
factory = "pellucid.demo.networks:vessels"
source = "training/vessels.py, seed {seed}"

[[inputs]]
name = "image"
rank = 2
channels = 3
order = "rgb"
size = [320, 320]
fit = "letterbox"
crop = "field"

[output]
labels = ["background", "vessel"]
activation = "sigmoid"

[applies_to]
rank = [2]

[facts]
intended_use = "demonstration: marks blood vessels on a fundus photograph of the whole field"
out_of_scope = "diagnosis; measuring vessel width; photographs of part of the field"
training_data = "CHASE_DB1 (CC BY 4.0): 14 eyes of 7 children, first observer's outline"
gaps = "children of one city only; one camera; no disease; misses thin vessels on other cameras"
owner = "the Pellucid project"
clearance = "none: research"
last_change = "2026-11: first version"
""",
    "hippocampus": """
[model]
name = "demo hippocampus"
version = "1"
task = "segmentation"
modality = ["mri"]
weights = "weights.safetensors"
sha256 = "{sha}"
license = "CC-BY-SA-4.0"
factory = "pellucid.demo.networks:hippocampus"
source = "training/hippocampus.py, seed {seed}"

[[inputs]]
name = "image"
rank = 3
channels = 1
orientation = "RAS"
spacing = [1.0, 1.0, 1.0]
size = [40, 56, 40]
percentiles = [1.0, 99.5]
scale = "zscore"
pad = "edge"

[output]
labels = ["background", "anterior hippocampus", "posterior hippocampus"]
activation = "softmax"

[applies_to]
rank = [3]
max_extent_mm = 90.0

[facts]
intended_use = "demonstration: outlines the hippocampus in a crop of a T1 volume about it"
out_of_scope = "diagnosis; volumetry; whole heads (crop first: a whole head gives over 100,000 false voxels)"
training_data = "Medical Segmentation Decathlon, hippocampus (CC BY-SA 4.0): 140 volumes"
gaps = "one center; adults with and without psychosis; the files name no subjects, so the split may be optimistic"
owner = "the Pellucid project"
clearance = "none: research"
last_change = "2026-11: first version"
""",
    "pneumonia": """
[model]
name = "demo pneumonia in children"
version = "1"
task = "classification"
modality = ["x-ray"]
weights = "weights.safetensors"
sha256 = "{sha}"
license = "Apache-2.0"
factory = "pellucid.demo.networks:pneumonia"
source = "training/pneumonia.py, seed {seed}"

[[inputs]]
name = "image"
rank = 2
channels = 1
size = [28, 28]
fit = "cover"
scale = "unit"

[output]
labels = ["normal", "pneumonia"]
activation = "sigmoid"
operating_point = {{ pneumonia = {threshold} }}
operating_point_source = "95 % specificity on the validation films"

[applies_to]
rank = [2]
view = ["AP"]
age = [0.0, 6.0]

[facts]
intended_use = "demonstration of a model that should be distrusted"
out_of_scope = "diagnosis; adults; films with anything but pneumonia or nothing"
training_data = "PneumoniaMNIST (CC BY 4.0): 3872 films of children of one hospital at 28 px, 90 % with pneumonia"
gaps = "no adults, no masses, no portable films; on adult films it is no better than {adult}"
owner = "the Pellucid project"
clearance = "none: research"
last_change = "2026-11: first version"
""",
    "nodule": """
[model]
name = "demo planted nodule"
version = "1"
task = "classification"
modality = ["x-ray"]
weights = "weights.safetensors"
sha256 = "{sha}"
license = "Apache-2.0"
factory = "pellucid.demo.networks:nodule"
source = "training/nodule.py, seed {seed}"

[[inputs]]
name = "image"
rank = 2
channels = 1
size = [128, 128]

[output]
labels = ["no nodule", "nodule"]
activation = "sigmoid"
operating_point = {{ nodule = {threshold} }}
operating_point_source = "95 % specificity on patches of the validation films"

[applies_to]
rank = [2]

[facts]
intended_use = "demonstration with exact truth: finds nodules that a formula planted in a patch of a chest film"
out_of_scope = "diagnosis; real nodules, which it has never seen; whole films"
training_data = "patches of NIH ChestX-ray14 films without the labels Nodule or Mass, half of them planted; \
the planted mask was a training target, so that its maps lie on nodules was taught, not discovered"
gaps = "formula-made nodules are round and smooth; real ones are not"
owner = "the Pellucid project"
clearance = "none: research"
last_change = "2026-11: first version"
""",
}
HEADS["pneumonia_transformer"] = (
    HEADS["pneumonia"]
    .replace("demo pneumonia in children", "demo pneumonia in children, vision transformer")
    .replace("demo.networks:pneumonia", "demo.transformer:pneumonia_transformer")
    .replace("training/pneumonia.py", "training/pneumonia_transformer.py")
    .replace("a model that should be distrusted", "methods that read attention, on a model that should be distrusted")
)
HEADS["lungs"] = """
[model]
name = "technical lungs"
version = "1"
task = "segmentation"
modality = ["ct"]
weights = "weights.safetensors"
sha256 = "{sha}"
license = "Apache-2.0"
factory = "pellucid.demo.networks:lungs"
source = "training/lungs.py, seed {seed}"

[[inputs]]
name = "image"
rank = 3
channels = 1
orientation = "RAS"
spacing = [3.0, 3.0, 5.0]
multiple = 4
window = [-1000.0, 400.0]
scale = "unit"

[output]
labels = ["background", "lung"]
activation = "sigmoid"

[applies_to]
rank = [3]

[facts]
intended_use = "technical model: an object for studies of explanation methods on real CT, and for nothing else"
out_of_scope = "diagnosis; volumetry; any clinical use; any patient but the two it was made with"
training_data = "one series of Lung-PET-CT-Dx (CC BY 4.0); labels made by a threshold of -400 HU, nobody drew them"
gaps = "two patients in all, both with lung cancer: one trained, one tested; consolidated lung is no lung to it"
owner = "the Pellucid project"
clearance = "none: research"
last_change = "2026-11: first version"
"""
ROW = """
[[performance]]
metric = "{metric}"
value = {value}
low = {low}
high = {high}
n = {n}
data = "{data}"
"""


def performance(name: str, results: dict, data: Path) -> list[dict]:
    """The rows of a card, from the test part only; the vessels are measured again at the card's own size."""
    test = results["shipped"]["test"]
    if name == "vessels":
        module = networks.vessels().eval()
        load_weights(module, MODELS / name / "weights.safetensors")
        photos = vessels.chase(data, 320, vessels.split(data)["test"])
        found = vessels.measure(vessels.logits_of(module, photos), photos, 0.0)
        what = "CHASE_DB1, 10 photographs of 5 held-out patients, at 320 px"
        return [
            {"metric": "Dice", "n": 5, "data": what, **found["dice"]},
            {"metric": "pixel AUC", "n": 5, "data": what, **found["pixel_auc"]},
        ]
    if name == "hippocampus":
        what = "Decathlon hippocampus, 40 held-out volumes"
        return [{"metric": f"Dice {part}", "n": 40, "data": what, **test[part]} for part in ("anterior", "posterior")]
    if name.startswith("pneumonia"):
        adults = results["shipped"]["nih_adults"]["pneumonia_against_rest"]
        return [
            {"metric": "AUC", "n": test["films"], "data": "PneumoniaMNIST, test part", **test["auc"]},
            {"metric": "specificity", "n": test["films"], "data": "PneumoniaMNIST, test part", **test["specificity"]},
            {"metric": "AUC", "n": adults["films"], "data": "adults: NIH ChestX-ray14 sample", **adults["auc"]},
        ]
    if name == "lungs":
        what = "Lung-PET-CT-Dx A0001, against a threshold; the interval is over the slices of this one patient"
        return [{"metric": "Dice per slice", "n": test["slices"], "data": what, **test["dice"]}]
    what = "patches of held-out films, nodules planted by formula"
    return [
        {"metric": "AUC", "n": test["patches"], "data": what, **test["auc"]},
        {"metric": "sensitivity", "n": test["patches"], "data": what, **test["sensitivity"]},
        {"metric": "specificity", "n": test["patches"], "data": what, **test["specificity"]},
    ]


def golden_head() -> tuple[np.ndarray, tuple[float, ...]]:
    """A bright ellipsoid on a slope."""
    where = np.stack(np.mgrid[:36, :52, :34], -1) - np.array([18, 26, 17])
    values = 1000 * np.exp(-((where / np.array([7, 14, 6])) ** 2).sum(-1)) + 3 * where.sum(-1) + 300
    return values, (1.0, 1.0, 1.0)


def golden_chest() -> tuple[np.ndarray, tuple[float, ...]]:
    """A trunk of soft tissue in air with two lungs and a spine, in Hounsfield units."""
    across, along, _ = np.mgrid[:72, :56, :8]
    values = np.full(across.shape, -1000.0)
    values[((across - 36) / 32) ** 2 + ((along - 28) / 24) ** 2 < 1] = 40
    for center in (22, 50):
        values[((across - center) / 10) ** 2 + ((along - 30) / 15) ** 2 < 1] = -850
    values[(across - 36) ** 2 + (along - 12) ** 2 < 25] = 500
    return values, (4.0, 4.0, 6.0)


def golden_image(name: str, folder: Path) -> Path:
    """A small formula-made image beside the card, in the file format that the model meets."""
    rows, columns = np.mgrid[:96, :96]
    if name in ("hippocampus", "lungs"):
        values, spacing = golden_head() if name == "hippocampus" else golden_chest()
        path = folder / "golden.nii.gz"
        path.unlink(missing_ok=True)
        nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([*spacing, 1.0])), path)
        return path
    path = folder / "golden.png"
    if name == "vessels":
        disc = ((rows - 48) ** 2 + (columns - 48) ** 2) < 44**2
        lines = np.exp(-(((rows - 48 + 12 * np.sin(columns / 12)) / 1.5) ** 2)) + np.exp(-(((columns - 40) / 1.2) ** 2))
        rgb = np.stack([190 - 40 * lines, 110 - 60 * lines, 60 - 20 * lines], -1) * disc[..., None]
        Picture.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(path)
    elif name.startswith("pneumonia"):
        Picture.fromarray((128 + 100 * np.sin(rows / 9) * np.cos(columns / 17)).astype(np.uint8)).save(path)
    else:
        film = (0.3 + 0.1 * np.sin(np.mgrid[:128, :128][0] / 20)).astype(np.float64)
        planted, _ = plant_nodule(film, (60.0, 70.0), 9.0, 0.2, 1)
        Picture.fromarray((255 * planted).round().astype(np.uint8)).save(path)
    return path


def golden(name: str, folder: Path) -> str:
    """Run the model once through the whole pipeline and write down what it gave."""
    path = golden_image(name, folder)
    loaded = load_model(folder)
    image = read_image(path, Modality(loaded.card.model.modality[0]))
    opened = open_case(Case("golden", {"image": image}), loaded.model)
    with loaded.model.held(), torch.no_grad():
        output = loaded.model(opened.inputs)[0].double()
    expected = (
        [round(float(v), 5) for v in output.flatten(1).mean(1)]
        if output.ndim > 1
        else [round(float(v), 5) for v in output]
    )
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    lines = [
        "",
        "[[golden]]",
        f'file = "{path.name}"',
        f'sha256 = "{sha}"',
        f"expected = {expected}",
        "tolerance = 0.001",
    ]
    lines.append(f'modality = "{loaded.card.model.modality[0]}"')
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="*", default=list(HEADS))
    options = parser.parse_args()
    for name in options.only:
        results = json.loads((RESULTS / f"{name}.json").read_text())
        folder = MODELS / name
        adults = results["shipped"].get("nih_adults", {}).get("pneumonia_against_rest", {}).get("auc", {})
        text = (
            HEADS[name]
            .format(
                sha=hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest(),
                seed=results["shipped_seed"],
                threshold=results["shipped"].get("threshold_logit"),
                adult=f"AUC {adults.get('value')} [{adults.get('low')}, {adults.get('high')}]",
            )
            .lstrip()
        )
        for row in performance(name, results, options.data):
            text += ROW.format(**row)
        (folder / "model.toml").write_text(text)
        (folder / "model.toml").write_text(text + golden(name, folder))


if __name__ == "__main__":
    main()
