"""Crops with and without a lesion, from images with lesion masks, and patches with and without a planted nodule."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nodule
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Picture
from torch import Tensor

SIDE = 64  # pixels of a crop
HELD = (0.08, 0.5)  # share of a crop that its lesion fills
DARK, DARK_SHARE = 20, 0.05  # brightness out of 255, and how much of a crop may be darker: corners tell of no lesion
GRAY = {"ultrasound"}  # black is part of an ultrasound image
ZOOM = {"dermoscopy": 0.5, "ultrasound": 0.5, "polyps": 0.6}  # side of a crop over the image's short side


@dataclass(frozen=True, eq=False)
class Shot:
    """One image, narrowed so that a crop of 64 pixels is the share of it that the data set's crops are.

    Args:
        name: of the file.
        pixels: "row column channel", 0 to 255.
        mask: of the lesion.
        holding: corners of crops that hold enough of the lesion and something else.
        empty: corners of crops without any of it.
    """

    name: str
    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    holding: NDArray[np.int64]
    empty: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Crops:
    """Crops as a network takes them.

    Args:
        images: "crop channel row column" in [0, 1].
        masks: "crop row column", of the lesion.
        labels: 1 where the crop holds it.
        owners: the image (or film) of each.
    """

    images: Tensor
    masks: Tensor
    labels: NDArray[np.int64]
    owners: NDArray[np.str_]

    def only(self, rows: NDArray) -> "Crops":
        """Some of them."""
        at = torch.from_numpy(np.flatnonzero(rows) if rows.dtype == bool else rows)
        return Crops(self.images[at], self.masks[at], self.labels[at.numpy()], self.owners[at.numpy()])


def corners(mask: NDArray[np.bool_], dark: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Upper left corners of crops that hold the lesion, and of those that hold nothing of it."""
    filled, black = (_boxes(plane) / SIDE**2 for plane in (mask, dark))
    lit = black <= DARK_SHARE
    holding = (filled >= HELD[0]) & (filled <= HELD[1]) & lit
    return np.argwhere(holding), np.argwhere((filled == 0) & lit)


def _boxes(plane: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How many pixels of each crop are in the plane."""
    sums = np.pad(plane.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return sums[SIDE:, SIDE:] - sums[:-SIDE, SIDE:] - sums[SIDE:, :-SIDE] + sums[:-SIDE, :-SIDE]


def shot(path: Path, masks: Sequence[Path], kind: str) -> Shot:
    """Read an image and its lesion; no mask file means no lesion."""
    with Picture.open(path) as opened:
        image = opened.convert("L" if kind in GRAY else "RGB")
    scale = SIDE / (ZOOM[kind] * min(image.size))
    size = (max(SIDE, round(image.width * scale)), max(SIDE, round(image.height * scale)))
    pixels = np.asarray(image.resize(size, Picture.Resampling.BOX))
    lesion = np.zeros(pixels.shape[:2], dtype=bool)
    for one in masks:
        with Picture.open(one) as opened:
            lesion |= np.asarray(opened.convert("L").resize(size, Picture.Resampling.BOX)) > 127
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    dark = np.zeros_like(lesion) if kind in GRAY else pixels.max(2) < DARK
    return Shot(path.stem, pixels, lesion, *corners(lesion, dark))


def listed(data: Path, kind: str) -> list[tuple[Path, list[Path]]]:
    """Every image of a data set with its mask files, in the order of their names."""
    if kind == "ultrasound":
        images = sorted(p for p in (data / "ultrasound_busi").glob("*/*.png") if "_mask" not in p.name)
        return [(p, sorted(p.parent.glob(f"{p.stem}_mask*.png"))) for p in images]
    folder = data / {"dermoscopy": "dermoscopy_ph2", "polyps": "endoscopy_polyp/kvasir"}[kind]
    images = sorted((folder / "images").glob("*.jpg"))
    return [(p, sorted((folder / "masks").glob(f"{p.stem}.*"))) for p in images]


def split(data: Path, kind: str, most: int) -> tuple[list[Shot], list[Shot]]:
    """Images trained on and held out, half and half, drawn from seed 0; at most so many of either."""
    every = listed(data, kind)
    order = np.random.default_rng(0).permutation(len(every))
    half = len(every) // 2
    trained, held = order[:half][:most], order[half:][:most]
    return [shot(*every[i], kind) for i in trained], [shot(*every[i], kind) for i in held]


def drawn(shots: Sequence[Shot], each: int, draw: np.random.Generator) -> Crops:
    """So many crops of each image that has any, with and as many without the lesion."""
    images, masks, labels, owners = [], [], [], []
    for one in shots:
        for label, places in ((1, one.holding), (0, one.empty)):
            for row, column in places[draw.integers(len(places), size=each)] if len(places) else ():
                window = np.s_[row : row + SIDE, column : column + SIDE]
                images.append(one.pixels[window])
                masks.append(one.mask[window])
                labels.append(label)
                owners.append(one.name)
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return Crops(stacked, torch.from_numpy(np.stack(masks)), np.array(labels), np.array(owners))


def nodules(data: Path, most: int) -> Crops:
    """Patches of the films that the demo's nodule network never saw, each without and with a planted nodule."""
    films = nodule.split(data)["test"]
    patches = nodule.patches_of({name: films[name] for name in sorted(films)[:most]})
    return Crops(
        torch.from_numpy(np.stack([one.image for one in patches]))[:, None],
        torch.from_numpy(np.stack([one.mask for one in patches])),
        np.array([int(one.planted) for one in patches]),
        np.array([one.film[:8] for one in patches]),
    )
