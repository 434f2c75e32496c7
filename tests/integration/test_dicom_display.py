"""Captures and presentation states as other programs read them: dicom3tools, and dcmtk, which renders a state."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from pydicom import dcmread
from pydicom.data import get_testdata_file

from pellucid.core.case import Case
from pellucid.core.explanation import Attribution, Explanation, Prediction, Provenance, Reference
from pellucid.explain.gradient import Saliency
from pellucid.io.objects.identity import write_object
from pellucid.io.objects.maps import parametric_map
from pellucid.io.objects.marks import Made
from pellucid.io.objects.source import open_source
from pellucid.io.reader import read_cases
from pellucid.workbench.displaying import displayed

pytestmark = pytest.mark.integration
PACKAGED = ("RG1_UNCR.dcm", "RG3_UNCR.dcm", "MR2_UNCR.dcm", "MR_small.dcm", "eCT_Supplemental.dcm")


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: run `make integration` as root, or see .ci/hospital")
    return found


def made_of(case: Case, signed: bool) -> Made:
    """A smooth map with a region in the upper left half; signed: and one that speaks against in the lower right."""
    image = case.images["image"]
    rows, columns = image.grid.shape[-2:]
    down, across = np.mgrid[:rows, :columns] / np.reshape([rows, columns], (2, 1, 1))
    flat = 2.2 * np.exp(-((down - 0.35) ** 2 + (across - 0.35) ** 2) / 0.012)
    flat -= signed * 2.0 * np.exp(-((down - 0.7) ** 2 + (across - 0.65) ** 2) / 0.012)
    values = np.broadcast_to(flat, image.grid.shape).astype(np.float32)
    cell = tuple(max(1.0, n / 20) for n in image.grid.shape)
    answer = Attribution({"image": torch.from_numpy(values.copy())[None, None]}, "logit", signed, cell=cell)
    provenance = Provenance(
        "case-1", image.digest, "toy 1", "b" * 64, "", "block", "Saliency", {}, None, None, 0, "float32", "cpu",
        (1, 1), (0, 0), 1.0, {"pellucid": "0"}, "2026-01-01T00:00:00+00:00", "applies",
    )  # fmt: skip
    reference = Reference(2.0, 0.7, 0.05, 10, 10, "formula-made normals")
    said = Prediction("block", 2.0, "logit", 0.9, 0.0, "block", {"block": 0.9})
    explanation = Explanation(answer, provenance, said, image, reference=reference)
    return Made(explanation, Saliency.card, open_source(case.files["image"], image), "Saliency")


def written(path: Path, folder: Path, signed: bool = True) -> tuple[Made, dict[str, Path]]:
    made = made_of(read_cases(path).cases[0], signed)
    values = made.explanation.numpy()[0]
    pm = parametric_map(made, made.source.volume(values)) if made.source.geometry is not None else None
    found = displayed(made, ("PLANTED block, not a finding",), pm)
    assert found.skipped == ()
    return made, {kind: write_object(o, folder / f"{kind}.dcm") for kind, o in found.objects.items()}


def check(found: dict[str, Path], folder: Path) -> None:
    for kind, path in found.items():
        said = subprocess.run([tool("dciodvfy"), path], capture_output=True, text=True)
        errors = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]
        assert not errors, f"{kind}: {errors}"
        assert said.returncode == 0
        opened, plain = folder / "open.dcm", folder / "open.json"
        subprocess.run([tool("dcmdrle"), path, opened], check=True, capture_output=True)
        subprocess.run([tool("dcm2json"), opened, plain], check=True, capture_output=True)
        assert json.loads(plain.read_bytes())["00080016"]["Value"] == [str(dcmread(path).SOPClassUID)]
        if kind == "sc":
            assert (dcmread(opened).pixel_array == dcmread(path).pixel_array).all()


def same_gray(made: Made, found: dict[str, Path], place: int, folder: Path, instance: Path) -> None:
    """dcmtk shows the source through the state as the capture shows it: the same window, the same polarity."""
    out = folder / "shown.pgm"
    frame = str(made.source.frames[place])
    words = [tool("dcmp2pgm"), "-p", found["gsps"], "-f", frame, instance, out]
    subprocess.run([str(w) for w in words], check=True, capture_output=True)
    shown = np.asarray(Picture.open(out)).astype(int)
    capture = dcmread(found["sc"])
    picture = capture.pixel_array if made.explanation.image.grid.rank == 2 else capture.pixel_array[place]
    if picture.shape[1] != shown.shape[1]:
        return  # an enlarged picture has interpolated pixels: its window is that of the others
    picture = picture[: shown.shape[0]].astype(int)
    gray = (picture[..., 0] == picture[..., 1]) & (picture[..., 1] == picture[..., 2])
    off = np.abs(picture[..., 0] - shown)[gray]
    assert gray.mean() > 0.8
    assert np.percentile(off, 95) <= 2  # the rest are letters, marks and the cases of lines
    assert off.mean() < 4


@pytest.mark.parametrize("name", PACKAGED)
def test_real_images_of_a_package(name: str, tmp_path: Path) -> None:
    path = Path(get_testdata_file(name, download=False))
    made, found = written(path, tmp_path)
    assert set(found) == ({"sc", "gsps"} if made.source.geometry is None else {"sc", "gsps", "pcps"})
    check(found, tmp_path)
    same_gray(made, found, 0, tmp_path, path)


def test_a_real_ct_series(shared_data: Path, tmp_path: Path) -> None:
    series = shared_data / "ct_lung_boxes" / "Lung_Dx-A0001_s1"
    made, found = written(series, tmp_path, signed=False)
    check(found, tmp_path)
    place = 7
    uid = made.source.headers[place].SOPInstanceUID
    instance = next(p for p in series.iterdir() if p.suffix == ".dcm" and dcmread(p, True).SOPInstanceUID == uid)
    same_gray(made, found, place, tmp_path, instance)


def test_pet_with_a_slope_of_its_own_in_each_slice(
    write_series: Callable[..., Path], shared_data: Path, tmp_path: Path
) -> None:
    volume = shared_data / "petctmr_sarcoma" / "STS_001" / "PET_image.nii.gz"
    series = write_series(volume, tmp_path / "series", "PT", limit=6)
    made, found = written(series, tmp_path)
    assert len({str(h.RescaleSlope) for h in made.source.headers}) > 1
    check(found, tmp_path)
    state = dcmread(found["gsps"])
    assert state.PresentationLUTShape == "INVERSE"
    assert len(state.SoftcopyVOILUTSequence) == 6
    for place in (0, 5):
        uid = made.source.headers[place].SOPInstanceUID
        instance = next(p for p in series.iterdir() if dcmread(p).SOPInstanceUID == uid)
        same_gray(made, found, place, tmp_path, instance)


def test_a_palette_gets_a_capture_and_a_reason(tmp_path: Path) -> None:
    made = made_of(read_cases(get_testdata_file("examples_palette.dcm", download=False)).cases[0], signed=False)
    found = displayed(made)
    assert set(found.objects) == {"sc"}
    assert "palette" in dict(found.skipped)["gsps"]
    check({"sc": write_object(found.objects["sc"], tmp_path / "sc.dcm")}, tmp_path)


def test_a_color_photograph_gets_a_color_state(tmp_path: Path) -> None:
    path = Path(get_testdata_file("SC_rgb.dcm", download=False))
    _, found = written(path, tmp_path)
    assert set(found) == {"sc", "gsps"}
    assert dcmread(found["gsps"]).SOPClassUID == "1.2.840.10008.5.1.4.1.1.11.2"
    check(found, tmp_path)
