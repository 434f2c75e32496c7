"""Demo cases with expert masks, from a folder of open data that the user has."""

from collections.abc import Iterator
from pathlib import Path

import torch

from pellucid.core.case import Case, Region
from pellucid.core.errors import UnreadableImage
from pellucid.core.image import Modality
from pellucid.demo.cases import GRADIENTS, SHORT_CURVES, DemoCase
from pellucid.io.reader import read_image, read_mask

_EYE = "fundus_vessels/CHASEDB1/Image_01L"  # of a patient held out from training
_VOLUME = "mri_hippocampus/{}/hippocampus_001.nii.gz"


def expert_cases(data: Path) -> Iterator[DemoCase]:
    """A held-out fundus photograph and a held-out brain volume with their experts' outlines.

    Raises:
        UnreadableImage: the folder holds neither.
    """
    found = False
    photo = data / f"{_EYE}.jpg"
    if photo.is_file():
        found = True
        yield _vessels(photo)
    volume = data / _VOLUME.format("images")
    if volume.is_file():
        found = True
        yield _hippocampus(volume, data / _VOLUME.format("labels"))
    if not found:
        raise UnreadableImage(
            f"the folder {data} holds neither {_EYE}.jpg nor {_VOLUME.format('images')}",
            "give the folder that holds CHASE_DB1 as fundus_vessels and the hippocampus volumes as mri_hippocampus",
        )


def _vessels(photo: Path) -> DemoCase:
    image = read_image(photo, Modality.FUNDUS)
    mask = read_mask(photo.with_name(f"{photo.stem}_1stHO.png"), image.grid)
    return DemoCase(
        Case("expert-vessels", {"image": image}, {"vessel": mask}),
        model="vessels",
        target="vessel",
        methods=("Occlusion:window=200,stride=200", "IntegratedGradients:steps=12", *GRADIENTS),
        metrics=(*SHORT_CURVES, "HitRate", "Dice"),
    )


def _hippocampus(path: Path, labels: Path) -> DemoCase:
    image = read_image(path, Modality.MRI)
    values = read_image(labels).data[0]
    anterior = Region(torch.eq(values, 1), image.grid, "expert")
    return DemoCase(
        Case("expert-hippocampus", {"image": image}, {"anterior": anterior}),
        model="hippocampus",
        target="anterior hippocampus",
        methods=("Occlusion:window=14,stride=14", "IntegratedGradients:steps=12", *GRADIENTS),
        metrics=(*SHORT_CURVES, "HitRate", "Dice"),
    )
