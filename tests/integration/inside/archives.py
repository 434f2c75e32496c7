"""Sending, reading back, fetching, and what goes wrong, with Orthanc."""

import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import JPEG2000Lossless, RLELossless, generate_uid
from typer.testing import CliRunner, Result

from pellucid.cli.main import app
from pellucid.core.errors import ArchiveError
from pellucid.core.explanation import Attribution, Explanation, Prediction
from pellucid.explain.cam import GradCAM
from pellucid.io.objects.identity import write_object
from pellucid.io.objects.maps import Encoding, parametric_map
from pellucid.io.objects.marks import Made
from pellucid.io.objects.segment import segmentation
from pellucid.io.objects.source import open_source
from pellucid.io.reader import read_cases
from pellucid.pacs.outbox import Outbox
from pellucid.pacs.sending import Delivery
from pellucid.pacs.settings import identity, read_settings
from pellucid.workbench.dispatching import Counter, gather


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory, other: Callable[[str], ModuleType]) -> Path:
    """Maps as floats and 16 bits, a segmentation, and captures uncompressed, as RLE and as JPEG 2000."""
    import torch

    folder = tmp_path_factory.mktemp("objects")
    source = folder / "source"
    source.mkdir()
    for number, data in enumerate(other("io").Phantom().datasets()):
        data.save_as(source / f"{number}.dcm", enforce_file_format=True)
    case = read_cases(source).cases[0]
    image = case.images["image"]
    values = np.random.default_rng(3).normal(size=image.grid.shape).astype(np.float32)
    said = Prediction("nodule", 1.0, "logit", 0.7, None, "nodule", {"nodule": 0.7})
    answer = Attribution({"image": torch.from_numpy(values)[None, None]}, "logit", True)
    explanation = Explanation(answer, other("io/objects").MADE, said, image)
    made = Made(explanation, GradCAM.card, open_source(case.files["image"], image), "GradCAM")
    placed = made.source.volume(values)
    out = folder / "out"
    out.mkdir()
    write_object(parametric_map(made, placed), out / "map.dcm")
    write_object(parametric_map(made, placed, None, Encoding.UINT16), out / "map16.dcm")
    write_object(segmentation(made, made.source.volume(values > 1)), out / "region.dcm")
    for number, syntax in enumerate((None, RLELossless, JPEG2000Lossless)):
        capture(made, number, syntax).save_as(out / f"capture{number}.dcm", enforce_file_format=True)
    return out


def capture(made: Made, number: int, syntax: str | None) -> Dataset:
    pixels = np.random.default_rng(number).integers(0, 255, (32, 40, 3)).astype(np.uint8)
    data = hd.sc.SCImage.from_ref_dataset(
        made.source.first, pixels, "RGB", 8, hd.CoordinateSystemNames.PATIENT, generate_uid(), 900 + number,
        generate_uid(), 1, "Pellucid", pixel_spacing=(1.0, 1.0), patient_orientation=("L", "P"),
    )  # fmt: skip
    data.SeriesDescription = "RESEARCH - NOT FOR DIAGNOSIS: capture"
    if syntax is not None:
        data.compress(syntax, generate_instance_uid=False)
    return data


