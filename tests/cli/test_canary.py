"""The privacy canary: a patient of unique names goes through every command, and no output knows who it was.

The names stand in the header, in the names of files and folders, and in the UIDs. Every byte of every output is
searched, also inside gzip, zip, PNG and embedded pictures. DICOM objects alone may carry the identity of their study,
and only in the attributes of patient and study and in references to the source.
"""

import base64
import gzip
import json
import logging
import re
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from PIL.PngImagePlugin import PngInfo
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from pellucid.demo.cases import MODELS
from pellucid.io.nifti import write_nifti
from pellucid.io.reader import read_image

Command = Callable[..., object]
CANARIES = {
    "PatientName": "Canaryname^Zebrina",
    "PatientID": "CANARYID77123",
    "PatientBirthDate": "19310907",
    "AccessionNumber": "CANARYACC5521",
    "InstitutionName": "Canaryhospital Nowhereville",
    "ReferringPhysicianName": "Canarydoctor^Quagga",
    "OperatorsName": "Canaryoperator^Okapi",
    "StudyDescription": "CANARYSTUDY of somebody",
    "SeriesDescription": "CANARYSERIES of somebody",
    "StudyID": "CANARYSID9",
    "PatientAddress": "Canarystreet 12",
    "DeviceSerialNumber": "CANARYSERIAL3",
    "StationName": "CANARYSTATION",
    "ProtocolName": "CANARYPROTOCOL",
    "PatientComments": "Canarycomment",
}
WORDS = ("canary", "zebrina", "nowhereville", "quagga", "okapi", "19310907", "77123")
# attributes of the patient and study modules, and of references, that an object of the study must repeat (PS3.3 C.7.1)
ALLOWED = {
    "PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyID", "ReferringPhysicianName",
    "StudyDescription", "StudyInstanceUID", "FrameOfReferenceUID", "ReferencedFrameOfReferenceUID",
    "ReferencedSOPInstanceUID", "SeriesInstanceUID", "PatientAddress", "PatientComments", "InstitutionName",
    "DeviceSerialNumber", "StationName",
}  # fmt: skip
# what the equipment that took the source was, in the item that says so (PS3.3 C.12.1, contributing equipment)
PATIENT_LEVEL = {"PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyID", "PatientComments"}


class Trail:
    """Everything the commands wrote or said."""

    def __init__(self, folder: Path, uids: tuple[str, ...]) -> None:
        self.folder = folder
        self.words = (*WORDS, *uids)
        self.said: list[str] = []
        self.seen: list[str] = []

    def hits(self, content: bytes) -> list[str]:
        low = content.lower()
        forms = ((w, w.lower().encode()) for w in self.words)
        return [w for w, plain in forms if plain in low or plain.decode().encode("utf-16-le") in low]

    def search(self) -> tuple[list[str], list[Path]]:
        """Where a canary was found, and the DICOM objects, which are searched apart."""
        found, objects = [], []
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            name = path.relative_to(self.folder).as_posix()
            found += [f"name of {name}: {w}" for w in self.hits(name.encode())]
            content = path.read_bytes()
            if content[128:132] == b"DICM":
                objects.append(path)
                continue
            for what, part in unpacked(name, content):
                self.seen.append(what)
                found += [f"{what}: {w}" for w in self.hits(part)]
        for n, text in enumerate(self.said):
            found += [f"output {n}: {w}" for w in self.hits(text.encode())]
        return found, objects


