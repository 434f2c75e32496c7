"""``pellucid dicom verify`` on a real CT series: what agrees, and each thing that can be another, by its name."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from pellucid.cli.main import app
from pellucid.demo.cases import MODELS
from pellucid.io.objects.identity import write_object
from pellucid.io.objects.recipe import embed, extract

LUNGS = MODELS / "lungs"
SLICES = slice(5, 11)  # of 15: enough lung, and a third of the time
CANARIES = ("CANARYNAME", "CANARYID7")


@dataclass(frozen=True)
class Written:
    """A series, and what explaining it wrote."""

    source: Path
    objects: dict[str, Path]


def _series(real: Path, folder: Path) -> Path:
    """The middle of a real series, of a patient whose name must turn up nowhere."""
    folder.mkdir()
    found = sorted((dcmread(path) for path in real.glob("*.dcm")), key=lambda d: float(d.ImagePositionPatient[2]))
    for place, data in enumerate(found[SLICES]):
        data.PatientName, data.PatientID = "CANARYNAME^ZEBRA", "CANARYID7"
        data.save_as(folder / f"im{place}.dcm")
    return folder


@pytest.fixture(scope="module")
def written(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A map with a seed, its report with two scores, and the pictures."""
    folder = tmp_path_factory.mktemp("written")
    source = _series(shared_data / "ct_lung_boxes" / "Lung_Dx-A0001_s1", folder / "series")
    words = ["evaluate", source, "--model", LUNGS, "--out", folder / "out", "--seed", 3, "--dicom", "--no-checks"]
    words += ["--method", "SmoothGrad:samples=2", "--metric", "Entropy", "--metric", "IoU"]
    words += ["--audit", folder / "audit.jsonl", "--json"]
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)["cases"][0]["dicom"]["objects"]
    return Written(source, {one["kind"]: Path(one["file"]) for one in told})


@pytest.fixture
def verify(pellucid: Callable[..., object], written: Written) -> Callable[..., dict[str, str]]:
    """Verify an object; state by finding, and the exit code and words beside them."""

    def run(path: Path, *more: object, source: Path | None = None, model: Path = LUNGS) -> dict[str, str]:
        done = pellucid(
            "dicom", "verify", path, "--source", source or written.source, "--model", model, "--json", *more
        )
        assert not any(canary in done.out + done.err for canary in CANARIES)
        told = done.json
        found = {one["name"]: one["state"] for one in told["findings"]}
        words = " ".join(one["words"] for one in told["findings"])
        return found | {"code": done.code, "verdict": told["verdict"], "words": words}

    return run


def _moved(written: Written, kind: str, folder: Path) -> tuple[Dataset, Path]:
    """A copy to be changed, and where to write it."""
    return dcmread(written.objects[kind]), folder / f"changed.{kind}.dcm"


def test_a_map_that_nobody_touched_agrees(verify: Callable[..., dict[str, str]], written: Written) -> None:
    found = verify(written.objects["pm"])
    assert (found["code"], found["verdict"]) == (0, "agrees"), found
    assert {"object", "weights", "card", "description", "source", "input", "geometry", "map"} <= set(found)
    assert "differs by at most" in found["words"]


def test_the_report_and_its_scores_agree_and_an_edited_number_is_found(
    verify: Callable[..., dict[str, str]], written: Written, tmp_path: Path
) -> None:
    found = verify(written.objects["sr"])
    assert (found["code"], found["score Entropy"], found["score IoU"]) == (0, "agrees", "agrees"), found
    report, path = _moved(written, "sr", tmp_path)
    group = report.ContentSequence[-1].ContentSequence[0]
    (entropy,) = [i for i in group.ContentSequence if i.ConceptNameCodeSequence[0].CodeMeaning == "Entropy"]
    entropy.MeasuredValueSequence[0].FloatingPointValue += 0.5
    found = verify(write_object(report, path))
    assert (found["code"], found["score Entropy"], found["object"]) == (1, "differs", "not verified")
    assert found["recorded map"] == "agrees"


def test_one_changed_byte_of_a_map_is_found(
    verify: Callable[..., dict[str, str]], written: Written, tmp_path: Path
) -> None:
    changed, path = _moved(written, "pm", tmp_path)
    pixels = bytearray(changed.FloatPixelData)
    place = int(np.abs(np.frombuffer(pixels, "<f4")).argmax()) * 4  # the lowest byte of the largest value
    pixels[place] ^= 1
    changed.FloatPixelData = bytes(pixels)
    found = verify(write_object(changed, path))
    assert (found["code"], found["map"]) == (1, "differs")
    assert "the map was edited" in found["words"]
    assert found["input"] == found["weights"] == found["source"] == "agrees"


def test_a_map_that_tells_something_else_of_itself_is_found(
    verify: Callable[..., dict[str, str]], written: Written, tmp_path: Path
) -> None:
    changed, path = _moved(written, "pm", tmp_path)
    changed.SeriesDescription, changed.ContentQualification = "tumor finder", "PRODUCT"
    changed.ContentDescription = "GradCAM of tumor"
    changed.DerivationDescription = changed.DerivationDescription.replace("explainer=SmoothGrad", "explainer=GradCAM")
    mapping = changed.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    mapping.MeasurementUnitsCodeSequence[0].CodeValue = "%"
    pixels = bytearray(changed.FloatPixelData)
    pixels[:4] = np.float32(1e6).tobytes()  # beyond the range that the object states
    changed.FloatPixelData = bytes(pixels)
    found = verify(write_object(changed, path))
    assert (found["code"], found["labels"], found["map"]) == (1, "differs", "differs"), found
    assert all(word in found["words"] for word in ("mark", "qualification", "explainer", "title", "unit")), found


