"""Train a technical network that marks the lungs of a chest CT, on labels made by a threshold.

It exists for one study of explanation methods (``studies/bone_edges``). Two series of two patients are all there is:
one trains, the other tests, and nobody drew a label. No figure here says how well it would do on a third patient.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import SEEDS, Options, Recipe, Trained, mean_interval, options, publish, soft_dice_loss, train
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from pellucid.core.image import Modality
from pellucid.core.prepare import InputSpec, prepare
from pellucid.demo import networks
from pellucid.io.reader import read_image

RECIPE = Recipe("lungs", networks.lungs, iterations=300, peak_rate=8e-3)
TRAINING, TEST = "Lung_Dx-A0002_s1", "Lung_Dx-A0001_s1"
WINDOW = (-1000.0, 400.0)  # HU mapped to 0 and 1
# the card's input, but in Hounsfield units
SPEC = InputSpec(rank=3, orientation="RAS", spacing=(3.0, 3.0, 5.0), multiple=4, window=WINDOW, pad=WINDOW[0])
AIR = -400.0  # HU: below it, inside the body, is lung
CROP = (112, 112, 16)
SMALLEST = 0.05  # of the largest piece: smaller pieces of air are bowel, esophagus or noise


@dataclass(frozen=True)
class Chest:
    """A CT series on the network's lattice.

    Args:
        name: of the series.
        intensity: Hounsfield units, clipped to ``WINDOW``, "right anterior superior".
        lung: threshold-made label.
        body: everything inside the skin, lungs included.
    """

    name: str
    intensity: Tensor
    lung: Tensor
    body: Tensor


def largest(mask: NDArray, share: float = 1.0) -> NDArray:
    """The largest connected piece, and those of at least this share of its size."""
    pieces, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(pieces.ravel())[1:]
    return np.isin(pieces, 1 + np.flatnonzero(sizes >= share * sizes.max()))


def body_of(intensity: NDArray) -> NDArray:
    """What is inside the skin: the largest dense piece, its holes filled slice by slice, the table opened away."""
    cross = ndimage.generate_binary_structure(2, 1)[:, :, None]
    dense = largest(ndimage.binary_opening(intensity > AIR, cross))
    return np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(dense, 2, 0)], 2)


def lungs_of(intensity: NDArray, body: NDArray) -> NDArray:
    """Air inside the body that does not reach the outside, with the vessels in it closed (in plane, 9 mm)."""
    air = largest((intensity < AIR) & body, SMALLEST)
    disc = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), 3)[:, :, None]
    room = [(4, 4), (4, 4), (0, 0)]  # so that closing sees no edge of the field
    closed = ndimage.binary_closing(np.pad(air, room), disc)[4:-4, 4:-4]
    return (closed | air) & body


def read(data: Path, name: str) -> Chest:
    """One series with its threshold-made label."""
    image = read_image(data / "ct_lung_boxes" / name, Modality.CT)
    intensity = prepare(image, SPEC).tensor[0]
    body = body_of(intensity.numpy())
    lung = lungs_of(intensity.numpy(), body)
    return Chest(name, intensity, torch.from_numpy(lung), torch.from_numpy(body))


def windowed(intensity: Tensor) -> Tensor:
    """Hounsfield units as the network sees them."""
    return ((intensity - WINDOW[0]) / (WINDOW[1] - WINDOW[0])).clamp(0, 1)


def placement(shape: tuple[int, ...], draw: np.random.Generator) -> Tensor:
    """Random turn in plane, scale, shift and left-right mirroring, as the 3 x 4 matrix of torch's affine grid."""
    angle = draw.uniform(-0.2, 0.2)
    matrix = np.eye(3)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix = matrix * np.exp(draw.uniform(-0.25, 0.3, 3))
    # The grid's axes run last to first: right-left is the last of its coordinates.
    matrix = matrix[::-1, ::-1]
    if draw.random() < 0.5:
        matrix[:, 2] *= -1
    extent = np.array(shape[::-1], dtype=float)
    scaled = (matrix * np.array(CROP[::-1])) / extent[:, None]
    shift = 2 * draw.uniform(-1, 1, (3, 1)) * np.array([[6.0], [16.0], [16.0]]) / extent[:, None]
    return torch.from_numpy(np.concatenate([scaled, shift], axis=1).astype(np.float32))