def unpacked(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """A file and everything packed into it."""
    yield name, content
    if content[:2] == b"\x1f\x8b":
        yield from unpacked(f"{name}/gzip", gzip.decompress(content))
    elif content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(BytesIO(content)) as packed:
            for inner in packed.namelist():
                yield f"{name}/{inner}", inner.encode()
                yield from unpacked(f"{name}/{inner}", packed.read(inner))
    elif content[:8] == b"\x89PNG\r\n\x1a\n":
        with Picture.open(BytesIO(content)) as picture:
            picture.load()
            yield f"{name}/text", repr(picture.info).encode()
    elif content.startswith(b"NRRD"):
        yield from unpacked(f"{name}/data", content.split(b"\n\n", 1)[1])
    for n, packed_text in enumerate(re.findall(rb"base64,([A-Za-z0-9+/=]{16,})", content)):
        yield from unpacked(f"{name}/embedded {n}", base64.b64decode(packed_text))


def parts(dataset: Dataset, above: str = "") -> Iterator[tuple[str, str, object]]:
    """Every attribute of an object and of its items, with the path to it."""
    for element in dataset:
        name = element.keyword or str(element.tag)
        if element.VR == "SQ":
            for item in element.value:
                yield from parts(item, f"{above}{name}.")
        else:
            yield f"{above}{name}", name, element.value


@pytest.fixture
def patient(tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """A real CT slice, stacked, of a patient whose every name is unique; and its UIDs."""
    folder = tmp_path / "in" / "Canaryname_Zebrina_19310907" / "CANARYSERIES"
    folder.mkdir(parents=True)
    data = dcmread(get_testdata_file("CT_small.dcm", download=False))
    pixels = data.pixel_array[::2, ::2]
    for keyword, value in CANARIES.items():
        setattr(data, keyword, value)
    data.Rows, data.Columns = pixels.shape
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = (generate_uid() for _ in range(3))
    uids = [str(data.StudyInstanceUID), str(data.SeriesInstanceUID), str(data.FrameOfReferenceUID)]
    for number in range(12):
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.ImagePositionPatient = [-50.0, -60.0, 2.5 * number]
        data.InstanceNumber = number + 1
        data.PixelData = np.roll(pixels, number, 1).tobytes()
        data.save_as(folder / f"Canaryfile{number}.dcm")
        uids.append(str(data.SOPInstanceUID))
    return folder, tuple(uids)


@pytest.fixture
def trail(
    pellucid: Command, patient: tuple[Path, tuple[str, ...]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Trail:
    """The folder of all outputs, with the audit record; logs at DEBUG."""
    caplog.set_level(logging.DEBUG)
    return Trail(tmp_path / "out", patient[1])


def test_no_output_knows_the_patient(
    pellucid: Command,
    patient: tuple[Path, tuple[str, ...]],
    dark_voxels: Path,
    trail: Trail,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    series, out = patient[0], trail.folder
    monkeypatch.setenv("PELLUCID_AUDIT", str(out / "audit.jsonl"))

    def run(*words: object, code: int = 0) -> object:
        done = pellucid(*words)
        assert done.code == code, done.out + done.err
        trail.said += [done.out, done.err]
        return done

    given = ("--model", dark_voxels, "--trust-code")
    named = ("--target", "air@")
    mask = _mask(series, out.parent / "in" / "Canarymask.nii.gz")
    methods = ("--method", "Saliency", "--method", "InputXGradient")
    told = run("explain", series, *given, *named, *methods, "--out", out / "explained", "--dicom", "--nrrd", "--json")
    case = told.json["cases"][0]
    assert {one["kind"] for one in case["dicom"]["objects"]} >= {"pm", "sc", "gsps", "pcps"}, case["dicom"]["skipped"]
    run("explain", series, *given, *named, "--method", "Saliency", "--out", out / "shown", "--no-checks", "--no-viewer")
    run("evaluate", series, *given, *named, "--method", "Saliency", "--metric", "Sparseness", "--region", mask,
        "--out", out / "evaluated", "--json", "--no-checks", "--no-viewer")  # fmt: skip
    run("ask", series, *given, "--region", mask, "--shams", 2)
    archives = [case["files"][f"archive {m}"] for m in ("Saliency", "InputXGradient")]
    run("compare", *archives, "--out", out / "compared", "--ranks")
    run("paper", out / "explained", "--out", out / "paper")
    pm = next(one["file"] for one in case["dicom"]["objects"] if one["kind"] == "pm")
    verified = pellucid("dicom", "verify", pm, "--source", series, "--model", dark_voxels, "--trust-code")
    assert verified.code in (0, 3), verified.out + verified.err
    trail.said += [verified.out, verified.err]
    run("audit", "verify", out / "audit.jsonl")
    _errors(run, series, given, out)
    _study(run, series, dark_voxels, out)
    trail.said.append(caplog.text)
    caplog.clear()
    found, objects = trail.search()
    assert found == []
    assert len(trail.seen) > 50
    assert any("/embedded" in what for what in trail.seen)
    assert any(what.endswith("/gzip") for what in trail.seen)
    assert len(objects) >= 8
    _check_objects(objects, trail)


def _mask(series: Path, path: Path) -> Path:
    grid = read_image(series).grid
    values = np.zeros(grid.shape, np.float32)
    values[3:8, 10:30, 30:50] = 1
    return write_nifti(values, grid, path)


def _errors(run: Callable[..., object], series: Path, given: tuple[object, ...], out: Path) -> None:
    """What goes wrong says nothing of whom it went wrong with."""
    cut = series.parent / "Canarycut"
    cut.mkdir()
    first = series / "Canaryfile0.dcm"
    (cut / "Canarytruncated.dcm").write_bytes(first.read_bytes()[:900])
    run("explain", cut, *given, "--out", out / "cut", code=2)
    run("explain", cut, *given, "--out", out / "cut", "--json", code=2)
    pneumonia = MODELS / "pneumonia"
    run("explain", series, "--model", pneumonia, "--out", out / "wrong", code=2)
    run("explain", series / "Canaryabsent.dcm", *given, "--out", out / "absent", code=2)
    mixed = dcmread(first)
    mixed.SeriesInstanceUID = generate_uid()
    mixed.PatientName = "Canaryname^Second"
    mixed.save_as(cut / "Canarymixed.dcm")
    run("explain", cut, *given, "--out", out / "mixed", code=2)


def _study(run: Callable[..., object], series: Path, model: Path, out: Path) -> None:
    """A study on a table whose paths name the patient."""
    table = series.parent / "Canarytable.csv"
    table.write_text(f"image,patient\n{series.name},p1\n{series.name}/Canaryabsent.dcm,p2\n")
    plan = series.parent / "Canaryplan.toml"
    plan.write_text(
        f'name = "quiet"\ncases = "{table.name}"\nmethods = ["Saliency"]\nmetrics = ["Sparseness"]\n'
        f'targets = ["air@"]\n[models]\ndark = "{model.as_posix()}"\n'
    )
    run("study", "run", plan, "--out", out / "study", "--trust-code", "--json", code=2)  # a row failed


def _check_objects(objects: list[Path], trail: Trail) -> None:
    """Identity stands only where an object of the study must repeat it; never in pixels, words or the recipe."""
    named = 0
    for path in objects:
        dataset = dcmread(path)
        for place, keyword, value in parts(dataset):
            plain = value if isinstance(value, bytes) else str(value).encode()
            found = trail.hits(plain)
            inside = place.startswith(("ContributingEquipmentSequence.", "OriginalAttributesSequence."))
            assert not found or keyword in ALLOWED, f"{path.name}: {place} holds {found}"
            assert not (inside and keyword in PATIENT_LEVEL), f"{path.name}: {place}"
            named += bool(found)
        assert not trail.hits(str(dataset.SeriesDescription).encode())
        assert str(dataset.PatientName) == CANARIES["PatientName"]
        assert dataset.PatientID == CANARIES["PatientID"]
        assert not trail.hits(path.read_bytes()[:132])
    assert named > 0


def test_the_search_finds_what_is_hidden(tmp_path: Path) -> None:
    trail = Trail(tmp_path, ("1.2.3.4",))
    text = PngInfo()
    text.add_text("comment", "Zebrina", zip=True)
    Picture.new("L", (4, 4)).save(tmp_path / "a.png", pnginfo=text)
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"CANARYID77123"))
    with zipfile.ZipFile(tmp_path / "c.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("x", "1.2.3.4")
    embedded = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    (tmp_path / "d.html").write_text(f'<img src="data:image/png;base64,{embedded}">')
    (tmp_path / "canary.txt").write_text("nothing")
    found, _ = trail.search()
    for place in ("a.png", "b.gz", "c.npz", "d.html/embedded", "name of canary.txt"):
        assert any(hit.startswith(place) for hit in found), (place, found)


def test_the_reading_room_gets_a_name_and_nobody_else(
    pellucid: Command, patient: tuple[Path, tuple[str, ...]], dark_voxels: Path, trail: Trail
) -> None:
    done = pellucid(
        "explain", patient[0], "--model", dark_voxels, "--trust-code", "--target", "air@", "--method", "Saliency",
        "--out", trail.folder, "--reading-room", "--json", "--audit", trail.folder / "audit.jsonl",
    )  # fmt: skip
    assert done.code == 0, done.err
    trail.said += [done.out, done.err]
    found, _ = trail.search()
    pages = {hit.split(":")[0] for hit in found}
    assert {Path(p).name for p in pages} == {"report.html"}
    page = Path(json.loads(done.out)["cases"][0]["files"]["report"]).read_text()
    assert "Canaryname, Zebrina" in page
    assert "CANARYID77123" in page
    assert "reading room only" in page
    assert "Canaryhospital" not in page
    assert "report.naming_the_patient" in (trail.folder / "audit.jsonl").read_text()


def test_without_a_dicom_source_there_is_nobody_to_name(pellucid: Command, classifier: Path, tmp_path: Path) -> None:
    Picture.radial_gradient("L").save(tmp_path / "picture.png")
    words = ["explain", tmp_path / "picture.png", "--model", classifier, "--trust-code", "--out", tmp_path / "out"]
    done = pellucid(*words, "--reading-room")
    assert done.code == 2
    assert "leave out --reading-room" in done.err
