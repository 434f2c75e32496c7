"""Train the nodule network on patches of NIH chest films, half of them with a formula-made nodule.

Tubes and broad blobs of the same brightness are planted into both halves, so that shape has to be learned and not
brightness. Films that carry the label Nodule or Mass are left out: a real nodule there would count as absent.
"""

import csv
from dataclasses import dataclass, replace
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
    share_interval,
    train,
)
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_laplace
from torch import Tensor
from torch.nn import functional

from pellucid.demo import networks
from pellucid.demo.planted import plant_nodule

RECIPE = Recipe("nodule", networks.nodule, iterations=1000, peak_rate=3e-3)
SIDE, BATCH = 128, 32
ROWS, COLUMNS = (48, 304), (24, 360)  # corners of patches: the middle of a film of 512 pixels
RADIUS, CONTRAST = (5.0, 14.0), (0.06, 0.22)
PATCHES_PER_FILM = 4
Gray = NDArray[np.float32]


@dataclass(frozen=True)
class Patch:
    """One patch as the network sees it, and what was planted into it.

    Args:
        image: 128 x 128 in [0, 1].
        film: name of the film's file.
        corner: (row, column) of the upper left pixel in the film.
        planted: whether it holds a nodule.
        contrast: of the nodule, 0 without one.
        distractor: "none", "tube" or "blob".
        mask: 128 x 128, the nodule by the formula.
    """

    image: Gray
    film: str
    corner: tuple[int, int]
    planted: bool
    contrast: float
    distractor: str
    mask: NDArray[np.bool_]


def read(path: Path) -> NDArray[np.uint8]:
    """A film as 512 x 512 gray values."""
    return np.asarray(Image.open(path).convert("L"))


def split(data: Path) -> dict[str, dict[str, NDArray[np.uint8]]]:
    """Films by part, 60/20/20 by patient (first 8 digits), drawn once from seed 0."""
    folder = data / "xray_nih"
    with (folder / "labels14.csv").open(encoding="utf-8") as stream:
        left_out = {row["image"][:-4] for row in csv.DictReader(stream) if "1" in (row["Nodule"], row["Mass"])}
    paths = [path for path in sorted((folder / "images").glob("*.jpg")) if path.stem not in left_out]
    patients = [str(name) for name in np.random.default_rng(0).permutation(sorted({p.stem[:8] for p in paths}))]
    fifth = len(patients) // 5
    groups = {"test": patients[:fifth], "validation": patients[fifth : 2 * fifth], "training": patients[2 * fifth :]}
    return {name: {p.stem: read(p) for p in paths if p.stem[:8] in set(group)} for name, group in groups.items()}


def darkest(image: Gray, draw: np.random.Generator) -> tuple[int, int]:
    """Of five random places, the one with the darkest surroundings: rather lung than heart."""
    places = draw.integers(20, SIDE - 20, (5, 2))
    means = [image[row - 4 : row + 5, column - 4 : column + 5].mean() for row, column in places]
    row, column = places[int(np.argmin(means))]
    return int(row), int(column)


def add_tube(image: Gray, draw: np.random.Generator) -> Gray:
    """A straight tube across the patch, with a nodule's profile, width and brightness."""
    row, column = darkest(image, draw)
    angle = draw.uniform(0, np.pi)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    away = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
    density = draw.uniform(*CONTRAST) * np.maximum(0, 1 - (away / draw.uniform(*RADIUS)) ** 2)
    return np.clip(image + density, 0, 1).astype(np.float32)


def add_blob(image: Gray, draw: np.random.Generator) -> Gray:
    """A smooth blob three to five times as broad as the largest nodule, and as bright."""
    row, column = darkest(image, draw)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    breadth = draw.uniform(25, 45)
    squared = ((rows - row) ** 2 + (columns - column) ** 2) / breadth**2
    return np.clip(image + draw.uniform(*CONTRAST) * np.exp(-squared / 2), 0, 1).astype(np.float32)


def crop(films: dict[str, NDArray[np.uint8]], film: str, draw: np.random.Generator) -> Patch:
    """A random patch of the middle of a film, half of the time with a distractor."""
    row, column = int(draw.integers(*ROWS)), int(draw.integers(*COLUMNS))
    image = films[film][row : row + SIDE, column : column + SIDE].astype(np.float32) / 255
    distractor = str(draw.choice(["none", "none", "tube", "blob"]))
    if distractor == "tube":
        image = add_tube(image, draw)
    elif distractor == "blob":
        image = add_blob(image, draw)
    return Patch(image, film, (row, column), False, 0.0, distractor, np.zeros((SIDE, SIDE), dtype=bool))


