"""Train the hippocampus network on Task04 of the Medical Segmentation Decathlon, split by volume.

The files carry no subject ids, so two volumes of one person may lie on both sides of the split: the test figures
are possibly optimistic. Most crops show one side, hence the mirrored copies in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
from common import SEEDS, Options, Recipe, Trained, mean_interval, options, publish, soft_dice_loss, train
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pellucid.demo import networks

RECIPE = Recipe("hippocampus", networks.hippocampus, iterations=800, peak_rate=4e-3)
SIZE = (40, 56, 40)  # voxels of 1 mm: right, anterior, superior
BATCH = 4
PARTS = {"anterior": (1,), "posterior": (2,), "whole": (1, 2)}


@dataclass(frozen=True)
class Volume:
    """A T1 crop and its expert labels, in RAS.

    Args:
        name: of the file, without its ending.
        intensity: z-scores.
        labels: 0 background, 1 anterior, 2 posterior.
    """

    name: str
    intensity: Tensor
    labels: Tensor


def normalize(intensity: NDArray) -> Tensor:
    """Clip to the percentiles 1 and 99.5, then z-score, over the crop."""
    clipped = np.clip(intensity, *np.percentile(intensity, [1, 99.5]))
    return torch.from_numpy(((clipped - clipped.mean()) / (clipped.std() + 1e-6)).astype(np.float32))


def fitted(values: Tensor, fill: str) -> Tensor:
    """Crop or pad each axis about its center to ``SIZE``; ``fill`` is the mode of torch's pad."""
    margins: list[int] = []
    for have, want in zip(reversed(values.shape), reversed(SIZE), strict=True):
        before = (want - have) // 2
        margins += [before, want - have - before]
    cropped = functional.pad(values, [min(0, margin) for margin in margins])
    return functional.pad(cropped[None, None], [max(0, margin) for margin in margins], mode=fill)[0, 0]


def read(path: Path) -> Volume:
    """One volume with its labels, in RAS."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    truth = nibabel.as_closest_canonical(nibabel.load(path.parent.parent / "labels" / path.name))
    labels = torch.from_numpy(np.asarray(truth.dataobj).astype(np.int64))
    return Volume(path.name.removesuffix(".nii.gz"), normalize(image.get_fdata()), labels)


def split(data: Path) -> dict[str, list[str]]:
    """Names of 140 volumes to train, 20 to validate, 40 to test, drawn once from seed 0."""
    names = sorted(path.name.removesuffix(".nii.gz") for path in (data / "mri_hippocampus" / "images").glob("*.nii.gz"))
    order = [str(name) for name in np.random.default_rng(0).permutation(names)]
    return {"training": order[60:], "validation": order[40:60], "test": order[:40]}


def volumes_of(data: Path, names: Sequence[str]) -> list[Volume]:
    """The volumes of these names."""
    return [read(data / "mri_hippocampus" / "images" / f"{name}.nii.gz") for name in names]


def placement(shape: Sequence[int], draw: np.random.Generator) -> Tensor:
    """Random turn, scale, shift and mirroring, as the 3 x 4 matrix that torch's affine grid takes."""
    matrix = np.eye(3)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        angle = draw.uniform(-0.17, 0.17)
        turn = np.eye(3)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    matrix = matrix * np.exp(draw.uniform(-0.13, 0.13, 3))
    # The grid's axes run last to first, so the right-left axis is the last of its coordinates.
    if draw.random() < 0.5:
        matrix[:, 2] *= -1
    extent = np.array(shape[::-1], dtype=float)
    scaled = (matrix * np.array(SIZE[::-1])) / extent[:, None]
    shift = 2 * draw.uniform(-5, 5, (3, 1)) / extent[:, None]
    return torch.from_numpy(np.concatenate([scaled, shift], axis=1).astype(np.float32))


def vary(image: Tensor, draw: np.random.Generator) -> Tensor:
    """Random blur, noise and gamma, then z-scores again."""
    if draw.random() < 0.3:
        smooth = functional.avg_pool3d(functional.pad(image[None, None], (1,) * 6, mode="replicate"), 3, 1)[0, 0]
        image = torch.lerp(image, smooth, draw.random())
    noise = torch.from_numpy(draw.standard_normal(SIZE, dtype=np.float32))
    image = image + noise * draw.uniform(0, 0.15)
    if draw.random() < 0.5:
        low, high = image.min(), image.max()
        image = ((image - low) / (high - low + 1e-6)) ** float(np.exp(draw.uniform(-0.4, 0.4)))
    return (image - image.mean()) / (image.std() + 1e-6)


