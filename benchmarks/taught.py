"""Trained networks with real images that they never saw: what engines and methods are measured on.

The 2-D one is taught here, once, in some minutes; its weights are kept in ``benchmarks/.cache`` (not in git), and made
again from the seed where the file is missing. The 3-D one is the demo's. The images lie in the folder ``shared/data``
beside the clone.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from measuring import CannotMeasure
from PIL import Image as Picture
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.core.target import ClassScore, RegionScore, Target
from pellucid.io.models import load_model
from pellucid.io.reader import read_cases
from pellucid.workbench.opening import open_case

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
CACHE = Path(__file__).resolve().parent / ".cache"
CARD = ROOT / "src" / "pellucid" / "demo" / "models" / "hippocampus" / "model.toml"
KINDS = ("glioma", "meningioma", "notumor", "pituitary")
SIDE = 128
HELD_OUT, TESTED = 80, 40
EPOCHS, BATCH = 10, 16


@dataclass(frozen=True, eq=False)
class Taught:
    """A trained network with real images.

    Args:
        name: of the network and what it was taught.
        model: the network.
        unseen: images that it was not taught on, "item channel *space".
        targets: what is explained of each unseen image.
        seen: some images that it was taught on.
        quality: how good it is on unseen images, in words.
    """

    name: str
    model: Model
    unseen: Tensor
    targets: tuple[Target, ...]
    seen: Tensor
    quality: str

    @property
    def words(self) -> dict[str, object]:
        """For the JSON."""
        size = [1, *self.unseen.shape[1:]]
        return {"model": self.name, "size": size, "precision": "float32", "quality": self.quality}


def brains() -> Taught:
    """DenseNet121 on slices of brain MR: three kinds of tumor and none."""
    from monai.networks.nets import DenseNet121  # which imports torchvision where it is: see rivals.py

    images, labels = slices()
    torch.manual_seed(0)
    network = DenseNet121(spatial_dims=2, in_channels=1, out_channels=len(KINDS))
    kept = CACHE / "brains.safetensors"
    if not kept.is_file():
        _teach(network, images[HELD_OUT:], labels[HELD_OUT:])
        CACHE.mkdir(exist_ok=True)
        part = kept.with_suffix(".part")
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, part)
        part.replace(kept)
    network.load_state_dict(load_file(kept))
    network.eval()
    some, right = images[: HELD_OUT // 2], labels[: HELD_OUT // 2]
    with torch.no_grad():
        found = torch.cat([network(x).argmax(1) for x in some.split(8)])
    return Taught(
        f"MONAI DenseNet121 taught on brain MR slices, {SIDE} x {SIDE}",
        Model(network, (InputSpec(rank=2, channels=1),)),
        images[:HELD_OUT],
        tuple(ClassScore(int(label)) for label in labels[:HELD_OUT]),
        images[HELD_OUT : 2 * HELD_OUT],
        f"accuracy {float((found == right).float().mean()):.3f} on {len(some)} unseen slices, {len(KINDS)} classes",
    )


def hippocampi() -> Taught:
    """The demo's 3-D U-Net, which outlines the hippocampus; test volumes as ``training/hippocampus.py`` drew them."""
    folder = _folder("mri_hippocampus", "images")
    loaded = load_model(CARD)
    paths = np.random.default_rng(0).permutation(sorted(folder.glob("*.nii.gz")))
    chosen = [*paths[:TESTED], *paths[-TESTED:]]
    opened = [open_case(read_cases(path).cases[0], loaded.model).inputs[loaded.model.primary] for path in chosen]
    images = torch.cat(opened)
    quality = loaded.card.performance[0] if loaded.card else None
    return Taught(
        f"{loaded.model.identity.name}, a 3-D U-Net, {' x '.join(str(n) for n in images.shape[2:])}",
        loaded.model,
        images[:TESTED],
        (RegionScore("anterior hippocampus"),) * TESTED,
        images[TESTED:],
        f"{quality.metric} {quality.value} on {quality.n} unseen volumes" if quality else "",
    )


def slices() -> tuple[Tensor, Tensor]:
    """Every slice in a seeded order, from 0 to 1."""
    found = [(p, k) for k, kind in enumerate(KINDS) for p in sorted(_folder("mri_braintumor_classes", kind).iterdir())]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
    pictures = [Picture.open(found[i][0]).convert("L").resize((SIDE, SIDE), Picture.Resampling.BILINEAR) for i in order]
    images = torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).float()[:, None] / 255
    return images, torch.tensor([found[i][1] for i in order])


def _teach(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """AdamW with a falling rate, in bfloat16, which is fast enough here; images mirrored and shifted a little."""
    generator = torch.Generator().manual_seed(0)
    network.train()
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    loss: Callable[[Tensor, Tensor], Tensor] = nn.CrossEntropyLoss(label_smoothing=0.05)
    network.to(memory_format=torch.channels_last)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
            if len(chosen) < BATCH:
                continue
            x = _varied(images[chosen], generator).contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                output = network(x)
            loss(output.float(), labels[chosen]).backward()
            optimizer.step()
            schedule.step()


def _varied(x: Tensor, generator: torch.Generator) -> Tensor:
    axes = tuple(range(2, x.ndim))
    flip = torch.rand(1, generator=generator) < 0.5
    x = x.flip(2) if flip else x
    most = max(1, x.shape[-1] // 20)
    shifts = torch.randint(-most, most + 1, (len(axes),), generator=generator).tolist()
    return x.roll(shifts, axes)


def _folder(*names: str) -> Path:
    folder = DATA.joinpath(*names)
    if not folder.is_dir():
        raise CannotMeasure(f"the folder of real images {folder.relative_to(DATA.parent)} is not there")
    return folder


if __name__ == "__main__":
    torch.set_num_threads(1)
    for taught in (brains(), hippocampi()):
        sys.stdout.write(f"{taught.name}: {taught.quality}\n")
