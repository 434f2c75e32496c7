"""A bright block on the patient's left stays on the patient's left: read off the pixels of every output.

The block is placed in LPS millimeters by a formula, written as a DICOM series of many orientations, read, and its map
exported. Each output is then opened by another reader, and the center of the map's voxels worked out from what that
output itself says of its place.
"""

from collections.abc import Callable
from io import BytesIO
from itertools import product
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from matplotlib.colors import to_rgb
from PIL import Image as Picture
from pydicom import Dataset, dcmread

from pellucid.core.case import Case
from pellucid.core.explanation import Attribution, Explanation, Prediction, Provenance, Reference
from pellucid.core.image import Image, Modality
from pellucid.core.prepare import Prepared
from pellucid.explain.gradient import Saliency
from pellucid.io.archive import load_explanation, save_explanation
from pellucid.io.nifti import write_nifti
from pellucid.io.nrrd import write_nrrd
from pellucid.io.objects.identity import write_object
from pellucid.io.objects.maps import parametric_map
from pellucid.io.objects.marks import Made
from pellucid.io.objects.segment import segmentation
from pellucid.io.objects.source import open_source
from pellucid.io.reader import read_cases
from pellucid.show.figure import draw, sketch
from pellucid.show.lettering import side_patches
from pellucid.show.palette import palette_of
from pellucid.show.planes import Sides, planes
from pellucid.show.sheet import png
from pellucid.workbench.displaying import Displayed, displayed

SHAPE, STEPS = (7, 34, 40), (4.0, 1.5, 1.25)
SIDES = [a + b for a, b in product("LRAPHF", "LRAPHF") if a != b] + list("LRAPHF")
X, Y, Z = np.eye(3)


def about(axis: int, degrees: float) -> np.ndarray:
    a, turn = np.deg2rad(degrees), np.eye(3)
    i, j = [n for n in range(3) if n != axis]
    turn[[i, i, j, j], [i, j, i, j]] = np.cos(a), -np.sin(a), np.sin(a), np.cos(a)
    return turn


# directions of growing columns, growing rows, and of the slices
ORIENTATIONS = {
    "axial": np.stack([X, Y, Z], 1),
    "head first, prone": np.stack([-X, -Y, Z], 1),
    "feet first, supine": np.stack([-X, Y, -Z], 1),
    "sagittal": np.stack([Y, -Z, -X], 1),
    "coronal": np.stack([X, -Z, Y], 1),
    "oblique": about(2, -24) @ about(0, 17),
}


def explained(case: Case) -> Explanation:
    """A map that is its image's bright voxels."""
    image: Image = case.images["image"]
    values = (image.data > 0).float()
    answer = Attribution({"image": values[None]}, "logit", signed=False, cell=(1.0,) * image.grid.rank)
    made = Provenance(
        "case-1", image.digest, "toy 1", "b" * 64, "", "block", "Saliency", {}, None, None, 0, "float32", "cpu",
        (1, 1), (0, 0), 1.0, {"pellucid": "0"}, "2026-01-01T00:00:00+00:00", "applies",
    )  # fmt: skip
    prepared = Prepared(image.data, image.grid, image.grid, (0.0,), (1.0,))
    reference = Reference(1.0, 0.5, 0.05, 10, 10, "formula-made normals")
    said = Prediction("block", 2.0, "logit", 0.9, 0.0, "block", {"block": 0.9})
    return Explanation(answer, made, said, image, prepared, reference)


