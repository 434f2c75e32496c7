import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pellucid.audit import disk, log
from pellucid.audit.entry import Entry
from pellucid.audit.log import AuditLog, create_key
from pellucid.audit.record import Head, canonical, digest_of
from pellucid.audit.verdict import Verdict, verify
from pellucid.core.errors import AuditError

Fill = Callable[[AuditLog, int], list[bytes]]
Check = Callable[..., Verdict]


# The face of the package imports torch, which a writer does not need: a bare one makes the processes start at once.
WRITER = """
import resource, sys, types
from pathlib import Path
package, log, key, anchor, actor, count, room = sys.argv[1:]
sys.modules["pellucid"] = types.ModuleType("pellucid")
sys.modules["pellucid"].__path__ = [package]
from pellucid.audit.entry import Entry
from pellucid.audit.log import AuditLog
audit = AuditLog(Path(log), Path(key), Path(anchor), actor=actor, role="writer")
if room != "any":
    resource.setrlimit(resource.RLIMIT_FSIZE, (audit.path.stat().st_size + int(room),) * 2)
print("ready", flush=True)
for _ in range(int(count)):
    audit.record(Entry("view", method="GradCAM", subject="MRN0074411"))
"""


def start_writer(audit: AuditLog, actor: str, count: int, room: str = "any") -> subprocess.Popen[str]:
    package = Path(log.__file__).parents[1]
    files = (audit.path, audit.key_path, audit.anchor_path)
    arguments = [str(x) for x in (package, *files, actor, count, room)]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_and_two_threads_make_one_chain(keyed: AuditLog, check: Check) -> None:
    def append_many(actor: str) -> None:
        for _ in range(50):
            replace(keyed, actor=actor).record(Entry("view"))

    threads = [threading.Thread(target=append_many, args=(f"thread-{number}",)) for number in range(2)]
    with disk.locked(keyed.path):  # all four stand at the gate before it opens
        processes = [start_writer(keyed, f"process-{number}", 50) for number in range(2)]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join(60)
    assert [process.communicate(timeout=60) for process in processes] == [("", "")] * 2
    verdict = check(keyed)
    assert (verdict.tail_proven, verdict.count, verdict.clock_back) == (True, 200, 0)
    who = [json.loads(line)["actor"] for line in keyed.path.read_text().splitlines()]
    assert {actor: who.count(actor) for actor in who} == dict.fromkeys(
        ("process-0", "process-1", "thread-0", "thread-1"), 50
    )


def test_a_killed_writer_leaves_a_log_that_verifies(keyed: AuditLog, check: Check, full: Entry) -> None:
    writer = start_writer(keyed, "killed", 10**6)
    until = time.monotonic() + 60
    while time.monotonic() < until and not (keyed.path.exists() and keyed.path.stat().st_size > 20_000):
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=30)
    verdict = check(keyed)
    assert verdict.count >= 20
    assert verdict.ok
    assert verdict.after_anchor <= 1  # killed between the line and its anchor
    keyed.record(full)
    assert check(keyed).tail_proven


def test_a_full_disk_leaves_no_half_line(keyed: AuditLog, check: Check, fill: Fill) -> None:
    lines = fill(keyed, 2)
    # A real limit of the system, in a process of its own: the write stops in the middle of the line.
    told = start_writer(keyed, "full", 1, room="300").communicate(timeout=60)[1]
    assert f"{keyed.path} could not be written: No space left on device" in told
    assert keyed.path.read_bytes() == b"".join(lines)
    assert check(keyed).tail_proven


def test_a_torn_tail_is_named_refused_and_repaired_aloud(
    audit: AuditLog, fill: Fill, check: Check, full: Entry
) -> None:
    lines = fill(audit, 3)
    for torn in (lines[2][:-1], lines[2][:40], b"\xff"):
        audit.path.write_bytes(b"".join(lines) + torn)
        verdict = check(audit)
        assert (verdict.ok, verdict.problem.line, verdict.count) == (False, len(lines) + 1, len(lines))
        assert f"torn: {len(torn)} bytes" in verdict.words
        with pytest.raises(AuditError, match=rf"torn record of {len(torn)} bytes.*repair\(\)"):
            audit.record(full)
        assert audit.path.read_bytes() == b"".join(lines) + torn
        repair = audit.repair()
        assert (repair.event, repair.method, repair.outcome) == ("failure", "audit.repair", "minor_failure")
        assert repair.parameters == {"torn_bytes": len(torn), "anchor_lost": False}
        assert audit.path.with_name(f"audit.jsonl.torn-{repair.output_hash[:16]}").read_bytes() == torn
        lines = fill(audit, 1)
        assert check(audit).tail_proven
    with pytest.raises(AuditError, match="nothing to repair"):
        audit.repair()


