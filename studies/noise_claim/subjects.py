"""What the studies of the review's claims look at: the demo's networks, each with cases it was not trained on."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "training"))

import nodule
import pneumonia

from pellucid.core.card import Ask
from pellucid.core.case import Case
from pellucid.core.explainer import Explainer
from pellucid.core.image import Modality
from pellucid.core.model import Model
from pellucid.core.perwindow import answered
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import ClassScore, RegionScore, Target
from pellucid.demo.cases import MODELS
from pellucid.guide.modality import modality_guide
from pellucid.io.models import load_model
from pellucid.io.reader import read_image
from pellucid.workbench.opening import open_case

NETWORKS = ("pneumonia", "nodule", "hippocampus", "vessels")
MIDDLE = {
    "hippocampus": (32, 40, 32),
    "vessels": (160, 160),
}  # of what the network sees: the rest is left out, for time
DRIVE_FIRST = 21  # its training part, the only one that could be had, is numbered 21 to 40


@dataclass(frozen=True, eq=False)
class Batch:
    """Cases that are explained together.

    Args:
        x: "case channel *space", in network units.
        names: of the cases.
        patients: of the cases; the case's own name where the data name no patient.
        scene: of all of them.
    """

    x: Tensor
    names: tuple[str, ...]
    patients: tuple[str, ...]
    scene: Scene


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, what is explained of it, and on which cases.

    Args:
        name: of the network.
        model: as it ships.
        target: the score that is explained.
        label: index of the output channel that the target is about.
        batches: of the cases.
    """

    name: str
    model: Model
    target: Target
    label: int
    batches: tuple[Batch, ...]

    def probe(self, method: Explainer | None, batch: Batch, x: Tensor | None = None) -> Probe:
        """Opened for a method (None: for the output), at the cases or at other inputs."""
        inputs = batch.x if x is None else x
        needs = [(Ask.OUTPUT, None)] if method is None else method.needs(self.model, {self.model.primary: inputs})
        return Probe(self.model, inputs, self.target, needs, batch.scene)


def map_of(method: Explainer, probe: Probe) -> Tensor:
    """The collapsed map, "case *space"."""
    return answered(method, probe).collapsed(probe.model.primary).detach().cpu()


def subject(name: str, data: Path, count: int) -> Subject:
    """A network with cases.

    Args:
        name: of the network, one of ``NETWORKS``, or ``pneumonia_transformer``.
        data: folder of the data sets.
        count: cases at most.
    """
    model = load_model(MODELS / name).model
    if name in ("pneumonia", "pneumonia_transformer"):
        return Subject(name, model, ClassScore("pneumonia"), 0, films(data, count))
    if name == "nodule":
        return Subject(name, model, ClassScore("nodule"), 0, patches(data, count))
    small = replace(model, inputs=(replace(model.inputs[0], size=MIDDLE[name]),))
    if name == "hippocampus":
        whole, target, label = volumes(model, data, count), RegionScore("anterior hippocampus"), 1
    else:
        whole, target, label = photographs(model, data, count), RegionScore("vessel"), 0
    return Subject(name, small, target, label, tuple(middle(batch, MIDDLE[name]) for batch in whole))


def films(data: Path, count: int) -> tuple[Batch, ...]:
    """Chest films of children from the test part, as many normal as pneumonia; the file names no patients."""
    test = pneumonia.parts_of(data)[0]["test"]
    draw = np.random.default_rng(0)
    rows = [draw.choice(np.flatnonzero(test.labels == label), count // 2, replace=False) for label in (0, 1)]
    chosen = np.sort(np.concatenate(rows))
    names = tuple(f"test film {test.rows[row]}" for row in chosen)
    return split(test.images[torch.from_numpy(chosen)], names, names, 20)


def patches(data: Path, count: int) -> tuple[Batch, ...]:
    """Patches of held-out adult films, each with a nodule planted by formula that the network calls one."""
    test = nodule.split(data)["test"]
    found = [one for one in nodule.patches_of(test) if one.planted and one.contrast > 0.11]
    first = {one.film[:8]: one for one in reversed(found)}  # one patch of a patient
    chosen = [first[patient] for patient in sorted(first)][:count]
    x = torch.from_numpy(np.stack([one.image for one in chosen]))[:, None]
    return split(x, tuple(one.film for one in chosen), tuple(one.film[:8] for one in chosen), 8)


def split(x: Tensor, names: tuple[str, ...], patients: tuple[str, ...], size: int) -> tuple[Batch, ...]:
    """Batches of films."""
    scene = Scene(infills=modality_guide(Modality.XRAY).infills)
    starts = range(0, len(x), size)
    return tuple(Batch(x[i : i + size], names[i : i + size], patients[i : i + size], scene) for i in starts)


def volumes(model: Model, data: Path, count: int) -> tuple[Batch, ...]:
    """Held-out volumes of the hippocampus; the files name no subjects."""
    names = _held_out("hippocampus")["test_items"][:count]
    paths = [data / "mri_hippocampus" / "images" / f"{name}.nii.gz" for name in names]
    return tuple(_opened(model, path, Modality.MRI, path.name.split(".")[0]) for path in paths)


def photographs(model: Model, data: Path, count: int) -> tuple[Batch, ...]:
    """Photographs of the left eyes of the held-out children, then of one adult after the other."""
    folder = data / "fundus_vessels"
    paths = [(folder / "CHASEDB1" / f"Image_{one}L.jpg", f"CHASE {one}") for one in _held_out("vessels")["test"]]
    adults = folder / "DRIVE" / "training" / "images"
    paths += [(adults / f"{n}_training.png", f"DRIVE {n}") for n in range(DRIVE_FIRST, DRIVE_FIRST + 20)]
    return tuple(_opened(model, path, Modality.FUNDUS, patient) for path, patient in paths[:count])


def middle(batch: Batch, size: tuple[int, ...]) -> Batch:
    """The middle of each case, of so many pixels or voxels."""
    starts = [(side - kept) // 2 for side, kept in zip(batch.x.shape[2:], size, strict=True)]
    inside = tuple(slice(start, start + kept) for start, kept in zip(starts, size, strict=True))
    grids = {name: grid.cropped(starts, size) for name, grid in batch.scene.grids.items()}
    return replace(batch, x=batch.x[(..., *inside)].contiguous(), scene=replace(batch.scene, grids=grids))


def _opened(model: Model, path: Path, modality: Modality, patient: str) -> Batch:
    opened = open_case(Case(path.stem.split(".")[0], {"image": read_image(path, modality)}), model)
    return Batch(opened.inputs["image"], (opened.case.name,), (patient,), opened.scene)


def _held_out(network: str) -> dict:
    return json.loads((ROOT / "training" / "results" / f"{network}.json").read_text(encoding="utf-8"))["split"]


def of_case(batch: Batch, index: int, seed: int) -> Batch:
    """One case of a batch, with a seed of its own."""
    part = slice(index, index + 1)
    return Batch(batch.x[part], batch.names[part], batch.patients[part], replace(batch.scene, seed=seed))