def sample(volume: Volume, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A randomly placed and varied crop of ``SIZE`` with its labels."""
    theta = placement(volume.intensity.shape, draw)[None]
    grid = functional.affine_grid(theta, [1, 1, *SIZE], align_corners=False)
    image = functional.grid_sample(volume.intensity[None, None], grid, padding_mode="border", align_corners=False)
    labels = functional.grid_sample(volume.labels[None, None].float(), grid, mode="nearest", align_corners=False)
    return vary(image[0, 0], draw), labels[0, 0].long()


def fit(seed: int, volumes: list[Volume], chosen: Options) -> Trained:
    """Train one seed."""

    def loss_of(module: torch.nn.Module, draw: np.random.Generator) -> Tensor:
        pairs = [sample(volumes[draw.integers(len(volumes))], draw) for _ in range(BATCH)]
        images = torch.stack([image for image, _ in pairs])[:, None].to(memory_format=torch.channels_last_3d)
        labels = torch.stack([truth for _, truth in pairs])
        logits = module(images)
        truth = functional.one_hot(labels, 3).movedim(-1, 1).float()
        return functional.cross_entropy(logits, labels) + soft_dice_loss(logits.softmax(1)[:, 1:], truth[:, 1:])

    return train(RECIPE, seed, chosen, loss_of)


def dice(marked: Tensor, truth: Tensor, classes: Sequence[int]) -> float:
    """Dice overlap of these classes together."""
    a, b = torch.isin(marked, torch.tensor(classes)), torch.isin(truth, torch.tensor(classes))
    return float(2 * (a & b).sum() / (a.sum() + b.sum()).clamp_min(1))


def measure(marked: list[Tensor], volumes: list[Volume]) -> dict:
    """Dice of each part with intervals; labels that lie outside ``SIZE`` count as missed."""
    names = [volume.name for volume in volumes]
    figures: dict = {"volumes": len(volumes)}
    for part, classes in PARTS.items():
        overlaps = []
        for labels, volume in zip(marked, volumes, strict=True):
            kept = fitted(volume.labels, "constant")
            lost = (
                torch.isin(volume.labels, torch.tensor(classes)).sum() - torch.isin(kept, torch.tensor(classes)).sum()
            )
            a = torch.isin(labels, torch.tensor(classes)).sum()
            b = torch.isin(kept, torch.tensor(classes)).sum()
            overlaps.append(dice(labels, kept, classes) * float((a + b) / (a + b + lost)))
        figures[part] = mean_interval(overlaps, names)
        figures[f"{part}_lowest"] = round(min(overlaps), 4)
    figures["mean_of_parts"] = {"value": round((figures["anterior"]["value"] + figures["posterior"]["value"]) / 2, 4)}
    return figures


def marked_by(module: torch.nn.Module, volumes: list[Volume]) -> list[Tensor]:
    """The class with the highest logit at each voxel."""
    with torch.inference_mode():
        return [module(fitted(one.intensity, "replicate")[None, None])[0].argmax(0) for one in volumes]


def atlas(training: list[Volume], volumes: list[Volume]) -> list[Tensor]:
    """The baseline without an image: the commonest label at each position over the training crops."""
    labels = torch.stack([fitted(volume.labels, "constant") for volume in training])
    votes = torch.stack([(labels == value).sum(0) for value in range(3)])
    return [votes.argmax(0) for _ in volumes]


def describe(parts: dict[str, list[Volume]]) -> dict:
    """Where the volumes come from and how they were split."""
    return {
        "data": {
            "Medical Segmentation Decathlon, Task04 Hippocampus": {
                "license": "CC BY-SA 4.0",
                "use": "training, validation, test",
                "citation": "Antonelli M et al. Nat Commun 2022;13:4128; Simpson AL et al. arXiv:1902.09063",
            }
        },
        "split": {
            "unit": "volume (the files carry no subject ids: possibly optimistic)",
            **{name: len(volumes) for name, volumes in parts.items()},
            "test_items": sorted(volume.name for volume in parts["test"]),
        },
        "input": f"RAS, 1 mm, cropped or padded by replication about the center to {SIZE}, z-scored over the crop",
        "operating_point": "class with the highest logit",
    }


def main() -> None:
    """Train three seeds, ship the best on validation."""
    chosen = options(RECIPE.iterations)
    parts = {name: volumes_of(chosen.data, names) for name, names in split(chosen.data).items()}
    runs = []
    for seed in SEEDS:
        run = fit(seed, parts["training"], chosen)
        held = {name: measure(marked_by(run.module, parts[name]), parts[name]) for name in ("validation", "test")}
        runs.append((run, held))
    baseline = measure(atlas(parts["training"], parts["test"]), parts["test"])
    publish(RECIPE, runs, "mean_of_parts", describe(parts) | {"baselines": {"commonest_label_per_position": baseline}})


if __name__ == "__main__":
    main()
