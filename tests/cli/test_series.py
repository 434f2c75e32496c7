"""A study through the commands: what is listed, chosen, said and written down."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from pellucid.demo.cases import MODELS

NAME = "CANARYNAME^ZEBRA"


def sent(datasets: Sequence[Dataset], study: str, number: int, folder: Path) -> None:
    """As an archive sends a series: one study, a number, a folder of its own named after the patient."""
    folder.mkdir(parents=True)
    series = generate_uid()
    for k, data in enumerate(datasets):
        data.StudyInstanceUID, data.SeriesInstanceUID, data.SeriesNumber = study, series, number
        data.PatientName, data.PatientID, data.SeriesDescription = NAME, "CANARYID7", NAME
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.save_as(folder / f"IM{k}", enforce_file_format=True)


@pytest.fixture
def study(shared_data: Path, tmp_path: Path) -> Path:
    """A real CT as its own examination: a scout, the stack, a stack of every third slice, and a reformat."""
    files = sorted((shared_data / "ct_lung_boxes" / "Lung_Dx-A0001_s1").iterdir())
    stack = sorted((pydicom.dcmread(f) for f in files), key=lambda d: float(d.ImagePositionPatient[2]))
    uid, root = generate_uid(), tmp_path / "study" / "CANARYNAME"

    def copies(kinds: Sequence[str], keep: Sequence[int]) -> list[Dataset]:
        found = [pydicom.dcmread(stack[k].filename) for k in keep]
        for data in found:
            data.ImageType = list(kinds)
            data.decompress() if data.file_meta.TransferSyntaxUID.is_compressed else None
            coarse = np.ascontiguousarray(data.pixel_array[::4, ::4])
            data.PixelData, (data.Rows, data.Columns) = coarse.tobytes(), coarse.shape
            data.PixelSpacing = [4 * float(step) for step in data.PixelSpacing]
        return found

    whole = range(len(stack))
    sent(copies(["ORIGINAL", "PRIMARY", "LOCALIZER"], [0]), uid, 1, root / "a")
    sent(copies(["ORIGINAL", "PRIMARY", "AXIAL"], whole), uid, 2, root / "b")
    sent(copies(["ORIGINAL", "PRIMARY", "AXIAL"], whole[::3]), uid, 3, root / "c")
    sent(copies(["DERIVED", "SECONDARY", "MPR"], whole), uid, 4, root / "d")
    return tmp_path / "study"


def test_a_study_is_listed_chosen_from_and_explained(
    pellucid: Callable[..., object], study: Path, tmp_path: Path, shared_data: Path, dark_voxels: Path
) -> None:
    lungs = MODELS / "lungs"
    shown = pellucid("dicom", "series", study, "--model", lungs)
    assert shown.code == 0, shown.err
    told = pellucid("dicom", "series", study, "--json").json["studies"]
    assert [one["slices"] for one in told[0]["series"]] == [1, 15, 5, 15]
    assert [one["nature"] for one in told[0]["series"]] == ["a localizer", "", "", "derived from other images"]
    assert told[0]["chosen"] is None
    ruled = pellucid("dicom", "series", study, "--json", "--model", lungs / "model.toml").json["studies"][0]
    assert ruled["chosen"] == 2
    log = tmp_path / "audit.jsonl"
    out = tmp_path / "out"
    options = ("--out", out, "--method", "Saliency", "--no-checks", "--trust-code", "--audit", log)
    done = pellucid("explain", study, "--model", dark_voxels, *options)
    assert done.code == 0, done.err
    (case,) = json.loads((out / "results.json").read_text())["cases"]
    assert (case["series"]["number"], case["series"]["of"], case["series"]["by"]) == (2, 4, "card")
    words = " ".join(done.out.split())
    assert "series 2 of 4" in words
    assert "1: a localizer" in words
    page = (out / case["case"] / "report.html").read_text()
    assert "Series not taken" in page
    assert "4: derived from other images" in page
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    (chosen,) = [e for e in entries if "series" in json.dumps(e) and "rejected" in json.dumps(e)]
    assert '"by": "card"' in json.dumps(chosen)
    spoken = [shown.out, shown.err, done.out, done.err, page, log.read_text(), (out / "results.json").read_text()]
    assert not [part for part in ("CANARY", "ZEBRA") for text in spoken if part in text]
    truth = pydicom.dcmread(next((shared_data / "ct_lung_boxes" / "Lung_Dx-A0001_s1").iterdir()))
    assert truth.SOPInstanceUID not in "".join(spoken)


def test_a_number_goes_before_the_rule_and_a_wrong_one_is_named(
    pellucid: Callable[..., object], study: Path, tmp_path: Path
) -> None:
    lungs = MODELS / "lungs"
    wrong = pellucid("explain", study, "--model", lungs, "--out", tmp_path / "o", "--series", "9", "--json")
    assert wrong.code == 2
    assert "--series from 1 to 4, got 9" in wrong.json["problem"]
    scout = pellucid("explain", study, "--model", lungs, "--out", tmp_path / "o", "--series", "1", "--json")
    assert scout.code == 2
    assert "the image is 2-D, the model is for 3-D" in json.dumps(scout.json)
    nothing = pellucid("dicom", "series", tmp_path / "absent")
    assert nothing.code == 2


def test_a_tilted_stack_is_refused_with_the_option_that_mends_it(
    pellucid: Callable[..., object], study: Path, tmp_path: Path, dark_voxels: Path
) -> None:
    for path in sorted((study / "CANARYNAME" / "b").iterdir()):
        data = pydicom.dcmread(path)
        place = np.array(data.ImagePositionPatient, float)
        place[1] += np.tan(np.radians(15)) * place[2]
        data.ImagePositionPatient = [f"{v:.4f}" for v in place]
        data.save_as(path)
    series = study / "CANARYNAME" / "b"
    common = ("explain", series, "--model", dark_voxels, "--method", "Saliency", "--no-checks", "--trust-code")
    refused = pellucid(*common, "--out", tmp_path / "a", "--json")
    assert refused.code == 2
    assert "15.0 degrees off their normal" in refused.json["problem"]
    assert "--resample-geometry" in refused.json["mend"]
    done = pellucid(*common, "--out", tmp_path / "b", "--resample-geometry")
    assert done.code == 0, done.err
    (case,) = json.loads((tmp_path / "b" / "results.json").read_text())["cases"]
    words = "resampled: gantry tilt of 15.0 degrees removed by shifting slices (linear)"
    assert words in case["explanations"][0]["warnings"]
    assert words in (tmp_path / "b" / case["case"] / "report.html").read_text()
