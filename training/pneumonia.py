"""Train the pneumonia network on PneumoniaMNIST and measure what is left of it on adult films.

The films are of children of one hospital, at 28 x 28 pixels. No patient ids come with them, so intervals draw
single films. It is in the demo as a model to distrust.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import (
    SEEDS,
    Options,
    Recipe,
    Trained,
    at_specificity,
    auc_interval,
    options,
    publish,
    resize,
    share_interval,
    train,
)
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from pellucid.demo import networks

RECIPE = Recipe("pneumonia", networks.pneumonia, iterations=1000, peak_rate=4e-3)
BATCH = 64
OPACITIES = ("Pneumonia", "Consolidation", "Infiltration")


@dataclass(frozen=True)
class Films:
    """Films of one part.

    Args:
        images: (N, 1, 28, 28) in [0, 1].
        labels: (N,), 1 is pneumonia.
        rows: position of each in the part of the source file.
    """

    images: Tensor
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]


def parts_of(data: Path) -> tuple[dict[str, Films], dict[str, int]]:
    """The official parts, without what a later part holds too, and how many were dropped from each."""
    source = np.load(data / "xray_pneumoniamnist" / "pneumoniamnist.npz")
    names = {"training": "train", "validation": "val", "test": "test"}
    seen: set[bytes] = set()
    parts, dropped = {}, {}
    for name in ("test", "validation", "training"):
        pixels = source[f"{names[name]}_images"]
        keys = [one.tobytes() for one in pixels]
        kept = np.array([index for index, key in enumerate(keys) if key not in seen])
        seen |= set(keys)
        images = torch.from_numpy(pixels[kept].astype(np.float32) / 255)[:, None]
        parts[name] = Films(images, source[f"{names[name]}_labels"][kept, 0].astype(np.int64), kept)
        dropped[name] = len(pixels) - len(kept)
    return parts, dropped


def vary(images: Tensor, draw: np.random.Generator) -> Tensor:
    """Random turn, scale, shift, mirroring and gamma, each film its own."""
    count = len(images)
    angle, scale = draw.uniform(-0.17, 0.17, count), 1 + draw.uniform(-0.1, 0.1, count)
    shift, mirror = draw.uniform(-0.16, 0.16, (count, 2)), draw.choice([-1.0, 1.0], count)
    theta = np.stack(
        [
            np.stack([scale * np.cos(angle) * mirror, -scale * np.sin(angle), shift[:, 0]], axis=1),
            np.stack([scale * np.sin(angle) * mirror, scale * np.cos(angle), shift[:, 1]], axis=1),
        ],
        axis=1,
    ).astype(np.float32)
    grid = functional.affine_grid(torch.from_numpy(theta), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gamma = torch.from_numpy(np.exp(draw.uniform(-0.4, 0.4, (count, 1, 1, 1))).astype(np.float32))
    return moved.clamp(1e-4, 1) ** gamma


def fit(seed: int, films: Films, chosen: Options, recipe: Recipe = RECIPE) -> Trained:
    """Train one seed on batches with as many normals as pneumonias."""
    members = [np.flatnonzero(films.labels == value) for value in (0, 1)]

    def loss_of(module: torch.nn.Module, draw: np.random.Generator) -> Tensor:
        rows = np.concatenate([draw.choice(one, BATCH // 2) for one in members])
        batch = vary(films.images[rows], draw).to(memory_format=torch.channels_last)
        labels = torch.from_numpy(films.labels[rows].astype(np.float32))[:, None]
        return functional.binary_cross_entropy_with_logits(module(batch), labels)

    return train(recipe, seed, chosen, loss_of)


def logits_of(module: torch.nn.Module, images: Tensor) -> NDArray[np.float64]:
    """The network's logits."""
    with torch.inference_mode():
        return torch.cat([module(batch) for batch in images.split(256)])[:, 0].double().numpy()


def measure(scores: NDArray[np.float64], labels: NDArray[np.int64], threshold: float) -> dict:
    """AUC, sensitivity and specificity with intervals by film."""
    owners, called = np.arange(len(labels)), scores >= threshold
    return {
        "films": len(labels),
        "pneumonias": int(labels.sum()),
        "auc": auc_interval(labels, scores, owners),
        "sensitivity": share_interval(called[labels == 1], owners[labels == 1]),
        "specificity": share_interval(~called[labels == 0], owners[labels == 0]),
    }


