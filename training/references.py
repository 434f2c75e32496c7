"""Measure, for each demo model, how large its maps usually are and how large they get where nothing is to be found.

Cases come from the validation parts, never from the test parts, on which the display contract is checked.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nodule
import numpy as np
import pneumonia
import torch
import vessels

from pellucid.core.case import Case
from pellucid.core.grid import Grid
from pellucid.core.image import Image, Modality
from pellucid.demo.cases import MODELS, packaged
from pellucid.io.models import load_model
from pellucid.io.reader import read_image
from pellucid.io.references import write_references
from pellucid.workbench.job import Request
from pellucid.workbench.referencing import measure_references
from pellucid.workbench.registry import make_explainer


@dataclass(frozen=True)
class Cohort:
    """Cases that set a model's scale, normal cases that set its null, and both in words."""

    scale: Iterator[Case]
    normal: Iterator[Case]
    words: str
    targets: tuple[str, ...]


def gray(pixels: np.ndarray, name: str) -> Case:
    image = Image(torch.from_numpy(pixels)[None].float(), Grid.regular(pixels.shape), Modality.XRAY, "[0,1]")
    return Case(name, {"image": image})


def pneumonia_cohort(data: Path, most: int) -> Cohort:
    films = pneumonia.parts_of(data)[0]["validation"]

    def chosen(label: int) -> Iterator[Case]:
        for row in np.flatnonzero(films.labels == label)[:most]:
            yield gray(films.images[row, 0].numpy(), f"film-{row}")

    words = "PneumoniaMNIST, validation part"
    return Cohort(chosen(1), chosen(0), words, ("pneumonia",))


def nodule_cohort(data: Path, most: int) -> Cohort:
    films = nodule.split(data)["validation"]
    names = sorted(films)

    def patches(plant: bool) -> Iterator[Case]:
        draw = np.random.default_rng(17 + plant)
        for index in range(most):
            patch = nodule.crop(films, names[index % len(names)], draw)
            patch = nodule.planted(patch, draw) if plant else patch
            yield gray(patch.image, f"patch-{index}")

    words = "patches of NIH ChestX-ray14 films, validation patients; nodules planted by formula"
    return Cohort(patches(True), patches(False), words, ("nodule",))


def vessels_cohort(data: Path, most: int) -> Cohort:
    eyes = sorted(vessels.split(data)["validation"])
    photos = [p for eye in eyes for p in sorted((data / "fundus_vessels" / "CHASEDB1").glob(f"Image_{eye}?.jpg"))]
    cases = (Case(p.stem, {"image": read_image(p, Modality.FUNDUS)}) for p in photos[:most])
    return Cohort(cases, iter(()), "CHASE_DB1, validation patients", ("vessel",))


def hippocampus_cohort(data: Path, most: int) -> Cohort:
    import hippocampus

    volumes = hippocampus.split(data)["validation"][: min(most, 10)]
    folder = data / "mri_hippocampus" / "images"
    cases = (Case(v, {"image": read_image(folder / f"{v}.nii.gz", Modality.MRI)}) for v in volumes)
    targets = ("anterior hippocampus", "posterior hippocampus")
    return Cohort(cases, iter(()), "Decathlon hippocampus, 10 validation volumes", targets)


COHORTS = {
    "pneumonia": pneumonia_cohort,
    "nodule": nodule_cohort,
    "vessels": vessels_cohort,
    "hippocampus": hippocampus_cohort,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--most", type=int, default=120, help="cases of each kind")
    parser.add_argument("--only", nargs="*", default=list(COHORTS))
    options = parser.parse_args()
    settings = {case.model: case.methods for case in packaged()}
    for name in options.only:
        cohort = COHORTS[name](options.data, options.most)
        loaded = load_model(MODELS / name / "model.toml")
        # a window in pixels means another share of each photograph, so it has no scale of its own there
        texts = [text for text in settings[name] if not (name == "vessels" and text.startswith("Occlusion"))]
        explainers = [make_explainer(text) for text in texts]
        request = Request(targets=cohort.targets)
        table = measure_references(
            loaded,
            cohort.scale,
            cohort.normal,
            explainers,
            request,
            cohort.words,
            lambda case, name=name: sys.stderr.write(f"\r{name}: {case}      "),
        )
        sys.stderr.write(f"\n{write_references(MODELS / name, table, loaded.model.digest)}\n")


if __name__ == "__main__":
    main()
