"""``--dicom``: objects in the study of their source, or the reason why not; and nothing of the patient beside them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from pellucid.audit.log import AuditLog
from pellucid.core.errors import SourceChanged, UnwritableOutput
from pellucid.io.models import load_model
from pellucid.io.objects.proof import RoundTrip
from pellucid.io.objects.recipe import extract
from pellucid.io.reader import read_cases
from pellucid.workbench import publishing
from pellucid.workbench.delivery import checked, deliver
from pellucid.workbench.exporting import Export
from pellucid.workbench.job import Request
from pellucid.workbench.recording import Recorder
from pellucid.workbench.registry import make_explainer

CANARY = ("CANARYNAME", "ZEBRA", "CANARYID7")


@pytest.fixture
def series(write_series: Callable[..., Path], tmp_path: Path) -> Path:
    """A small oblique MR volume as a DICOM series."""
    turn = np.deg2rad(20)
    along_row, along_column = np.array([np.cos(turn), np.sin(turn), 0]), np.array([np.sin(turn), -np.cos(turn), 0])
    affine = np.eye(4)
    affine[:3] = np.column_stack([-1.5 * along_row, 1.2 * along_column, [0, 0, 2.5], [10, -7, 30]])
    values = np.random.default_rng(2).integers(0, 1200, (14, 12, 6)).astype(np.float32)
    values[3:9, 2:7, 1:4] = 0
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "volume.nii.gz")
    return write_series(tmp_path / "volume.nii.gz", tmp_path / "series", "MR", "BRAIN")


@pytest.fixture
def model(dark_voxels: Path) -> Path:
    """With a null, so that there is a region."""
    reference = {"scale": 1.0, "null": 1e-6, "alpha": 0.05, "n_scale": 20, "n_null": 20, "cohort": "planted"}
    (dark_voxels.parent / "references.json").write_text(json.dumps({"Saliency": {"air where predicted": reference}}))
    return dark_voxels


def _command(series: Path, model: Path, out: Path) -> list[object]:
    return ["explain", series, "--model", model, "--out", out, "--target", "air", "--method", "Saliency", "--override",
            "--no-checks", "--no-viewer", "--json", "--dicom", "--trust-code"]  # fmt: skip


def test_every_object_and_nothing_of_the_patient_beside_them(
    pellucid: Callable[..., object], series: Path, model: Path, tmp_path: Path
) -> None:
    done = pellucid(*_command(series, model, tmp_path / "out"), "--segmentation")
    assert done.code == 0, done.err
    case = done.json["cases"][0]
    found = {one["kind"]: one for one in case["dicom"]["objects"]}
    assert set(found) == {"pm", "seg", "sc", "gsps", "pcps", "sr"}, case["dicom"]["skipped"]
    assert found["pm"]["round_trip"] == {"passed": True, "error": 0.0, "allowed": 0.0, "same_place": True}
    assert found["seg"]["round_trip"]["passed"]
    header = dcmread(next(series.iterdir()))
    for kind, one in found.items():
        path = Path(one["file"])
        assert path.name == f"Saliency-air-where-predicted.{kind}.dcm"
        written = dcmread(path)
        assert (written.StudyInstanceUID, written.PatientID) == (header.StudyInstanceUID, header.PatientID)
        assert extract(written).method.startswith("Saliency")
    volume = hd.imread(found["pm"]["file"]).get_volume()
    nifti = nib.load(case["files"]["nifti Saliency"])
    peak = np.unravel_index(int(volume.array.argmax()), volume.shape)
    place = volume.map_indices_to_reference(np.array([peak], float))[0] * [-1, -1, 1]
    there = np.unravel_index(int(nifti.get_fdata().argmax()), nifti.shape)
    assert np.allclose(place, (nifti.affine @ [*there, 1])[:3], atol=1e-3)
    texts = [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix in (".json", ".html", ".jsonl")]
    said = done.out + done.err + " ".join(p.read_text() for p in texts) + " ".join(map(str, tmp_path.rglob("*")))
    private = (*CANARY, str(header.SOPInstanceUID), str(header.StudyInstanceUID), str(written.SOPInstanceUID))
    assert not [word for word in private if word in said]
    assert "dicom.pm" in (tmp_path / "audit" / "audit.jsonl").read_text()


def test_made_again_it_is_the_same_object(
    pellucid: Callable[..., object], series: Path, model: Path, tmp_path: Path
) -> None:
    files = []
    for name in ("one", "two"):
        done = pellucid(*_command(series, model, tmp_path / name), "--segmentation", "--dicom-encoding", "uint16")
        assert done.code == 0, done.err
        files.append({one["kind"]: Path(one["file"]).read_bytes() for one in done.json["cases"][0]["dicom"]["objects"]})
    for kind in ("pm", "seg", "sc", "gsps", "pcps", "sr"):
        assert files[0][kind] == files[1][kind], kind


def test_other_sources_are_refused_before_the_work(
    pellucid: Callable[..., object], series: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pellucid.workbench.delivery.run_case", lambda *_: pytest.fail("the work has begun"))
    done = pellucid(*_command(tmp_path / "volume.nii.gz", model, tmp_path / "out"))
    assert done.code == 2
    assert "leave out --dicom" in done.out + done.err
    words = [w for w in _command(series, model, tmp_path / "out") if w != "--dicom"]
    done = pellucid(*words, "--segmentation")
    assert done.code == 2
    assert "add --dicom" in done.out + done.err


def _deliver(series: Path, model: Path, folder: Path, before: Callable[[], None] = lambda: None) -> object:
    case = read_cases(series).cases[0]
    before()
    request = Request(
        ("air",), (make_explainer("Saliency"),), override=True, checks=False, viewer=False, dicom=Export(True)
    )
    recorder = Recorder(AuditLog(series.parent / "audit.jsonl", actor="x", role="y"))
    return deliver(case, checked(load_model(model, True)), request, folder, recorder)


def test_a_source_that_was_swapped_gets_nothing(series: Path, model: Path, tmp_path: Path) -> None:
    """Two patients in flight, one folder: what was explained is not what lies there now."""

    def swap() -> None:
        path = next(series.iterdir())
        data = dcmread(path)
        pixels = data.pixel_array.copy()
        pixels[0, 0] += 1
        data.PixelData = pixels.tobytes()
        data.save_as(path)

    with pytest.raises(SourceChanged):
        _deliver(series, model, tmp_path / "out", swap)
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_no_object_loses_another(series: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise UnwritableOutput("expected a disk, got none", "buy one")

    monkeypatch.setattr(publishing, "parametric_map", refuse)
    monkeypatch.setattr(publishing, "round_trip", lambda *_: RoundTrip(0.5, 0.0, True))
    done = _deliver(series, model, tmp_path / "out")
    assert [kind for kind, _, _ in done.published.skipped] == ["pm", "seg"]
    assert "expected a disk" in done.published.skipped[0][2]
    assert "largest difference 0.5" in done.published.skipped[1][2]
    assert [one.kind for one in done.published.objects] == ["sc", "gsps", "sr"]
    assert {p.suffixes[0] for p in (tmp_path / "out").rglob("*.dcm")} == {".sc", ".gsps", ".sr"}

    # file names: two targets that differ in a sign alone must not write over each other
    first, panel = done.panel.explanations[0], done.panel
    targets = ("air>tissue", "air-tissue")
    signs = tuple(replace(first, provenance=replace(first.provenance, target=target)) for target in targets)
    both = replace(panel, explanations=signs, made_by=panel.made_by * 2, probes=panel.probes * 2)
    assert publishing._stems(replace(done, panel=both)) == ["Saliency-air-tissue-1", "Saliency-air-tissue-2"]
