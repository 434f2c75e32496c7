"""``pellucid dicom echo|send|find|fetch`` as a person runs them, with what they write and what they must not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ParametricMapStorage
from typer.testing import CliRunner, Result

from pellucid.audit.verdict import verify
from pellucid.cli.main import app

Start = Callable[..., tuple]
PACE = "pace = {connect_s = 1.0, answer_s = 0.5, attempts = 2, wait_s = 0.01, settle_s = 0.2}"


@pytest.fixture
def objects(tmp_path: Path, make: Callable[..., Dataset]) -> Path:
    """A folder as `explain --dicom` leaves one: objects of ours, and other files."""
    folder = tmp_path / "made" / "case-1"
    folder.mkdir(parents=True)
    for number, kind in ((1, None), (2, None), (3, ParametricMapStorage)):
        data = make(number) if kind is None else make(number, kind)
        data.save_as(folder / f"GradCAM-{number}.dcm", enforce_file_format=True)
    (folder / "results.json").write_text("{}", encoding="utf-8")
    return tmp_path / "made"


@pytest.fixture
def pellucid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("PELLUCID_OUTBOX", str(tmp_path / "outbox.sqlite"))

    def run(*words: object, port: int = 1, sending: bool = True, stdin: str | None = None) -> Result:
        settings = tmp_path / "pellucid.pacs.toml"
        archive = f'[archives.main]\nkind = "dimse"\nhost = "127.0.0.1"\nport = {port}\nae = "MOODY"\n{PACE}\n'
        settings.write_text(f"sending = {str(sending).lower()}\n{archive}", encoding="utf-8")
        (tmp_path / "audit").mkdir(exist_ok=True)
        common = ["--config", settings, "--audit", tmp_path / "audit" / "log.jsonl"]
        return CliRunner().invoke(app, ["dicom", *(str(w) for w in (*words, *common))], input=stdin)

    return run


def events(tmp_path: Path) -> list[dict]:
    log = tmp_path / "audit" / "log.jsonl"
    assert verify(log, log.parent / "audit-anchor" / "log.head").ok
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def test_the_whole_way(
    pellucid: Callable[..., Result], moody: Start, objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, _ = moody()
    assert pellucid("echo", "main", port=there.port).output == "main answers\n"
    sent = pellucid("send", objects, "--to", "main", "--compare", "--json", port=there.port)
    assert sent.exit_code == 0, sent.output
    told = json.loads(sent.stdout)
    assert told["held"] == 3
    assert told["warnings"] == []
    assert [each["state"] for each in told["objects"]] == ["stored"] * 3
    assert told["objects"][0]["object"] == "case-1/GradCAM-1.dcm"
    again = pellucid("send", objects, "--to", "main", port=there.port)
    assert again.exit_code == 0
    assert "main holds 3 of 3 objects" in again.output
    assert len(there.came) == 3

    found = pellucid("find", "--from", "main", "--query", "-", "--out", tmp_path / "found.json", port=there.port,
                     stdin='{"PatientID": "CANARYID7"}')  # fmt: skip
    assert found.exit_code == 0, found.output
    assert (tmp_path / "found.json").stat().st_mode & 0o777 == 0o600
    with monkeypatch.context() as few:
        few.setattr("pellucid.cli.dicom._MOST_SERIES", 1)
        cut = pellucid("find", "--from", "main", "--query", "-", port=there.port, stdin='{"PatientID": "CANARYID7"}')
    assert cut.exit_code == 1
    assert "more than 1 series fit" in cut.output
    got = pellucid("fetch", "--from", "main", "--query", tmp_path / "found.json", "--out", tmp_path / "in",
                   port=there.port)  # fmt: skip
    assert got.exit_code == 0, got.output
    assert "3 objects of 2 series from main" in got.output
    files = sorted((tmp_path / "in").rglob("*.dcm"))
    assert {path.parent.name for path in files} == {"series-01", "series-02"}
    wanted = {dcmread(path).PixelData for path in objects.rglob("*.dcm")}
    assert {dcmread(path).PixelData for path in files} == wanted

    shown = sent.output + again.output + found.output + got.output
    kept = "".join(path.read_text(encoding="utf-8", errors="replace") for path in (tmp_path / "audit").rglob("*.*"))
    kept += (tmp_path / "outbox.sqlite").read_bytes().decode("latin-1") + "".join(str(path) for path in files)
    uids = [str(dcmread(path).SOPInstanceUID) for path in files] + [str(dcmread(files[0]).StudyInstanceUID)]
    for secret in ("CANARYNAME", "CANARYID7", "ZEBRA", *uids):
        assert secret not in shown
        assert secret not in kept
    log = events(tmp_path)
    assert [e["event"] for e in log] == ["config", "send", "config", "send", *["view"] * 5]
    assert log[1]["parameters"] == {"archive": "to main", "state": "stored"}
    assert len(log[1]["object_hashes"]) == 3
    assert log[1]["object_hashes"] == log[3]["object_hashes"]


def test_nothing_is_sent_while_sending_is_off(pellucid: Callable[..., Result], moody: Start, objects: Path) -> None:
    there, _ = moody()
    done = pellucid("send", objects, "--to", "main", port=there.port, sending=False)
    assert done.exit_code == 2
    assert "sending is off" in done.output
    assert not there.associations


def test_a_part_that_is_not_there_is_exit_code_1(
    pellucid: Callable[..., Result], moody: Start, objects: Path, tmp_path: Path
) -> None:
    there, _ = moody(answers=[0xA900])
    done = pellucid("send", objects, "--to", "main", port=there.port)
    assert done.exit_code == 1
    assert "refused   case-1/GradCAM-1.dcm" in done.output
    assert "main holds 2 of 3 objects" in done.output
    outcomes = {e["parameters"].get("state"): e["outcome"] for e in events(tmp_path) if e["event"] == "send"}
    assert outcomes == {"refused": "serious_failure", "stored": "success"}


def test_an_archive_that_knows_nobody_is_a_failed_access(
    pellucid: Callable[..., Result], moody: Start, tmp_path: Path
) -> None:
    there, _ = moody(only="OTHER")
    done = pellucid("echo", "main", "--json", port=there.port)
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"] == "ArchiveRefused"
    assert [e["event"] for e in events(tmp_path)] == ["failed_access"]
    gone = pellucid("echo", "main", port=1)
    assert gone.exit_code == 1
    assert [e["event"] for e in events(tmp_path)] == ["failed_access", "failure"]


def test_images_of_the_patient_stay(
    pellucid: Callable[..., Result], moody: Start, objects: Path, make: Callable[..., Dataset]
) -> None:
    there, _ = moody()
    make(9, CTImageStorage, Manufacturer="ACME").save_as(objects / "CANARYNAME.dcm", enforce_file_format=True)
    done = pellucid("send", objects, "--to", "main", "--any", port=there.port)
    assert done.exit_code == 2
    assert "never sent" in done.output
    assert "CANARYNAME" not in done.output
    assert not there.associations


@pytest.mark.parametrize(
    ("words", "stdin", "word"),
    [
        (["send", "{made}", "--to", "elsewhere"], None, "archives there: main"),
        (["send", "{made}/case-1/results.json", "--to", "main"], None, "object that explains"),
        (["send", "{made}/absent", "--to", "main"], None, "where there is none"),
        (["find", "--from", "main"], None, "either --query or --study"),
        (["find", "--from", "main", "--query", "-"], '{"PatientWeight": "70"}', "unknown key"),
        (["find", "--from", "main", "--query", "-"], '{"PatientID": "*"}', "wildcard"),
        (["find", "--from", "main", "--query", "-"], "CANARYID7", "not JSON"),
        (["find", "--from", "main", "--study", "../../etc/passwd"], None, "not a valid UID"),
        (["fetch", "--from", "main", "--query", "absent.json", "--out", "{made}"], None, "cannot be read"),
    ],
)
def test_bad_input_is_exit_code_2(
    pellucid: Callable[..., Result], objects: Path, words: list[str], stdin: str | None, word: str
) -> None:
    done = pellucid(*(w.format(made=objects) for w in words), stdin=stdin)
    assert done.exit_code == 2, done.output
    assert word in " ".join(done.output.split())
    assert "CANARY" not in done.output
