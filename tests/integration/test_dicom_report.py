"""The structured report of real images, read by dicom3tools, dcmtk and dcmqi; and every object verified afterwards."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from pellucid.cli.main import app
from pellucid.demo.cases import MODELS
from pellucid.io.references import read_references, write_references

pytestmark = pytest.mark.integration
CANARIES = ("CANARYNAME", "CANARYID7")


@dataclass(frozen=True)
class Done:
    """What the command wrote of one image."""

    source: Path
    model: Path
    objects: dict[str, Path]
    entropy: float


def _tool(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: run `make integration` as root, or see .ci/hospital")
    return found


def _run(*words: object) -> dict[str, object]:
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exit_code == 0, done.output + done.stderr
    return json.loads(done.stdout)


def _written(source: Path, model: Path, method: str, folder: Path, *more: str) -> Done:
    told = _run(
        "evaluate", source, "--model", model, "--out", folder, "--method", method, "--metric", "Entropy",
        "--metric", "IoU", "--seed", 5, "--dicom", "--no-viewer", "--json", "--audit", folder / "audit.jsonl", *more,
    )  # fmt: skip
    case = told["cases"][0]
    assert case["dicom"]["skipped"] == [] or source.suffix == ".dcm"  # no parametric map without a frame of reference
    value = next(s["value"] for s in case["scores"] if s["metric"] == "Entropy")
    return Done(source, model, {o["kind"]: Path(o["file"]) for o in case["dicom"]["objects"]}, value)


def _read_elsewhere(done: Done, folder: Path) -> str:
    """No error of the validator; the words as dcmtk prints them; the numbers as dcmqi reads them."""
    report = done.objects["sr"]
    said = subprocess.run([_tool("dciodvfy"), report], capture_output=True, text=True)
    assert not [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]
    assert said.returncode == 0
    printed = subprocess.run([_tool("dsrdump"), "+Pl", report], capture_output=True, text=True, check=True).stdout
    for words in (
        ": PRELIMINARY", ": UNVERIFIED", "RESEARCH - NOT FOR DIAGNOSIS",
        "says nothing about whether the model is right",
        "weights_sha256=", "Visual explanation", "114006", "no expert or planted region", "Calculation checks",
    ):  # fmt: skip
        assert words in printed, words
    plain = folder / "report.json"
    subprocess.run([_tool("tid1500reader"), "--inputDICOM", report, "--outputMetadata", plain], check=True)
    group = json.loads(plain.read_text())["Measurements"][0]
    found = {m["quantity"]["CodeMeaning"]: m for m in group["measurementItems"]}
    assert math.isclose(float(found["Entropy"]["value"]), done.entropy, rel_tol=1e-12)
    assert found["Entropy"]["units"]["CodingSchemeDesignator"] == "UCUM"
    told = group["measurementAlgorithmIdentification"]["AlgorithmParameters"][0]
    assert "weights_sha256=" in told
    assert "seed=5" in told
    return printed


def _verify(done: Done, kinds: tuple[str, ...], folder: Path) -> None:
    """The objects agree with their source and model, and no word of that is about the patient."""
    for kind in kinds:
        words = ["dicom", "verify", done.objects[kind], "--source", done.source, "--model", done.model, "--json"]
        words += ["--audit", folder / "verify.jsonl"]
        run = CliRunner().invoke(app, [str(w) for w in words])
        assert run.exit_code == 0, f"{kind}: {run.output}"
        assert not any(canary in run.output + run.stderr for canary in CANARIES)


def test_ct(shared_data: Path, tmp_path: Path) -> None:
    series = shared_data / "ct_lung_boxes" / "Lung_Dx-A0002_s1"
    done = _written(series, MODELS / "lungs", "SmoothGrad:samples=2", tmp_path / "out", "--no-checks")
    _read_elsewhere(done, tmp_path)
    _verify(done, ("pm", "sr"), tmp_path)


def test_mr_with_its_region(shared_data: Path, write_series: Callable[..., Path], tmp_path: Path) -> None:
    volume = sorted((shared_data / "mri_hippocampus" / "images").glob("*.nii.gz"))[0]
    series = write_series(volume, tmp_path / "series", "MR", "BRAIN")
    model = Path(shutil.copytree(MODELS / "hippocampus", tmp_path / "model"))
    known, _ = read_references(model)
    with_null = {method: {k: replace(r, null=r.scale / 4) for k, r in by.items()} for method, by in known.items()}
    write_references(model, with_null)  # as if it had been measured: the committed model has no normal cases
    done = _written(series, model, "Saliency", tmp_path / "out", "--segmentation")
    assert "SCOORD3D" in _read_elsewhere(done, tmp_path)
    _verify(done, ("pm", "sr", "seg", "pcps"), tmp_path)


def test_pet_in_16_bits(shared_data: Path, write_series: Callable[..., Path], tmp_path: Path) -> None:
    volume = shared_data / "petctmr_sarcoma" / "STS_001" / "PET_image.nii.gz"
    series = write_series(volume, tmp_path / "series", "PT", limit=12)
    options = ("--override", "--no-checks", "--dicom-encoding", "uint16")
    done = _written(series, MODELS / "lungs", "Saliency", tmp_path / "out", *options)
    assert "excluded" in _read_elsewhere(done, tmp_path)
    _verify(done, ("pm", "sr"), tmp_path)


def test_radiograph(tmp_path: Path) -> None:
    path = Path(get_testdata_file("RG1_UNCR.dcm"))
    done = _written(path, MODELS / "pneumonia", "GradCAM", tmp_path / "out", "--override", "--no-checks")
    assert "Comprehensive SR Document" in _read_elsewhere(done, tmp_path)
    assert "pm" not in done.objects
    _verify(done, ("sr", "sc"), tmp_path)