def planted(patch: Patch, draw: np.random.Generator) -> Patch:
    """The same patch with a nodule at a random, rather dark place."""
    contrast = float(draw.uniform(*CONTRAST))
    center = darkest(patch.image, draw)
    seed = int(draw.integers(2**31))
    image, mask = plant_nodule(patch.image, center, float(draw.uniform(*RADIUS)), contrast, seed)
    return replace(patch, image=image, planted=True, contrast=contrast, mask=mask)


def vary(patch: Patch, draw: np.random.Generator) -> tuple[Gray, NDArray[np.bool_]]:
    """Random mirroring, gamma, gain, offset, blur and noise; the mask is mirrored along."""
    mirror = np.s_[:: int(draw.choice([-1, 1])), :: int(draw.choice([-1, 1]))]
    image = patch.image[mirror] ** np.exp(draw.uniform(-0.4, 0.4))
    image = image * draw.uniform(0.6, 1.1) + draw.uniform(-0.05, 0.1)
    if draw.random() < 0.3:
        image = gaussian_filter(image, draw.uniform(0.3, 1.0))
    noise = draw.standard_normal(image.shape, dtype=np.float32) * draw.uniform(0, 0.015)
    return (image + noise).clip(0, 1).astype(np.float32), patch.mask[mirror]


def cell_truth(masks: Tensor) -> Tensor:
    """Cells of 8 x 8 pixels that the mask fills by a third, and in any case the one that it fills most."""
    filled = functional.avg_pool2d(masks, 8)
    most = filled.amax(dim=(2, 3), keepdim=True)
    return ((filled > 1 / 3) | ((filled == most) & (most > 0))).float()


def fit(seed: int, films: dict[str, NDArray[np.uint8]], chosen: Options) -> Trained:
    """Train one seed on the label of each patch and on the mask at the network's cells."""
    names = sorted(films)

    def loss_of(module: networks.ResidualDetector, draw: np.random.Generator) -> Tensor:
        patches = [crop(films, names[draw.integers(len(names))], draw) for _ in range(BATCH)]
        patches = [planted(one, draw) if index % 2 else one for index, one in enumerate(patches)]
        images, masks = zip(*(vary(one, draw) for one in patches), strict=True)
        cells = module.cells(torch.from_numpy(np.stack(images))[:, None].to(memory_format=torch.channels_last))
        labels = torch.tensor([[float(one.planted)] for one in patches])
        truth = cell_truth(torch.from_numpy(np.stack(masks))[:, None].float())
        local = functional.binary_cross_entropy_with_logits(cells, truth, pos_weight=torch.tensor(10.0))
        return local + functional.binary_cross_entropy_with_logits(torch.logsumexp(cells, dim=(2, 3)), labels)

    return train(RECIPE, seed, chosen, loss_of)


def patches_of(films: dict[str, NDArray[np.uint8]]) -> list[Patch]:
    """Four random patches of each film, each without and with a nodule, drawn from seed 0."""
    draw = np.random.default_rng(0)
    plain = [crop(films, name, draw) for name in sorted(films) for _ in range(PATCHES_PER_FILM)]
    return plain + [planted(one, draw) for one in plain]


def logits_of(module: torch.nn.Module, patches: list[Patch]) -> NDArray[np.float64]:
    """The network's logits."""
    images = torch.from_numpy(np.stack([one.image for one in patches]))[:, None]
    with torch.inference_mode():
        return torch.cat([module(batch) for batch in images.split(64)])[:, 0].double().numpy()


def roundness(patches: list[Patch]) -> NDArray[np.float64]:
    """The baseline without a weight: the strongest bright blob of a nodule's size, over the patch's contrast."""
    return np.array(
        [
            max(-(size**2) * gaussian_laplace(one.image, size).min() for size in (3.0, 5.0, 7.0)) / one.image.std()
            for one in patches
        ]
    )


