import json
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from pellucid.audit import disk, record
from pellucid.audit.entry import MAX_OBJECTS, MAX_PARAMETERS, Entry
from pellucid.audit.log import AuditLog
from pellucid.audit.record import GENESIS, Head
from pellucid.audit.verdict import Verdict
from pellucid.core.errors import AuditError

Make = Callable[..., AuditLog]
Check = Callable[..., Verdict]

NAME, IDENTIFIER, UID = "Canary^Wilhelmina", "MRN0074411", "1.2.826.0.1.3680043.8.498.4711"


def test_a_record_holds_every_field_and_follows_the_one_before(keyed: AuditLog, full: Entry, check: Check) -> None:
    first, second = keyed.record(full), keyed.record(replace(full, event="export", outcome="minor_failure"))
    assert first.previous == GENESIS
    assert second.previous == first.digest
    assert (first.sequence, second.sequence) == (1, 2)
    stored = [json.loads(line) for line in keyed.path.read_text().splitlines()]
    assert stored[0] == vars(first) | {"object_hashes": list(first.object_hashes)}
    assert stored[1]["event"] == "export"
    assert stored[1]["outcome"] == "minor_failure"
    assert (first.actor, first.role, first.clock, first.purpose) == ("reader-07", "radiologist", "system", "test")
    assert (first.model_hash, first.config_hash, first.output_hash) == (
        full.model_hash,
        full.config_hash,
        full.output_hash,
    )
    assert first.software.startswith("pellucid ")
    assert first.parameters == dict(full.parameters)
    assert abs(datetime.fromisoformat(first.time) - datetime.now(UTC)) < timedelta(minutes=1)
    assert Head.read(keyed.anchor_path) == Head(2, second.digest)
    assert check(keyed) == Verdict(
        True, True, 2, 0, 0, True, None, "records: 2, each fits the chain; tail proven by the anchor"
    )


def test_a_plain_chain_is_sha256_of_the_canonical_record(tmp_path: Path, full: Entry, make_log: Make) -> None:
    body = vars(make_log(tmp_path, keyed=False).record(full)).copy()
    digest = body.pop("digest")
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert digest == sha256(text.encode()).hexdigest()
    assert body["key_id"] is None


@pytest.mark.parametrize("event", Entry.__dataclass_fields__["event"].type.__args__)
def test_every_event_is_recorded(tmp_path: Path, event: str, make_log: Make) -> None:
    assert make_log(tmp_path, keyed=False).record(Entry(event)).event == event


def test_no_patient_is_in_any_file(keyed: AuditLog, full: Entry) -> None:
    entry = replace(full, subject=NAME, input_digest=IDENTIFIER, object_uids=(UID,))
    keyed.record(entry)
    keyed.path.write_bytes(keyed.path.read_bytes() + b'{"torn')
    keyed.repair()
    written = b"".join(path.read_bytes() for path in keyed.path.parent.iterdir())
    for secret in (NAME, IDENTIFIER, UID):
        for form in (secret, secret.lower(), sha256(secret.encode()).hexdigest()):
            assert form.encode() not in written
            assert form not in repr(entry)


def test_identifiers_are_keyed_by_site_and_kind(tmp_path: Path, full: Entry, make_log: Make) -> None:
    one = replace(full, subject="same", input_digest="same", object_uids=("same",))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, again = (make_log(tmp_path / "a", keyed=True).record(one) for _ in range(2))
    elsewhere = make_log(tmp_path / "b", keyed=True).record(one)
    assert first.subject_hash == again.subject_hash
    hashes = {first.subject_hash, first.input_hash, *first.object_hashes, elsewhere.subject_hash, elsewhere.input_hash}
    assert len(hashes) == 5
    assert stat.S_IMODE((tmp_path / "a" / "site.key.salt").stat().st_mode) == 0o600
    assert record.keyed(b"s" * 32, "subject", "\udcff") != record.keyed(b"s" * 32, "subject", "?")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layer", "/data/doe/1"),
        ("layer", "C:\\doe"),
        ("layer", NAME),
        ("layer", "Doe, Jane"),
        ("layer", UID),
        ("layer", "1.2.840.10008.1.2.1"),
        ("layer", "12ab34cd"),
        ("layer", "jane_doe.dcm"),
        ("layer", "scan.nii.gz"),
        ("layer", "born 19600101"),
        ("layer", sha256(b"x").hexdigest()),
        ("layer", "x" * 81),
        ("layer", "two\nlines"),
        ("window", (7, 7)),
        ("scale", float("nan")),
        ("scale", -float("inf")),
        ("steps", 10**301),
        ("free text", "x"),
        ("1.2", "x"),
    ],
)
def test_what_could_name_a_patient_is_no_parameter(name: str, value: str) -> None:
    with pytest.raises(AuditError) as caught:
        Entry("create", parameters={name: value})
    if isinstance(value, str) and len(value) > 1:
        assert value not in str(caught.value)


@pytest.mark.parametrize("value", ["features.0.norm", "Pleural effusion", "#1: 7x7 (mm) 50%", "", True, -3, 1e-9, None])
def test_what_methods_declare_is_a_parameter(keyed: AuditLog, value: str, check: Check) -> None:
    assert keyed.record(Entry("create", parameters={"option": value})).parameters == {"option": value}
    assert check(keyed).ok


@pytest.mark.parametrize(
    "wrong",
    [
        {"event": "print"},
        {"purpose": "for Jane"},
        {"outcome": "well"},
        {"model_hash": "abc"},
        {"output_hash": "A" * 64},
        {"method": UID},
        {"method": "Grad CAM"},
        {"object_uids": (UID,) * (MAX_OBJECTS + 1)},
        {"parameters": {f"p{i}": i for i in range(MAX_PARAMETERS + 1)}},
    ],
)
def test_an_entry_of_another_form_is_refused(wrong: dict, full: Entry) -> None:
    with pytest.raises(AuditError):
        replace(full, **wrong)


def test_a_parameter_changed_after_the_check_is_not_written(keyed: AuditLog) -> None:
    mine = {"layer": "head"}
    entry = Entry("create", parameters=mine)
    mine["layer"] = NAME
    assert keyed.record(entry).parameters == {"layer": "head"}


def test_the_largest_entry_fits_a_line(keyed: AuditLog, full: Entry, check: Check) -> None:
    wide = {f"{'p' * 70}{i}": "\U0001d538" * 80 for i in range(MAX_PARAMETERS)}
    keyed.record(Entry("send", parameters=wide, object_uids=tuple(f"{UID}.{i}" for i in range(MAX_OBJECTS))))
    keyed.record(full)
    assert len(keyed.path.read_bytes().splitlines()[0]) < disk.MAX_LINE
    assert check(keyed).tail_proven


@pytest.mark.parametrize("who", ["Jane Doe", "DOE^JANE", "", "a/b"])
def test_an_actor_is_a_pseudonym(tmp_path: Path, who: str) -> None:
    with pytest.raises(AuditError, match="pseudonym"):
        AuditLog(tmp_path / "a", actor=who, role="reader")