def test_another_weight_file_is_named(verify: Callable[..., dict[str, str]], written: Written, tmp_path: Path) -> None:
    folder = tmp_path / "lungs"
    shutil.copytree(LUNGS, folder)
    tensors = load_file(folder / "weights.safetensors")
    save_file({name: value * 1.01 for name, value in tensors.items()}, folder / "weights.safetensors")
    sha = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    card, old = (folder / "model.toml").read_text(), hashlib.sha256((LUNGS / "weights.safetensors").read_bytes())
    (folder / "model.toml").write_text(card.replace(old.hexdigest(), sha))
    found = verify(written.objects["pm"], model=folder)
    assert (found["code"], found["weights"], found["card"]) == (1, "differs", "differs")
    assert "another weight file" in found["words"]
    assert found["map"] == "not verified"


def test_another_study_and_other_values_are_named(
    verify: Callable[..., dict[str, str]], written: Written, tmp_path: Path
) -> None:
    for name, changes in (("study", ("StudyInstanceUID",)), ("series", ("SeriesInstanceUID",)), ("values", ())):
        other, series = tmp_path / name, generate_uid()
        other.mkdir()
        for place, path in enumerate(sorted(written.source.iterdir())):
            data = dcmread(path)
            for keyword in changes:
                setattr(data, keyword, series)
            if name == "series":
                data.SOPInstanceUID = generate_uid()
            if name == "values" and place == 2:
                data.PixelData = data.PixelData[:-2] + bytes([1, 0])
            data.save_as(other / path.name)
        found = verify(written.objects["pm"], source=other)
        assert found["code"] == 1
        if name == "values":
            assert (found["source"], found["input"]) == ("agrees", "differs")
        else:
            assert found["source"] == "differs"
            assert f"another {name}" in found["words"]


def test_a_recipe_with_another_seed_is_found(
    verify: Callable[..., dict[str, str]], written: Written, tmp_path: Path
) -> None:
    changed, path = _moved(written, "pm", tmp_path)
    embed(changed, replace(extract(changed), seed=4))
    found = verify(write_object(changed, path))
    assert (found["code"], found["description"], found["map"]) == (1, "differs", "differs")
    assert "seed 4 and 3" in found["words"]
    assert "another setting, seed or version made it" in found["words"]


def test_pictures_are_bound_by_their_uid(
    verify: Callable[..., dict[str, str]], written: Written, tmp_path: Path
) -> None:
    changed, path = _moved(written, "gsps", tmp_path)
    changed.ContentCreatorName = "Somebody^"
    found = verify(write_object(changed, path))
    assert (found["code"], found["verdict"], found["object"]) == (3, "not verified", "not verified")
    assert found["recorded map"] == "agrees"


def test_a_report_made_anew_names_the_one_it_replaces(
    pellucid: Callable[..., object], written: Written, tmp_path: Path
) -> None:
    words = ("--method", "SmoothGrad:samples=2", "--seed", 3, "--no-checks", "--no-viewer", "--json")
    asked = ("explain", written.source, "--model", LUNGS, "--out", tmp_path / "again", *words)
    done = pellucid(*asked, "--dicom", "--replaces", written.objects["sr"].parent)
    assert done.code == 0, done.err
    told = {one["kind"]: one["file"] for one in done.json["cases"][0]["dicom"]["objects"]}
    first, second = dcmread(written.objects["sr"]), dcmread(told["sr"])
    earlier = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert earlier.ReferencedSOPInstanceUID == first.SOPInstanceUID != second.SOPInstanceUID
    assert dcmread(told["pm"]).SOPInstanceUID == dcmread(written.objects["pm"]).SOPInstanceUID  # the same map
    refused = pellucid(*asked, "--replaces", written.objects["sr"])
    assert (refused.code, "add --dicom" in refused.err) == (2, True)
    refused = pellucid(*asked, "--dicom", "--replaces", written.source)
    assert (refused.code, "got none" in refused.err) == (2, True)


def test_bad_input_is_told_and_recorded(pellucid: Callable[..., object], written: Written, tmp_path: Path) -> None:
    source = next(written.source.iterdir())
    done = pellucid("dicom", "verify", source, "--source", written.source, "--model", LUNGS)
    assert done.code == 2
    assert "an object that Pellucid writes" in done.err
    done = pellucid("dicom", "verify", written.objects["pm"], "--source", source, "--model", LUNGS, "--tolerance", 2)
    assert done.code == 2
    done = pellucid("dicom", "verify", written.objects["gsps"], "--source", written.source, "--model", LUNGS)
    assert done.code == 0
    assert "agrees" in done.out
    assert "says nothing about whether the model is right" in done.out
    events = [json.loads(line) for line in (tmp_path / "audit" / "audit.jsonl").read_text().splitlines()]
    assert [(e["event"], e["method"]) for e in events] == [("failure", "verify")] * 2 + [("view", "dicom.verify")]
    assert events[-1]["parameters"] == {"kind": "gsps", "verdict": "agrees"}