@pytest.fixture
def pellucid(orthanc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("PELLUCID_OUTBOX", str(tmp_path / "outbox.sqlite"))
    monkeypatch.setenv("PACS_USER", "anna")
    monkeypatch.setenv("PACS_PASSWORD", "hunter2")
    settings = orthanc.settings(tmp_path / "pellucid.pacs.toml")

    def run(*words: object, stdin: str | None = None) -> Result:
        common = ["--config", settings, "--audit", tmp_path / "audit.jsonl"]
        return CliRunner().invoke(app, ["dicom", *(str(w) for w in (*words, *common))], input=stdin)

    return run


def told(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def pixels(paths: list[Path]) -> set[tuple[str, str, bytes]]:
    """Instance, transfer syntax and pixel bytes of each."""
    found = [dcmread(path) for path in paths]
    names = ("PixelData", "FloatPixelData")
    return {
        (str(d.SOPInstanceUID), str(d.file_meta.TransferSyntaxUID), b"".join(d[n].value for n in names if n in d))
        for d in found
    }


def wipe(orthanc: Any) -> None:
    import requests

    for study in orthanc.ask("studies"):
        url = f"http://127.0.0.1:{orthanc.web}/studies/{study}"
        requests.delete(url, auth=("anna", "hunter2"), timeout=20)
    assert orthanc.ask("instances") == []


@pytest.mark.parametrize("name", ["dimse", "moving", "web"])
def test_echo_send_twice_find_and_fetch(
    orthanc: Any, pellucid: Callable[..., Result], objects: Path, tmp_path: Path, name: str
) -> None:
    wipe(orthanc)
    assert told(pellucid("echo", name, "--json"))["ok"]
    sent = told(pellucid("send", objects, "--to", name, "--compare", "--json"))
    assert {each["state"] for each in sent["objects"]} == {"stored"}
    if name != "moving":
        assert {each["words"] for each in sent["objects"]} == {"with the same content"}
    assert len(orthanc.ask("instances")) == 6
    again = told(pellucid("send", objects, "--to", name, "--json"))
    assert {each["state"] for each in again["objects"]} == {"there"}
    assert len(orthanc.ask("instances")) == 6
    found = pellucid("find", "--from", name, "--query", "-", "--out", tmp_path / "found.json",
                     stdin='{"PatientID": "CANARYID7"}')  # fmt: skip
    assert found.exit_code == 0, found.output
    fetched = told(
        pellucid("fetch", "--from", name, "--query", tmp_path / "found.json", "--out", tmp_path / "in", "--json")
    )
    assert fetched["refused"] == {}
    assert fetched["objects"] == 6
    got = sorted((tmp_path / "in").rglob("*.dcm"))
    assert pixels(got) == pixels(sorted(objects.glob("*.dcm")))
    assert all(path.read_bytes()[:128] == bytes(128) for path in got)
    for secret in ("CANARYNAME", "CANARYID7", "ZEBRA", str(dcmread(got[0]).StudyInstanceUID)):
        assert secret not in found.output + "".join(map(str, got)) + (tmp_path / "audit.jsonl").read_text()


def test_what_came_by_one_way_is_known_on_the_other(
    orthanc: Any, pellucid: Callable[..., Result], objects: Path
) -> None:
    """Another name and protocol: the outbox knows nothing, so each object is fetched and compared."""
    wipe(orthanc)
    told(pellucid("send", objects, "--to", "dimse", "--json"))
    other = told(pellucid("send", objects, "--to", "web", "--json"))
    assert {each["words"] for each in other["objects"]} == {"it was there already, with the same content"}


@pytest.mark.parametrize("name", ["dimse", "web"])
def test_the_first_of_two_under_one_uid_is_kept(
    orthanc: Any, pellucid: Callable[..., Result], objects: Path, tmp_path: Path, name: str
) -> None:
    wipe(orthanc)
    told(pellucid("send", objects / "capture0.dcm", "--to", name, "--json"))
    changed = dcmread(objects / "capture0.dcm")
    changed.PixelData = bytes(len(changed.PixelData))
    changed.save_as(tmp_path / "changed.dcm")
    second = pellucid("send", tmp_path / "changed.dcm", "--to", name, "--json")
    assert second.exit_code == 1
    assert json.loads(second.stdout)["objects"][0]["state"] == "differs"
    (only,) = orthanc.ask("instances")
    assert only


@pytest.mark.parametrize(("name", "word"), [("wrong-ae", "refused the association"), ("wrong-login", "401")])
def test_no_access(pellucid: Callable[..., Result], objects: Path, tmp_path: Path, name: str, word: str) -> None:
    for words in (("echo", name), ("send", objects, "--to", name)):
        done = pellucid(*words)
        assert done.exit_code == 1
        assert word in done.output
    events = [json.loads(line)["event"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert events == ["failed_access", "config", "failed_access"]


@pytest.mark.parametrize("name", ["dimse", "web"])
def test_killed_midway_restarted_and_sent_again(
    orthanc: Any, pellucid: Callable[..., Result], objects: Path, tmp_path: Path, name: str
) -> None:
    wipe(orthanc)
    settings = read_settings(tmp_path / "pellucid.pacs.toml")
    place = settings.archive(name)
    archive = Counter(settings, name, None).archive()
    archive = replace(archive, place=replace(place, pace=replace(place.pace, objects=1)))  # a request for each object
    parcels, _ = gather([objects])
    steps = []

    def strike(_what: str, _many: int) -> None:
        steps.append(1)
        if len(steps) == 2:
            orthanc.kill()

    outbox = Outbox(tmp_path / "outbox.sqlite")
    try:
        receipts = Delivery(archive, identity(place), outbox).send(parcels, strike)
        assert not any(receipt.state == "stored" for receipt in receipts.values())
        assert outbox.count() == {"failed": len(parcels)}
        with pytest.raises(ArchiveError):
            archive.echo()
    finally:
        orthanc.kill()
        orthanc.start()
    again = told(pellucid("send", objects, "--to", name, "--json"))
    assert again["held"] == 6
    assert len(orthanc.ask("instances")) == 6
    states = {each["state"] for each in again["objects"]}
    assert states <= {"stored", "there"}
    assert "stored" in states, "nothing was left to send: the server was killed too late"


def test_the_object_is_the_same_through_orthancs_own_door(
    orthanc: Any, pellucid: Callable[..., Result], objects: Path
) -> None:
    """A second opinion: what Orthanc serves over its REST interface, which none of our code uses."""
    import requests

    wipe(orthanc)
    told(pellucid("send", objects, "--to", "dimse", "--json"))
    served = {}
    for key in orthanc.ask("instances"):
        url = f"http://127.0.0.1:{orthanc.web}/instances/{key}/file"
        data = dcmread(BytesIO(requests.get(url, auth=("anna", "hunter2"), timeout=20).content))
        served[str(data.SOPInstanceUID)] = data
    assert len(served) == 6
    region = dcmread(objects / "region.dcm")
    assert served[str(region.SOPInstanceUID)].PixelData == region.PixelData