def test_a_log_that_holds_only_a_torn_line_is_repaired(keyed: AuditLog, check: Check) -> None:
    keyed.path.write_bytes(b'{"actor"')
    assert keyed.repair().sequence == 1
    assert check(keyed).tail_proven


def test_an_anchored_record_that_was_torn_is_not_repaired_away(audit: AuditLog, fill: Fill) -> None:
    whole = b"".join(fill(audit, 3))
    audit.path.write_bytes(whole[:-1])
    with pytest.raises(AuditError, match="its tail was cut"):
        audit.repair()
    assert audit.path.read_bytes() == whole[:-1]


def test_an_append_does_not_hide_a_cut_tail(audit: AuditLog, fill: Fill, full: Entry) -> None:
    lines = fill(audit, 4)
    for left in (b"".join(lines[:2]), b""):
        audit.path.write_bytes(left)
        with pytest.raises(AuditError, match="the anchor names 4 records"):
            audit.record(full)
        assert audit.path.read_bytes() == left
        assert Head.read(audit.anchor_path).count == 4


def test_an_append_does_not_follow_a_changed_last_line(audit: AuditLog, fill: Fill, full: Entry) -> None:
    lines = fill(audit, 2)
    audit.path.write_bytes(lines[0] + lines[1].replace(b"GradCAM", b"GradCAT"))
    for anchored in (audit, replace(audit, anchor_path=None)):
        with pytest.raises(AuditError, match="does not fit its own digest"):
            anchored.record(full)
    assert len(audit.path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize("sequence", ["1", 1.0, True, None, -1])
def test_a_forged_number_is_an_error_with_a_mend(tmp_path: Path, make_log: Callable, fill: Fill, sequence: str) -> None:
    audit = make_log(tmp_path, keyed=False)
    body = json.loads(fill(audit, 1)[0]) | {"sequence": sequence}
    audit.path.write_bytes(canonical(body | {"digest": digest_of(body, None)}) + b"\n")
    assert not verify(audit.path).ok
    with pytest.raises(AuditError):
        replace(audit, anchor_path=None).record(Entry("view"))


def test_a_disk_that_cannot_sync_keeps_no_record(
    audit: AuditLog, fill: Fill, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = b"".join(fill(audit, 2))

    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(AuditError, match="Input/output error"):
        audit.record(Entry("view"))
    assert audit.path.read_bytes() == before
    assert check(audit).tail_proven


def test_a_lost_anchor_is_refused_and_its_loss_recorded(audit: AuditLog, fill: Fill, check: Check, full: Entry) -> None:
    fill(audit, 2)
    audit.anchor_path.unlink()
    with pytest.raises(AuditError, match=r"anchor is absent.*repair\(\)"):
        audit.record(full)
    assert audit.repair().parameters == {"torn_bytes": 0, "anchor_lost": True}
    assert check(audit).tail_proven


def test_a_record_whose_anchor_failed_is_in_the_log_and_anchored_later(
    keyed: AuditLog, check: Check, full: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed.record(full)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
        with pytest.raises(AuditError, match=r"record 2 could not be anchored.*Read-only"):
            keyed.record(full)
    assert (check(keyed).count, check(keyed).after_anchor) == (2, 1)
    keyed.record(full)
    assert check(keyed).tail_proven
    assert not list(keyed.path.parent.glob("*.tmp"))


def test_unwritable_places_are_named(tmp_path: Path, full: Entry) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(AuditError, match=r"file/audit\.jsonl could not be written: Not a directory"):
        AuditLog(tmp_path / "file" / "audit.jsonl", actor="a", role="b").record(full)
    with pytest.raises(AuditError, match=r"none/audit\.jsonl could not be written: No such file"):
        AuditLog(tmp_path / "none" / "audit.jsonl", actor="a", role="b").record(full)
    audit = AuditLog(tmp_path / "audit.jsonl", anchor_path=tmp_path / "none" / "head", actor="a", role="b")
    with pytest.raises(AuditError, match="could not be anchored"):
        audit.record(full)
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(AuditError, match="Permission denied"):
            AuditLog(tmp_path / "closed" / "audit.jsonl", actor="a", role="b").record(full)


def test_files_must_differ(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="different files"):
        AuditLog(tmp_path / "a", anchor_path=tmp_path / "x" / ".." / "a", actor="a", role="b")


def test_another_or_a_lost_salt_is_refused(keyed: AuditLog, fill: Fill, full: Entry) -> None:
    fill(keyed, 1)
    salt = keyed.salt_path.read_bytes()
    keyed.salt_path.write_bytes(salt[::-1])
    with pytest.raises(AuditError, match="one patient has two hashes"):
        keyed.record(full)
    keyed.salt_path.unlink()
    with pytest.raises(AuditError, match="salt could not be read"):
        keyed.record(full)
    assert not keyed.salt_path.exists()


def test_two_logs_of_a_site_share_one_salt(keyed: AuditLog, full: Entry, tmp_path: Path) -> None:
    other = replace(keyed, path=tmp_path / "other.jsonl", anchor_path=None)
    assert keyed.record(full).subject_hash == other.record(full).subject_hash


def test_a_clock_that_went_back_is_told_and_not_refused(
    keyed: AuditLog, fill: Fill, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(keyed, 2)
    monkeypatch.setattr(log, "utc_now", lambda: datetime(2020, 1, 1, tzinfo=UTC))
    fill(keyed, 2)
    verdict = check(keyed)
    assert (verdict.ok, verdict.tail_proven, verdict.clock_back) == (True, True, 1)
    assert verdict.words.endswith("the clock went back 1 time")


def test_a_record_is_synced_before_it_is_anchored(
    tmp_path: Path, make_log: Callable, full: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = make_log(tmp_path, keyed=True)
    seen: list[str] = []
    sync, move = os.fsync, Path.replace

    def fsync(fd: int) -> None:
        sync(fd)
        seen.append(f"sync {Path(f'/proc/self/fd/{fd}').readlink().name}")

    def rename(self: Path, to: Path) -> Path:
        seen.append(f"replace {to.name}")
        return move(self, to)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    anchored = [f"sync .head.json.{os.getpid()}.tmp", "replace head.json"]
    audit.record(full)
    salted = ["sync site.key.salt", f"sync {tmp_path.name}"]
    assert seen == [*salted, "sync audit.jsonl", f"sync {tmp_path.name}", *anchored]
    seen.clear()
    audit.record(full)
    assert seen == ["sync audit.jsonl", *anchored]


def test_files_are_for_their_owner(keyed: AuditLog, full: Entry) -> None:
    keyed.record(full)
    for path in (keyed.path, keyed.key_path, keyed.salt_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_thousand_appends_verify_in_the_memory_of_twenty(keyed: AuditLog, fill: Fill, check: Check) -> None:
    peaks = []
    for count in (20, 980):
        fill(keyed, count)
        tracemalloc.start()
        verdict = check(keyed)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (verdict.tail_proven, verdict.count) == (True, 1000)
    assert keyed.path.stat().st_size > 8 * peaks[1]
    assert peaks[1] < 1.5 * peaks[0] + 20_000


def test_a_line_without_end_is_read_in_bounded_memory(keyed: AuditLog, fill: Fill, check: Check, full: Entry) -> None:
    lines = fill(keyed, 1)
    keyed.path.write_bytes(lines[0] + b"x" * (40 * disk.MAX_LINE))
    tracemalloc.start()
    verdict = check(keyed)
    with pytest.raises(AuditError, match="torn"):
        keyed.record(full)
    with pytest.raises(AuditError, match="longer than any record"):
        keyed.repair()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "line 2 is longer than any record" in verdict.words
    assert peak < 8 * disk.MAX_LINE


def test_a_nested_or_foreign_line_is_a_verdict_not_an_exception(keyed: AuditLog, fill: Fill, check: Check) -> None:
    lines = fill(keyed, 1)
    digits = b'{"sequence":' + b"9" * 10_000 + b"}"
    for foreign in (
        b"[" * 100_000,
        b"",
        b"null",
        digits,
        b'{"a":NaN}',
        "é".encode(),
        b"\xff\xfe",
        lines[0][:-1] + b" ",
    ):
        keyed.path.write_bytes(lines[0] + foreign + b"\n")
        assert check(keyed).problem.line == 2, foreign[:20]


def test_verifying_needs_no_right_to_write(keyed: AuditLog, fill: Fill, check: Check) -> None:
    fill(keyed, 2)
    before = {path: path.stat().st_mtime_ns for path in keyed.path.parent.iterdir()}
    keyed.path.chmod(0o400)
    assert check(keyed).tail_proven
    assert {path: path.stat().st_mtime_ns for path in keyed.path.parent.iterdir()} == before


def test_a_key_is_random_and_long_enough(tmp_path: Path) -> None:
    for name in "ab":
        create_key(tmp_path / name)
    assert len((tmp_path / "a").read_bytes()) == disk.SECRET_BYTES
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_the_example_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(page.split("```python\n")[1].split("```")[0], {})
    assert capsys.readouterr().out == "records: 1, each fits the chain; tail proven by the anchor\n"