def measure(scores: NDArray[np.float64], patches: list[Patch], threshold: float) -> dict:
    """AUC, sensitivity by contrast and false alarms by distractor, with intervals by patient."""
    labels = np.array([one.planted for one in patches])
    owners = np.array([one.film[:8] for one in patches])
    contrast = np.array([one.contrast for one in patches])
    kind = np.array([one.distractor for one in patches])
    called = scores >= threshold
    figures = {"patches": len(patches), "films": len(set(owners)), "auc": auc_interval(labels, scores, owners)}
    figures["sensitivity"] = share_interval(called[labels], owners[labels])
    figures["specificity"] = share_interval(~called[~labels], owners[~labels])
    for low, high in ((0.06, 0.11), (0.11, 0.16), (0.16, 0.22)):
        rows = labels & (contrast >= low) & (contrast < high)
        figures[f"sensitivity_contrast_{low}_to_{high}"] = share_interval(called[rows], owners[rows])
    for name in ("none", "tube", "blob"):
        rows = ~labels & (kind == name)
        figures[f"specificity_distractor_{name}"] = share_interval(~called[rows], owners[rows])
    return figures


def pointing(module: networks.ResidualDetector, patches: list[Patch], threshold: float) -> dict:
    """Of the nodules that were called, how many the network's highest cell touches."""
    chosen = [one for one in patches if one.planted]
    called = logits_of(module, chosen) >= threshold
    images = torch.from_numpy(np.stack([one.image for one in chosen]))[:, None]
    with torch.inference_mode():
        peaks = torch.cat([module.cells(batch).flatten(1).argmax(1) for batch in images.split(64)]).numpy()
    touched = [functional.max_pool2d(torch.from_numpy(one.mask)[None].float(), 8).flatten() > 0 for one in chosen]
    hits = np.array([bool(cells[peak]) for cells, peak in zip(touched, peaks, strict=True)])
    owners = np.array([one.film[:8] for one in chosen])
    chance = float(np.mean([cells.float().mean() for cells in touched]))
    return {
        "hits": share_interval(hits[called], owners[called]),
        "called": int(called.sum()),
        "chance": round(chance, 4),
    }


def evaluate(trained: Trained, parts: dict[str, list[Patch]]) -> dict:
    """Figures of one seed; the threshold gives 95% specificity on validation."""
    scores = {name: logits_of(trained.module, patches) for name, patches in parts.items()}
    labels = np.array([one.planted for one in parts["validation"]])
    threshold = at_specificity(scores["validation"], labels)
    held = {name: measure(scores[name], patches, threshold) for name, patches in parts.items()}
    held["test"]["highest_cell_touches_called_nodule"] = pointing(trained.module, parts["test"], threshold)
    return {"threshold_logit": round(threshold, 4), **held}


def baseline(parts: dict[str, list[Patch]]) -> dict:
    """The strongest blob, at 95% specificity on validation."""
    labels = np.array([one.planted for one in parts["validation"]])
    threshold = at_specificity(roundness(parts["validation"]), labels)
    return measure(roundness(parts["test"]), parts["test"], threshold)


def describe(films: dict[str, dict[str, NDArray[np.uint8]]], test: list[Patch]) -> dict:
    """Where the films come from, how they were split, and which patches are held-out normals."""
    normals = [one for one in test if not one.planted and one.distractor == "none"]
    return {
        "data": {
            "NIH ChestX-ray14 (621 films, 512 pixels)": {
                "license": "free use with attribution to the NIH Clinical Center",
                "use": "training, validation, test; films labeled Nodule or Mass left out",
                "citation": "Wang X et al. ChestX-ray8. CVPR 2017",
            }
        },
        "truth": "planted by formula (pellucid.demo.planted); no human label is used",
        "planted": {"radius_px": RADIUS, "contrast": CONTRAST, "patch_px": SIDE, "film_px": 512},
        "split": {"unit": "patient, one film each", **{name: len(part) for name, part in films.items()}},
        "held_out": {
            "films": sorted(films["test"]),
            "normal_patches": [{"film": one.film, "row": one.corner[0], "column": one.corner[1]} for one in normals],
            "what": "unplanted test patches of 128 x 128 without a distractor, by their upper left pixel",
        },
        "operating_point": "logit with 95% specificity on validation, distractors included",
    }


def main() -> None:
    """Train three seeds, ship the best on validation."""
    chosen = options(RECIPE.iterations)
    films = split(chosen.data)
    parts = {name: patches_of(films[name]) for name in ("validation", "test")}
    runs = [(run, evaluate(run, parts)) for run in (fit(seed, films["training"], chosen) for seed in SEEDS)]
    report = describe(films, parts["test"]) | {"baselines": {"strongest_bright_blob": baseline(parts)}}
    publish(RECIPE, runs, "auc", report)


if __name__ == "__main__":
    main()
