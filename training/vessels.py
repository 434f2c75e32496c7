"""Train the vessel network on CHASE_DB1 and measure it there and, as numbers only, on DRIVE.

Split by patient (two eyes each): 7 to train, 2 to validate, 5 to test. Patches of 112 pixels come from photographs
whose field of view was scaled to four sizes, so that the vessel widths of wider fields occur.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import SEEDS, Options, Recipe, Trained, mean_interval, options, publish, resize, soft_dice_loss, train
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from pellucid.demo import networks

RECIPE = Recipe("vessels", networks.vessels, iterations=1400, peak_rate=4e-3)
PATCH, BATCH = 112, 8
TRAINING_SIDES = (384, 448, 512, 608)  # pixels of the field's longer side
SIDE = 512  # at inference
THRESHOLDS = np.arange(-2.0, 2.01, 0.1)  # on the logit


@dataclass(frozen=True)
class Photograph:
    """A fundus photograph, letterboxed to a square, with the observers' vessels.

    Args:
        rgb: (3, S, S) in [0, 1].
        field: (S, S), inside the field of view, its rim of 4 pixels left out.
        vessels: (S, S) of each observer, 0 or 1.
        patient: two-digit number of the patient.
    """

    rgb: Tensor
    field: Tensor
    vessels: tuple[Tensor, ...]
    patient: str


def letterbox(image: Tensor, side: int) -> Tensor:
    """Scale (C, H, W) until its longer side is ``side``, and center it on a square of a multiple of 32."""
    height, width = image.shape[1:]
    scale = side / max(height, width)
    image = resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))
    square = -(-side // 32) * 32
    above, left = (square - image.shape[1]) // 2, (square - image.shape[2]) // 2
    return functional.pad(image, (left, square - image.shape[2] - left, above, square - image.shape[1] - above))


def read(photo: Path, masks: Iterable[Path], side: int, patient: str) -> Photograph:
    """Crop to the field of view (brightest channel above 25 of 255) and letterbox; masks go by area."""
    pixels = np.asarray(Image.open(photo).convert("RGB"))
    field = pixels.max(axis=2) > 25
    rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    rgb = letterbox(torch.from_numpy(pixels[box].astype(np.float32) / 255).permute(2, 0, 1), side)
    drawn = [np.asarray(Image.open(mask).convert("L"))[box] > 127 for mask in masks]
    vessels = tuple((letterbox(torch.from_numpy(one.astype(np.float32))[None], side)[0] > 0.5).float() for one in drawn)
    outside = (rgb.amax(dim=0) <= networks.FIELD_LEVEL).float()
    return Photograph(
        rgb.clamp(0, 1), functional.max_pool2d(outside[None, None], 9, 1, 4)[0, 0] < 0.5, vessels, patient
    )


def chase(data: Path, side: int, patients: set[str] | None = None) -> list[Photograph]:
    """Photographs of CHASE_DB1, of these patients or of all."""
    found = []
    for photo in sorted((data / "fundus_vessels" / "CHASEDB1").glob("*.jpg")):
        patient = photo.stem[6:8]
        masks = [photo.with_name(f"{photo.stem}_{observer}.png") for observer in ("1stHO", "2ndHO")]
        if patients is None or patient in patients:
            found.append(read(photo, masks, side, patient))
    return found


def drive(data: Path, side: int) -> list[Photograph]:
    """The training part of DRIVE (one eye per patient), for evaluation only."""
    photos = sorted((data / "fundus_vessels" / "DRIVE" / "training" / "images").iterdir())
    masks = sorted((data / "fundus_vessels" / "DRIVE" / "training" / "1st_manual").iterdir())
    return [read(photo, [mask], side, photo.name[:2]) for photo, mask in zip(photos, masks, strict=True)]


def split(data: Path) -> dict[str, set[str]]:
    """Patients to test, to validate and to train, drawn once from seed 0."""
    names = sorted({photo.stem[6:8] for photo in (data / "fundus_vessels" / "CHASEDB1").glob("*.jpg")})
    order = [str(name) for name in np.random.default_rng(0).permutation(names)]
    return {"test": set(order[:5]), "validation": set(order[5:7]), "training": set(order[7:])}


def patch(store: list[tuple[Tensor, Tensor]], draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A random patch, turned, mirrored, and changed in contrast, offset, sharpness and noise."""
    image, truth = store[draw.integers(len(store))]
    row, column = (int(draw.integers(size - PATCH + 1)) for size in truth.shape)
    window = np.s_[..., row : row + PATCH, column : column + PATCH]
    quarter = int(draw.integers(4))
    image, truth = torch.rot90(image[window], quarter, (1, 2)), torch.rot90(truth[window], quarter, (0, 1))
    if draw.random() < 0.5:
        image, truth = image.flip(2), truth.flip(1)
    gain = torch.from_numpy(np.exp(draw.uniform(-0.3, 0.3, (3, 1, 1))).astype(np.float32))
    image = image * gain + torch.from_numpy(draw.uniform(-0.2, 0.2, (3, 1, 1)).astype(np.float32))
    if draw.random() < 0.3:
        image = functional.avg_pool2d(functional.pad(image[None], (1,) * 4, mode="replicate"), 3, 1)[0]
    noise = draw.standard_normal(image.shape, dtype=np.float32) * draw.uniform(0, 0.2)
    return image + torch.from_numpy(noise.astype(np.float32)), truth


