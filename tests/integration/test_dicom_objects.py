"""Objects of real images by the command, judged by programs that are not ours: dicom3tools, dcmtk and dcmqi."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.data import get_testdata_file

from pellucid.demo.cases import MODELS
from pellucid.io.references import read_references, write_references

pytestmark = pytest.mark.integration
BESIDE = {"pm", "sc", "gsps", "pcps", "sr"}
_TWO = {**os.environ, "OMP_NUM_THREADS": "2"}


def _tool(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: run `make integration` as root, or see .ci/hospital")
    return found


def _explained(path: Path, model: str | Path, method: str, folder: Path, *more: str) -> dict[str, Path]:
    """What the command wrote, by kind."""
    words = ["explain", path, "--model", MODELS / model, "--out", folder, "--method", method, "--no-checks",
             "--no-viewer", "--json", "--dicom", "--audit", folder / "audit" / "audit.jsonl", *more]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pellucid", *map(str, words)], capture_output=True, text=True, env=_TWO
    )
    assert done.returncode == 0, done.stderr
    case = json.loads(done.stdout)["cases"][0]
    for one in case["dicom"]["objects"]:
        assert one["round_trip"] is None or one["round_trip"]["passed"]
    return {one["kind"]: Path(one["file"]) for one in case["dicom"]["objects"]}


def _check(found: dict[str, Path], source: Path, folder: Path) -> None:
    """No error of the validator, and every object parses elsewhere and belongs to the study of its source."""
    study = dcmread(source, stop_before_pixels=True)
    for kind, path in found.items():
        said = subprocess.run([_tool("dciodvfy"), path], capture_output=True, text=True)
        errors = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]
        assert not errors, f"{kind}: {errors}"
        assert said.returncode == 0
        plain, opened = folder / "object.json", folder / "object.dcm"
        subprocess.run([_tool("dcmdrle"), path, opened], check=True, capture_output=True)  # dcm2json wants open pixels
        subprocess.run([_tool("dcm2json"), opened, plain], check=True, capture_output=True)
        other = json.loads(plain.read_bytes())
        assert other["0020000D"]["Value"] == [study.StudyInstanceUID]
        assert other["00100020"].get("Value", [""]) == [study.PatientID]
        assert path.read_bytes()[:128] == bytes(128)


def _region(path: Path, folder: Path) -> sitk.Image:
    """A segmentation as dcmqi reads it."""
    folder.mkdir(exist_ok=True)
    words = [_tool("segimage2itkimage"), "--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd"]
    subprocess.run(list(map(str, words)), check=True, capture_output=True)
    meta = json.loads(next(folder.glob("*.json")).read_text())
    segment = meta["segmentAttributes"][0][0]
    assert segment["SegmentLabel"] == "model attribution region"
    assert segment["SegmentedPropertyTypeCodeSequence"]["CodingSchemeDesignator"] == "99PELLUCID"
    return sitk.ReadImage(str(next(folder.glob("*.nrrd"))))


@pytest.mark.parametrize("name", ["Lung_Dx-A0001_s1", "Lung_Dx-A0002_s1"])
def test_ct(shared_data: Path, tmp_path: Path, name: str) -> None:
    series = shared_data / "ct_lung_boxes" / name
    found = _explained(series, "lungs", "LRP", tmp_path)
    assert set(found) == BESIDE
    _check(found, next(series.iterdir()), tmp_path)


def test_mr_with_its_region(shared_data: Path, write_series: Callable[..., Path], tmp_path: Path) -> None:
    volume = sorted((shared_data / "mri_hippocampus" / "images").glob("*.nii.gz"))[0]
    series = write_series(volume, tmp_path / "series", "MR", "BRAIN")
    model = Path(shutil.copytree(MODELS / "hippocampus", tmp_path / "model"))
    known, _ = read_references(model)
    with_null = {method: {k: replace(r, null=r.scale / 4) for k, r in by.items()} for method, by in known.items()}
    write_references(model, with_null)  # as if it had been measured: the committed model has no normal cases
    found = _explained(series, model, "Saliency", tmp_path / "out", "--segmentation")
    assert set(found) == {*BESIDE, "seg"}
    _check(found, next(series.iterdir()), tmp_path)
    theirs, ours = _region(found["seg"], tmp_path / "dcmqi"), hd.seg.segread(found["seg"]).get_volume()
    inside = np.argwhere(sitk.GetArrayFromImage(theirs) > 0)
    assert len(inside) == np.count_nonzero(ours.array) > 10
    places = np.array([theirs.TransformIndexToPhysicalPoint([int(i) for i in index[::-1]]) for index in inside])
    index = np.rint(ours.map_reference_to_indices(places)).astype(int)
    assert ours.array[tuple(index.T)].all()


def test_pet(shared_data: Path, write_series: Callable[..., Path], tmp_path: Path) -> None:
    volume = shared_data / "petctmr_sarcoma" / "STS_001" / "PET_image.nii.gz"
    series = write_series(volume, tmp_path / "series", "PT")
    found = _explained(series, "lungs", "Saliency", tmp_path / "out", "--override", "--dicom-encoding", "uint16")
    assert set(found) >= {"pm", "sc", "sr"}
    _check(found, next(series.iterdir()), tmp_path)


def test_radiograph(tmp_path: Path) -> None:
    path = Path(get_testdata_file("RG1_UNCR.dcm"))
    found = _explained(path, "pneumonia", "GradCAM", tmp_path, "--override", "--segmentation")
    assert set(found) >= {"sc", "gsps", "sr"}
    assert "pm" not in found
    _check(found, path, tmp_path)