def vary(intensity: Tensor, draw: np.random.Generator) -> Tensor:
    """Random blur, gain, offset and noise of the Hounsfield units."""
    if draw.random() < 0.4:
        padded = functional.pad(intensity[None, None], (0, 0, 1, 1, 1, 1), mode="replicate")
        intensity = torch.lerp(intensity, functional.avg_pool3d(padded, (3, 3, 1), 1)[0, 0], draw.random())
    noise = torch.from_numpy(draw.standard_normal(CROP, dtype=np.float32))
    changed = (intensity + 1000) * draw.uniform(0.93, 1.07) - 1000 + draw.uniform(-40, 40)
    return changed + noise * draw.uniform(0, 50)


def sample(chest: Chest, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A randomly placed and varied view of ``CROP`` voxels with its label; beyond the series there is air."""
    theta = placement(tuple(chest.intensity.shape), draw)[None]
    grid = functional.affine_grid(theta, [1, 1, *CROP], align_corners=False)
    image = functional.grid_sample(chest.intensity[None, None] + 1000, grid, align_corners=False)[0, 0] - 1000
    label = functional.grid_sample(chest.lung[None, None].float(), grid, mode="nearest", align_corners=False)
    return windowed(vary(image, draw)), label[0, 0]


def fit(seed: int, chest: Chest, chosen: Options) -> Trained:
    """Train one seed."""

    def loss_of(module: torch.nn.Module, draw: np.random.Generator) -> Tensor:
        image, label = sample(chest, draw)
        logits, truth = module(image[None, None]), label[None, None]
        return functional.binary_cross_entropy_with_logits(logits, truth) + soft_dice_loss(logits.sigmoid(), truth)

    return train(RECIPE, seed, chosen, loss_of)


def measure(marked: Tensor, chest: Chest) -> dict:
    """Dice over the series, with an interval over its slices, which are those of one patient."""
    both = (marked & chest.lung).sum((0, 1)).double()
    sizes = (marked.sum((0, 1)) + chest.lung.sum((0, 1))).double()
    kept = torch.nonzero(chest.lung.any(0).any(0)).flatten()
    slices = [float(2 * both[k] / sizes[k]) for k in kept]
    return {
        "dice": mean_interval(slices, list(range(len(slices)))),
        "dice_whole": round(float(2 * both.sum() / sizes.sum()), 4),
        "slices": len(slices),
    }


def marked_by(module: torch.nn.Module, chest: Chest) -> Tensor:
    """Voxels with a logit above 0."""
    with torch.inference_mode():
        return module(windowed(chest.intensity)[None, None])[0, 0] > 0


def describe(training: Chest, test: Chest) -> dict:
    """Where the series come from and what was done with them."""
    return {
        "data": {
            "Lung-PET-CT-Dx (TCIA), two series": {
                "license": "CC BY 4.0",
                "use": "one series trains, the other tests",
                "citation": "Li P et al. The Cancer Imaging Archive 2020, doi 10.7937/TCIA.2020.NNC2-0461",
            }
        },
        "split": {"unit": "patient", "training": [training.name], "test": [test.name]},
        "labels": "threshold: below -400 HU inside the body, vessels closed in plane by 9 mm; large airways included, "
        "consolidation not; nobody drew them",
        "input": "RAS, 3 x 3 x 5 mm, sides divisible by 4, -1000 to 400 HU mapped to 0 and 1, air beyond",
        "operating_point": "logit 0",
        "chosen_by": "Dice on the training series without augmentation (there is no third patient), never the test",
        "intervals": "95% bootstrap over the slices of one patient: they say nothing about other patients",
    }


def main() -> None:
    """Train three seeds on one series, ship one, test on the other."""
    chosen = options(RECIPE.iterations)
    training, test = (read(chosen.data, name) for name in (TRAINING, TEST))
    runs = []
    for seed in SEEDS:
        run = fit(seed, training, chosen)
        parts = (("validation", training), ("test", test))
        runs.append((run, {name: measure(marked_by(run.module, chest), chest) for name, chest in parts}))
    threshold = {"threshold_alone": "1 by construction: it made the labels"}
    publish(RECIPE, runs, "dice", describe(training, test) | {"baselines": threshold})


if __name__ == "__main__":
    main()