class Scan:
    """A series with the block, its explanation, and every object made from it."""

    def __init__(self, phantom: type, write: Callable[..., Path], folder: Path, turn: np.ndarray) -> None:
        truth = phantom(SHAPE, STEPS, turn)
        index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1).reshape(-1, 3)
        places = np.stack([truth.place(i) for i in index])
        self.middle = places.mean(0)
        offset = places - self.middle
        inside = (offset[:, 0] > 4) & (offset[:, 0] < 10) & (np.abs(offset[:, 1:]) < 7).all(1)
        assert inside.sum() > 10
        truth.hu = np.where(inside, 800, -900).reshape(SHAPE).astype(np.int32)
        self.truth = places[inside].mean(0)
        self.case = read_cases(write(folder / "series", truth.datasets())).cases[0]
        self.explanation = explained(self.case)
        self.image = self.case.images["image"]
        self.values = self.explanation.numpy()[0]
        self.source = open_source(self.case.files["image"], self.image)
        self.made = Made(self.explanation, Saliency.card, self.source, "Saliency")
        self.folder = folder

    def displayed(self) -> Displayed:
        found = displayed(self.made, (), self.map())
        assert found.skipped == ()
        return found

    def map(self) -> Dataset:
        return parametric_map(self.made, self.source.volume(self.values))

    def kept(self, dataset: Dataset, name: str) -> Path:
        return write_object(dataset, self.folder / f"{name}.dcm")

    def check(self, found: np.ndarray, slack: float = 1e-3) -> None:
        assert np.abs(found - self.truth).max() < slack
        assert found[0] > self.middle[0] + 4  # millimeters toward the patient's left


