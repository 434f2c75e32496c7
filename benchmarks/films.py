"""The demo's two film networks with real films: small enough for the many thousand forwards that sampling is judged by.

The films lie in the folder ``shared/data`` beside the clone. A network here answers an image that it has seen before
from memory, so that one run serves several scores, numbers of masks and stops; who counts forwards counts those asked.
"""

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from measuring import CannotMeasure
from PIL import Image as Picture
from torch import Tensor, nn

from pellucid.core.model import Model
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore
from pellucid.demo.planted import plant_nodule
from pellucid.io.models import load_model

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "src" / "pellucid" / "demo" / "models"
DATA = ROOT.parent / "shared" / "data"
SIDE, RADIUS, CONTRAST = 128, 9.0, 0.18
WHAT: Mapping[str, str] = {
    "pneumonia": "demo pneumonia, 28 x 28; test films of PneumoniaMNIST that it calls pneumonia",
    "nodule": "demo planted nodule, 128 x 128; patches of NIH films with a planted nodule that it calls a nodule",
}


class Remembering(nn.Module):
    """A network of one logit that keeps what it said of each image.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.known: dict[bytes, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """The logits, computed for what is new."""
        keys = [hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest() for row in x]
        new = [i for i, key in enumerate(keys) if key not in self.known]
        if new:
            found = self.network(x[new].contiguous(memory_format=torch.channels_last))
            self.known.update((keys[i], row) for i, row in zip(new, found, strict=True))
        return torch.stack([self.known[key] for key in keys])


@dataclass(frozen=True, eq=False)
class Films:
    """A network with films that it calls positive.

    Args:
        name: of the network's folder.
        model: the network, remembering.
        images: "film 1 row column" in [0, 1].
        label: that is explained.
    """

    name: str
    model: Model
    images: Tensor
    label: str

    def probe(self, film: int, scale: str, seed: int) -> Probe:
        """One film; ``scale`` is ``head`` (logit) or ``score``."""
        return Probe(self.model, self.images[film : film + 1], ClassScore(self.label, scale), scene=Scene(seed=seed))

    def forget(self) -> None:
        """Free what was kept of the last film."""
        self.model.module.known.clear()

    @property
    def words(self) -> dict[str, object]:
        """For the JSON."""
        return {"model": WHAT[self.name], "size": [1, *self.images.shape[1:]], "precision": "float32"}


def films(name: str, count: int) -> Films:
    """The first ``count`` films whose logit reaches the operating point."""
    loaded = load_model(MODELS / name / "model.toml").model
    label, point = next(iter(loaded.output.operating_point.items()))
    found = _children() if name == "pneumonia" else _adults()
    with torch.inference_mode():
        logits = torch.cat([loaded.module(part)[:, 0] for part in found.split(8)])
    positive = found[logits >= point][:count]
    if len(positive) < count:
        raise CannotMeasure(f"expected {count} films that are called {label}, got {len(positive)}")
    return Films(name, replace(loaded, module=Remembering(loaded.module)), positive, label)


def _children() -> Tensor:
    path = DATA / "xray_pneumoniamnist" / "pneumoniamnist.npz"
    if not path.is_file():
        raise CannotMeasure("the films of PneumoniaMNIST are not in shared/data beside the clone")
    with np.load(path) as data:
        sick = data["test_images"][data["test_labels"][:, 0] == 1][:100]
    return torch.from_numpy(sick).float()[:, None] / 255


def _adults() -> Tensor:
    """A random patch of each film without a nodule or mass, with one planted at the darkest of five random places."""
    folder, draw, out = DATA / "xray_nih", np.random.default_rng(0), []
    if not folder.is_dir():
        raise CannotMeasure("the films of NIH ChestX-ray14 are not in shared/data beside the clone")
    with (folder / "labels14.csv").open(encoding="utf-8") as stream:
        left_out = {row["image"][:-4] for row in csv.DictReader(stream) if "1" in (row["Nodule"], row["Mass"])}
    for path in [p for p in sorted((folder / "images").glob("*.jpg")) if p.stem not in left_out][:60]:
        film = np.asarray(Picture.open(path).convert("L")).astype(np.float32) / 255
        row, column = int(draw.integers(48, 304)), int(draw.integers(24, 360))
        patch = film[row : row + SIDE, column : column + SIDE]
        places = draw.integers(20, SIDE - 20, (5, 2))
        r, c = places[int(np.argmin([patch[i - 4 : i + 5, j - 4 : j + 5].mean() for i, j in places]))]
        out.append(plant_nodule(patch, (float(r), float(c)), RADIUS, CONTRAST, int(draw.integers(2**31)))[0])
    return torch.from_numpy(np.stack(out)).float()[:, None]