def adults(data: Path) -> dict[str, tuple[Tensor, NDArray[np.int64]]]:
    """NIH films of adults at 28 pixels, one per patient: pneumonia against the rest, opacity against no finding."""
    folder = data / "xray_nih"
    images, findings = [], []
    with (folder / "labels14.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            path = folder / "images" / f"{row.pop('image')[:-4]}.jpg"
            gray = torch.from_numpy(np.asarray(Image.open(path).convert("L")).astype(np.float32) / 255)
            images.append(resize(gray[None], (28, 28)))
            findings.append({name for name, value in row.items() if value == "1"})
    films = torch.stack(images).clamp(0, 1)
    opaque = np.array([bool(found.intersection(OPACITIES)) for found in findings])
    told = opaque | np.array([not found for found in findings])
    return {
        "pneumonia_against_rest": (films, np.array(["Pneumonia" in found for found in findings]).astype(np.int64)),
        "opacity_against_no_finding": (films[torch.from_numpy(told)], opaque[told].astype(np.int64)),
    }


def evaluate(trained: Trained, parts: dict[str, Films], nih: dict[str, tuple[Tensor, NDArray[np.int64]]]) -> dict:
    """Figures of one seed; the threshold gives 95% specificity on validation."""
    scores = {name: logits_of(trained.module, parts[name].images) for name in ("validation", "test")}
    threshold = at_specificity(scores["validation"], parts["validation"].labels)
    held = {name: measure(values, parts[name].labels, threshold) for name, values in scores.items()}
    away = {name: measure(logits_of(trained.module, x), y, threshold) for name, (x, y) in nih.items()}
    return {"threshold_logit": round(threshold, 4), **held, "nih_adults": away}


def baselines(parts: dict[str, Films]) -> dict:
    """A logistic regression on the 784 pixels, and the mean brightness."""
    flat = {name: films.images.flatten(1).numpy() for name, films in parts.items()}
    linear = LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000)
    linear.fit(flat["training"], parts["training"].labels)
    figures = {}
    for name, score in (("logistic_regression_on_pixels", linear.decision_function), ("mean_brightness", brightness)):
        threshold = at_specificity(score(flat["validation"]), parts["validation"].labels)
        figures[name] = measure(score(flat["test"]), parts["test"].labels, threshold)
    return figures


def brightness(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean brightness of each film."""
    return pixels.mean(axis=1).astype(np.float64)


def describe(parts: dict[str, Films], dropped: dict[str, int]) -> dict:
    """Where the films come from, how they were split, and which are held-out normals."""
    test = parts["test"]
    return {
        "data": {
            "PneumoniaMNIST (MedMNIST v2)": {
                "license": "CC BY 4.0",
                "use": "training, validation, test",
                "citation": "Yang J et al. Sci Data 2023;10:41; Kermany DS et al. Cell 2018;172(5):1122-1131",
            },
            "NIH ChestX-ray14 (621 films)": {
                "license": "free use with attribution to the NIH Clinical Center",
                "use": "evaluation only",
                "citation": "Wang X et al. ChestX-ray8. CVPR 2017",
            },
        },
        "split": {
            "unit": "film, the official parts (no patient ids)",
            **{name: len(films.labels) for name, films in parts.items()},
            "dropped_because_a_later_part_holds_them": dropped,
            "pneumonia_share_in_training": round(float(parts["training"].labels.mean()), 4),
        },
        "held_out": {
            "normal_rows": [int(row) for row in test.rows[test.labels == 0]],
            "what": "rows of test_images in pneumoniamnist.npz whose label is normal",
        },
        "input": "center square of the short side, 28 x 28 antialiased, [0, 1], bright where rays are absorbed",
        "operating_point": "logit with 95% specificity on validation",
    }


def main() -> None:
    """Train three seeds, ship the best on validation."""
    chosen = options(RECIPE.iterations)
    parts, dropped = parts_of(chosen.data)
    nih = adults(chosen.data)
    runs = [(run, evaluate(run, parts, nih)) for run in (fit(seed, parts["training"], chosen) for seed in SEEDS)]
    publish(RECIPE, runs, "auc", describe(parts, dropped) | {"baselines": baselines(parts)})


if __name__ == "__main__":
    main()