def centroid(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    index = np.argwhere(values > 0.5).mean(0)
    return (affine @ [*index, 1])[:3]


@pytest.fixture(params=ORIENTATIONS)
def scan(request: pytest.FixtureRequest, phantom: type, write: Callable[..., Path], tmp_path: Path) -> Scan:
    return Scan(phantom, write, tmp_path, ORIENTATIONS[request.param])


def test_archive_and_volumes(scan: Scan, tmp_path: Path) -> None:
    again = load_explanation(save_explanation(scan.explanation, tmp_path))
    assert again.image is not None
    scan.check(centroid(again.numpy()[0], again.image.grid.matrix))
    nifti = write_nifti(scan.values, scan.image.grid, tmp_path / "map.nii.gz")
    found = nib.load(nifti)
    scan.check(np.diag([-1, -1, 1]) @ centroid(np.asarray(found.dataobj), found.affine))
    for path in (nifti, write_nrrd(scan.values, scan.image.grid, tmp_path / "map.nrrd")):
        volume = sitk.ReadImage(str(path))
        index = np.argwhere(sitk.GetArrayFromImage(volume) > 0.5).mean(0)[::-1]
        scan.check(np.asarray(volume.TransformContinuousIndexToPhysicalPoint(index.tolist())))


def test_parametric_map_and_segmentation(scan: Scan) -> None:
    path = scan.kept(scan.map(), "pm")
    volume = hd.imread(path).get_volume()
    scan.check(centroid(volume.array, volume.affine))
    region = segmentation(scan.made, scan.source.volume(scan.values > 0.5))
    volume = hd.seg.segread(scan.kept(region, "seg")).get_volume(combine_segments=True)
    scan.check(centroid(volume.array, volume.affine))


def test_secondary_capture(scan: Scan) -> None:
    dataset = dcmread(scan.kept(scan.displayed().objects["sc"], "sc"))
    frames, zoom = dataset.pixel_array, 400 // SHAPE[2]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    across, down = np.asarray(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    tall, wide = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    places, sums = [], np.zeros(2)
    for frame, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        picture = frame[: SHAPE[1] * zoom]
        line = np.argwhere(drawn(picture))
        corner = np.asarray(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        if len(line):
            middle = (line.min(0) + line.max(0)) / 2  # the outline lies evenly around the block
            places.append(corner + middle[0] * tall * down + middle[1] * wide * across)
            sums += middle - (np.asarray(picture.shape[:2]) - 1) / 2
    letters = read_letters(frames[3][: SHAPE[1] * zoom], dataset.Columns)
    for words, way in zip(letters, (-down, down, -across, across), strict=True):
        strongest = int(np.abs(way).argmax())
        assert words[0] == ("LPH" if way[strongest] > 0 else "RAF")[strongest]
    assert np.abs(np.mean(places, 0) - scan.truth).max() < 2
    assert np.mean(places, 0)[0] > scan.middle[0] + 4
    if abs(across[0]) > 0.9 or abs(down[0]) > 0.9:  # the block lies toward the edge whose letter is L
        side = ("bottom", "top")[int(sums[0] < 0)] if abs(down[0]) > 0.9 else ("right", "left")[int(sums[1] < 0)]
        assert letters[("top", "bottom", "left", "right").index(side)][0] == "L"


def test_presentation_states(scan: Scan) -> None:
    objects = scan.displayed().objects
    state = dcmread(scan.kept(objects["gsps"], "gsps"))
    headers = {h.SOPInstanceUID: h for h in (dcmread(f) for f in scan.case.files["image"])}
    places = []
    for annotation in state.GraphicAnnotationSequence:
        lines = [g for g in annotation.get("GraphicObjectSequence", ()) if g.GraphicType == "POLYLINE"]
        for line in lines:
            header = headers[annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID]
            points = np.asarray(line.GraphicData, float).reshape(-1, 2)
            column, row = (points.min(0) + points.max(0)) / 2 - 0.5
            across, down = np.asarray(header.ImageOrientationPatient, float).reshape(2, 3)
            tall, wide = (float(v) for v in header.PixelSpacing)
            corner = np.asarray(header.ImagePositionPatient, float)
            places.append(corner + row * tall * down + column * wide * across)
    assert np.abs(np.mean(places, 0) - scan.truth).max() < 2
    assert np.mean(places, 0)[0] > scan.middle[0] + 4
    pm = scan.map()
    refers = objects["pcps"].ReferencedSeriesSequence[0].ReferencedImageSequence[0]
    assert refers.ReferencedSOPInstanceUID == pm.SOPInstanceUID


def test_pictures_of_the_report(scan: Scan) -> None:
    one = sketch(scan.explanation)
    index = np.argwhere(scan.values > 0.5).mean(0)
    for plane in planes(scan.image.grid):
        if plane.name == "sagittal":
            continue
        assert plane.sides is not None
        assert (plane.sides.left[0], plane.sides.right[0]) == ("R", "L")
        shown = plane.cut(scan.values, [round(i) for i in index])
        assert np.argwhere(shown > 0.5).mean(0)[1] > shown.shape[1] / 2
    assert one.display.null == 0.5


def test_the_page_shows_it_on_the_right_of_the_screen(
    phantom: type, write: Callable[..., Path], tmp_path: Path
) -> None:
    scan = Scan(phantom, write, tmp_path, ORIENTATIONS["head first, prone"])
    page = np.asarray(Picture.open(BytesIO(png(draw(scan.explanation, stages=("contour",))))).convert("RGB"))
    axial = page[:, : page.shape[1] // 3]
    color = np.round(255 * np.asarray(to_rgb(palette_of(Modality.CT).contour)))
    columns = np.argwhere(np.abs(axial - color).max(-1) < 30)[:, 1]
    assert len(columns) > 20
    assert columns.mean() > 0.55 * axial.shape[1]


@pytest.mark.parametrize(
    ("orientation", "modality", "columns"),
    [(["L", "F"], "CR", slice(300, 380)), (["R", "F"], "CR", slice(40, 120)), (["P", "L"], "MG", slice(300, 380))],
)
def test_projections(orientation: list[str], modality: str, columns: slice, phantom: type, tmp_path: Path) -> None:
    path = projection(phantom, tmp_path, orientation, modality, columns)
    case = read_cases(path).cases[0]
    explanation = explained(case)
    source = open_source(case.files["image"], case.images["image"])
    made = Made(explanation, Saliency.card, source, "Saliency")
    middle = pytest.approx((columns.start + columns.stop - 1) / 2, abs=1)
    region = segmentation(made, source.flat_map(explanation.numpy()[0] > 0.5))
    frame = hd.seg.segread(write_object(region, tmp_path / "seg.dcm")).pixel_array
    assert np.argwhere(np.squeeze(frame))[:, 1].mean() == middle
    found = displayed(made)
    assert found.skipped == ()
    capture = dcmread(write_object(found.objects["sc"], tmp_path / "sc.dcm"))
    assert list(capture.PatientOrientation) == orientation
    picture = capture.pixel_array[:400]
    assert np.argwhere(drawn(picture))[:, 1].mean() == middle
    opposite = dict(zip("LRAPHF", "RLPAFH", strict=True))
    across, down = orientation
    assert read_letters(picture, capture.Columns) == [opposite[down], down, opposite[across], across]
    state = found.objects["gsps"]
    lines = [
        np.asarray(g.GraphicData, float).reshape(-1, 2)
        for a in state.GraphicAnnotationSequence
        for g in a.get("GraphicObjectSequence", ())
        if g.GraphicType == "POLYLINE"
    ]
    assert len(lines) == 1
    assert (lines[0][:, 0].min(), lines[0][:, 0].max()) == (columns.start, columns.stop)
    assert (lines[0][:, 1].min(), lines[0][:, 1].max()) == (100, 160)


def projection(phantom: type, folder: Path, orientation: list[str], modality: str, columns: slice) -> Path:
    """A projection with a bright block and no position in the patient."""
    data = phantom((1, 400, 420), STEPS, bright=(0, 0, 0)).datasets(modality=modality)[0]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "RescaleSlope"):
        delattr(data, keyword)
    del data.RescaleIntercept
    data.PatientOrientation, data.ImagerPixelSpacing = orientation, [0.2, 0.2]
    del data.PixelSpacing
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    pixels = np.zeros((400, 420), np.uint16)
    pixels[100:160, columns] = 3000
    data.PixelData = pixels.tobytes()
    data.save_as(folder / "projection", enforce_file_format=True)
    return folder / "projection"


def drawn(picture: np.ndarray) -> np.ndarray:
    """Pixels of the outline's color, of any modality of these tests."""
    color = np.round(255 * np.asarray(to_rgb(palette_of(Modality.CT).contour))).astype(np.uint8)
    return (picture == color).all(-1)


def read_letters(picture: np.ndarray, columns: int) -> list[str]:
    """The letters at the top, bottom, left and right, read by comparing their white pixels with every candidate's."""
    size = round(1.3 * max(13, round(columns / 44)))
    best: list[tuple[float, str]] = [(2.0, "")] * 4
    for word in SIDES:
        for n, patch in enumerate(side_patches(Sides(word, word, word, word), picture.shape[:2], size)):
            box = picture[patch.top : patch.top + len(patch.alpha), patch.left : patch.left + patch.alpha.shape[1], 0]
            solid = patch.alpha == 1
            off = float(np.abs(box[solid].astype(float) - patch.colors[solid][:, 0]).mean()) / 255
            best[n] = min(best[n], (off, word))
    assert all(off < 0.05 for off, _ in best), best
    return [word for _, word in best]


def test_the_letters_can_be_told_apart() -> None:
    picture = np.full((400, 420, 3), 40, np.uint8)
    for patch in side_patches(Sides("A", "P", "R", "L"), (400, 420), 17):
        patch.lay(picture)
    assert read_letters(picture, 420) == ["A", "P", "R", "L"]


def test_the_truth_is_not_taken_from_the_reader(phantom: type, write: Callable[..., Path], tmp_path: Path) -> None:
    """A map mirrored between reading and writing would be found out."""
    scan = Scan(phantom, write, tmp_path, ORIENTATIONS["axial"])
    scan.values = np.ascontiguousarray(scan.values[..., ::-1])
    volume = hd.imread(scan.kept(scan.map(), "pm")).get_volume()
    with pytest.raises(AssertionError):
        scan.check(centroid(volume.array, volume.affine))
    assert torch.equal(scan.image.data > 0, torch.from_numpy(scan.explanation.numpy() > 0))