def fit(seed: int, store: list[tuple[Tensor, Tensor]], chosen: Options) -> Trained:
    """Train one seed on patches of images whose local contrast was normalized whole."""

    def loss_of(module: networks.VesselNet, draw: np.random.Generator) -> Tensor:
        images, truths = zip(*(patch(store, draw) for _ in range(BATCH)), strict=True)
        batch = torch.stack(images).to(memory_format=torch.channels_last)
        logits, truth = module.body(batch), torch.stack(truths)[:, None]
        loss = functional.binary_cross_entropy_with_logits(logits, truth)
        return loss + soft_dice_loss(torch.sigmoid(logits), truth)

    return train(RECIPE, seed, chosen, loss_of)


def dice(marked: Tensor, truth: Tensor, field: Tensor) -> float:
    """Dice overlap inside the field of view."""
    marked, truth = marked & field, (truth > 0.5) & field
    return float(2 * (marked & truth).sum() / (marked.sum() + truth.sum()))


def logits_of(module: torch.nn.Module, photos: list[Photograph]) -> list[Tensor]:
    """The network's logits, one photograph at a time."""
    with torch.inference_mode():
        return [module(photo.rgb[None])[0, 0] for photo in photos]


def best_threshold(scores: list[Tensor], photos: list[Photograph]) -> tuple[float, float]:
    """Threshold with the best mean Dice against the first observer, and that Dice."""
    found = [
        (float(np.mean([dice(s > t, p.vessels[0], p.field) for s, p in zip(scores, photos, strict=True)])), float(t))
        for t in THRESHOLDS
    ]
    overlap, threshold = max(found)
    return round(threshold, 2), overlap


def measure(scores: list[Tensor], photos: list[Photograph], threshold: float) -> dict:
    """Dice and pixel AUC per patient with intervals."""
    pairs = list(zip(scores, photos, strict=True))
    owners = [photo.patient for photo in photos]
    areas = [roc_auc_score(p.vessels[0][p.field].numpy() > 0.5, s[p.field].numpy()) for s, p in pairs]
    overlaps = [dice(s > threshold, p.vessels[0], p.field) for s, p in pairs]
    figures = {"dice": mean_interval(overlaps, owners), "pixel_auc": mean_interval(areas, owners)}
    return figures | {"patients": len(set(owners)), "photographs": len(photos)}


def darkness(photos: list[Photograph]) -> list[Tensor]:
    """The baseline without a weight: how much darker the green channel is than its surroundings."""
    contrast = networks.LocalContrast()
    return [-contrast(photo.rgb[None])[0, 1] for photo in photos]


def evaluate(trained: Trained, parts: dict[str, list[Photograph]]) -> dict:
    """Figures of one seed; the threshold comes from validation."""
    scores = {name: logits_of(trained.module, photos) for name, photos in parts.items()}
    threshold, _ = best_threshold(scores["validation"], parts["validation"])
    return {"threshold_logit": threshold} | {
        name: measure(scores[name], photos, threshold) for name, photos in parts.items()
    }


def baselines(parts: dict[str, list[Photograph]]) -> dict:
    """The second observer, and the darkness of the green channel, on the same test photographs."""
    threshold, _ = best_threshold(darkness(parts["validation"]), parts["validation"])
    test = parts["test"]
    second = [dice(photo.vessels[1] > 0.5, photo.vessels[0], photo.field) for photo in test]
    return {
        "second_observer_dice": mean_interval(second, [photo.patient for photo in test]),
        "green_darkness": measure(darkness(test), test, threshold),
    }


def describe(data: Path) -> dict:
    """Where the photographs come from and how they were split."""
    groups: dict[str, NDArray | list[str]] = {name: sorted(patients) for name, patients in split(data).items()}
    return {
        "data": {
            "CHASE_DB1": {
                "license": "CC BY 4.0",
                "use": "training, validation, test",
                "citation": "Fraz MM et al. IEEE Trans Biomed Eng 2012;59(9):2538-2548",
            },
            "DRIVE (training part)": {
                "license": "research use",
                "use": "evaluation as a number only, never training",
                "citation": "Staal J et al. IEEE Trans Med Imaging 2004;23(4):501-509",
            },
        },
        "split": {"unit": "patient, two eyes each", **groups},
        "input": f"field of view cropped (brightest channel above 25/255), longer side {SIDE}, centered on black",
        "operating_point": "logit with the best mean Dice on validation",
    }


def main() -> None:
    """Train three seeds, ship the best on validation."""
    chosen = options(RECIPE.iterations)
    patients = split(chosen.data)
    contrast = networks.LocalContrast()
    store = [
        (contrast(photo.rgb[None])[0], photo.vessels[0])
        for side in TRAINING_SIDES
        for photo in chase(chosen.data, side, patients["training"])
    ]
    parts = {name: chase(chosen.data, SIDE, patients[name]) for name in ("validation", "test")}
    parts["drive"] = drive(chosen.data, SIDE)
    runs = [(run, evaluate(run, parts)) for run in (fit(seed, store, chosen) for seed in SEEDS)]
    publish(RECIPE, runs, "dice", describe(chosen.data) | {"baselines": baselines(parts)})


if __name__ == "__main__":
    main()
