"""The demo's cases: images that lie in installed packages, and one with exact truth planted by a formula."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import pydicom.data
import torch

from pellucid.core.case import Case, Region
from pellucid.core.errors import MissingExtra, UnreadableImage
from pellucid.core.grid import Grid
from pellucid.core.image import Image, Modality
from pellucid.demo.planted import PLACES, plant_nodule
from pellucid.io.reader import read_image

MODELS = Path(__file__).parent / "models"
LEFT_HIPPOCAMPUS = (28.0, 20.0, -13.0)  # LPS millimeters in MNI space
_FILM_WIDTH, _PATCH = 512, 128


@dataclass(frozen=True, eq=False)
class DemoCase:
    """One case of the demo.

    Args:
        case: image, regions and the sentences its pictures must carry.
        model: folder name of the model that looks at it.
        target: as the command takes it; None: the model's default.
        methods: as the command takes them.
        metrics: as the command takes them.
        crop: center of the box to cut, LPS millimeters.
        override: explain although the model card excludes the image, which the page says first.
    """

    case: Case
    model: str
    target: str | None
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    crop: tuple[float, float, float] | None = None
    override: bool = False


GRADIENTS = ("HiResCAM", "GradCAM", "InputXGradient", "Saliency")
SHORT_CURVES = ("DeletionAUC:steps=5,random_orders=1", "InsertionAUC:steps=5,random_orders=1")
CURVES = ("DeletionAUC:steps=10,random_orders=1", "InsertionAUC:steps=10,random_orders=1")


def packaged() -> Iterator[DemoCase]:
    """The cases of a fresh machine: fundus, brain volume, chest film, and a planted nodule with its absence."""
    yield DemoCase(
        Case("retina", {"image": read_image(_in_package("skimage", "data/retina.jpg"), Modality.FUNDUS)}),
        model="vessels",
        target="vessel",
        methods=("Occlusion:window=280,stride=280", "IntegratedGradients:steps=12", *GRADIENTS),
        metrics=SHORT_CURVES,
    )
    mni = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    yield DemoCase(
        Case(
            "left-hippocampus",
            {"image": read_image(_in_package("nilearn", mni), Modality.MRI)},
            notes=("a template averaged from 152 brains, not a patient; it equals its mirror image",),
        ),
        model="hippocampus",
        target="anterior hippocampus",
        methods=("Occlusion:window=14,stride=14", "IntegratedGradients:steps=12", *GRADIENTS),
        metrics=SHORT_CURVES,
        crop=LEFT_HIPPOCAMPUS,
    )
    film = _film()
    yield DemoCase(
        Case(
            "chest-film-audit",
            {"image": film},
            notes=(
                "an audit of a model that should be distrusted: trained on films of children at 28 px, "
                "shown an adult with round masses that it was never taught",
            ),
        ),
        model="pneumonia",
        target="pneumonia",
        methods=("Occlusion", "IntegratedGradients", *GRADIENTS),
        metrics=(*CURVES, "ModelParameterRandomization:levels=2"),
        override=True,  # the card says AP, the film is PA: the page says first that the model is not for it
    )
    yield from _planted(film)


def _planted(film: Image) -> Iterator[DemoCase]:
    """Nodules planted by formula in the lungs of the film, and one of the patches without its nodule."""
    small = _narrowed(film)
    for index, (name, place) in enumerate(PLACES.items()):
        row, column = (v - _PATCH // 2 for v in place.patch)
        patch = small.cropped((row, column), (_PATCH, _PATCH))
        center = (place.center[0] - row, place.center[1] - column)
        values, mask = plant_nodule(patch.data[0].numpy(), center, place.radius_px, place.contrast, place.seed)
        planted = replace(patch, data=torch.from_numpy(values)[None].float())
        truth = Region(torch.from_numpy(mask), patch.grid, "planted")
        note = "PLANTED: the nodule was computed by a formula and added to a real film; its outline is exact"
        yield _nodule_case(Case(f"planted-nodule-{name}", {"image": planted}, {"nodule": truth}, notes=(note,)))
        if index == 0:
            note = f"the same patch as planted-nodule-{name}, with nothing planted in it"
            yield _nodule_case(Case("nothing-planted", {"image": patch}, notes=(note,)))


def _nodule_case(case: Case) -> DemoCase:
    return DemoCase(
        case,
        model="nodule",
        target="nodule",
        methods=("Occlusion:window=24,stride=12", "IntegratedGradients", *GRADIENTS),
        metrics=(*CURVES, "HitRate", "IoU", "Dice", "ModelParameterRandomization:levels=2"),
    )


def _film() -> Image:
    path = pydicom.data.get_testdata_file("RG1_UNCR.dcm", download=False)
    if path is None:
        raise MissingExtra("the demo's chest film (package pydicom-data) is not installed", "pip install pydicom-data")
    return read_image(Path(str(path)), Modality.XRAY)


def _narrowed(film: Image) -> Image:
    """The film at the width that the nodule network was trained at, in [0, 1]."""
    height, width = film.grid.shape
    shape = (round(height * _FILM_WIDTH / width), _FILM_WIDTH)
    data = film.data.float()
    small = torch.nn.functional.interpolate(
        data[None], size=shape, mode="bilinear", antialias=True, align_corners=False
    )[0]
    low, high = small.amin(), small.amax()
    return Image(
        (small - low) / (high - low),
        Grid.regular(shape, letters=film.grid.letters),
        film.modality,
        "[0,1]",
        traits=film.traits,
    )


def _in_package(package: str, inside: str) -> Path:
    """A file of an installed package, without importing the package."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtra(f"the demo needs a file of the package {package}", f"pip install {package}")
    path = Path(spec.origin).parent / inside
    if not path.is_file():
        raise UnreadableImage(
            f"the package {package} no longer holds {inside}", f"install another version of {package}"
        )
    return path
