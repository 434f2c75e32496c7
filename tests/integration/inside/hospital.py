"""The whole way: a series out of the archive, explained, its objects back into the archive, out again, and verified."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from pellucid.cli.main import app
from pellucid.demo.cases import MODELS

CASES = {  # model, method, kinds of objects, more words for explain
    "ct-one": ("lungs", "Saliency", {"pm", "sr", "sc", "gsps"}, ("--segmentation",)),
    "ct-two": ("lungs", "GradCAM", {"pm", "sr", "sc", "gsps"}, ()),
    "mr": ("hippocampus", "Saliency", {"pm", "sr", "sc", "gsps"}, ("--segmentation",)),
    "pet": ("lungs", "Saliency", {"pm", "sr", "sc"}, ("--override",)),
}


@pytest.fixture
def scanned(
    request: pytest.FixtureRequest, shared_data: Path, write_series: Callable[..., Path], tmp_path: Path
) -> tuple[str, Path]:
    """A series as the scanner made it: two that are real, and two that are open volumes written as DICOM."""
    name = request.param
    series = {
        "ct-one": lambda: shared_data / "ct_lung_boxes" / "Lung_Dx-A0001_s1",
        "ct-two": lambda: shared_data / "ct_lung_boxes" / "Lung_Dx-A0002_s1",
        "mr": lambda: write_series(
            sorted((shared_data / "mri_hippocampus" / "images").glob("*.nii.gz"))[0], tmp_path / "made", "MR", "BRAIN"
        ),
        "pet": lambda: write_series(
            shared_data / "petctmr_sarcoma" / "STS_001" / "PET_image.nii.gz", tmp_path / "made", "PT", "", 24
        ),
    }
    return name, series[name]()


@pytest.fixture
def pellucid(orthanc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("PELLUCID_OUTBOX", str(tmp_path / "outbox.sqlite"))
    monkeypatch.setenv("PACS_USER", "anna")
    monkeypatch.setenv("PACS_PASSWORD", "hunter2")
    settings = orthanc.settings(tmp_path / "pellucid.pacs.toml")

    def run(*words: object, stdin: str | None = None) -> Any:
        configured = words[:2] in {("dicom", verb) for verb in ("send", "find", "fetch")}
        common = ["--json", "--audit", tmp_path / "audit.jsonl", *(("--config", settings) if configured else ())]
        done = CliRunner().invoke(app, [str(w) for w in (*words, *common)], input=stdin)
        assert done.exit_code == 0, f"{words[:2]}: {done.output[-3000:]}"
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize("scanned", CASES, indirect=True)
def test_in_and_out(orthanc: Any, pellucid: Callable[..., Any], scanned: tuple[str, Path], tmp_path: Path) -> None:
    name, series = scanned
    model, method, kinds, more = CASES[name]
    card = MODELS / model / "model.toml"
    study = ""
    files = [path for path in sorted(series.iterdir()) if path.read_bytes()[128:132] == b"DICM"]
    for path in files:
        orthanc.put(path.read_bytes())
        study = str(dcmread(path, stop_before_pixels=True).StudyInstanceUID)

    query = json.dumps({"StudyInstanceUID": study})
    came = pellucid("dicom", "fetch", "--from", "web", "--query", "-", "--out", tmp_path / "in", stdin=query)
    assert came["objects"] == len(files)
    source = tmp_path / "in" / "series-01"
    told = pellucid("explain", source, "--model", card, "--out", tmp_path / "out", "--method", method, "--no-checks",
                    "--no-viewer", "--dicom", *more)  # fmt: skip
    made = {one["kind"]: Path(one["file"]) for one in told["cases"][0]["dicom"]["objects"]}
    assert set(made) >= kinds

    sent = pellucid("dicom", "send", tmp_path / "out", "--to", "dimse", "--compare")
    assert sent["held"] == len(made)
    assert {each["state"] for each in sent["objects"]} == {"stored"}
    assert sent["warnings"] == []
    again = pellucid("dicom", "send", tmp_path / "out", "--to", "web")
    assert {each["state"] for each in again["objects"]} == {"there"}
    assert len(orthanc.ask("instances")) >= len(files) + len(made)

    back = pellucid("dicom", "fetch", "--from", "dimse", "--query", "-", "--out", tmp_path / "back", stdin=query)
    assert back["objects"] == len(files) + len(made)
    ours = {}
    for path in (tmp_path / "back").rglob("*.dcm"):
        if str(dcmread(path, stop_before_pixels=True).get("Manufacturer", "")) == "Pellucid":
            ours[str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)] = path
    assert len(ours) == len(made)
    for kind, path in made.items():
        first = dcmread(path)
        second = ours[str(first.SOPInstanceUID)]
        for keyword in ("PixelData", "FloatPixelData"):
            if keyword in first:
                assert first[keyword].value == dcmread(second)[keyword].value, kind
        _validate(second, kind)
        verdict = pellucid("dicom", "verify", second, "--source", source, "--model", card)
        assert verdict["verdict"] == "agrees", f"{kind}: {verdict}"


def _validate(path: Path, kind: str) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy: run .ci/hospital")
    said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    errors = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]
    assert not errors, f"{kind}: {errors}"
    assert said.returncode == 0
