import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.audit.disk import SECRET_BYTES
from pellucid.audit.entry import Entry
from pellucid.audit.log import AuditLog, create_key
from pellucid.audit.record import Head, canonical, digest_of
from pellucid.audit.verdict import Verdict, verify
from pellucid.core.errors import AuditError

Make = Callable[..., AuditLog]
Fill = Callable[[AuditLog, int], list[bytes]]
Check = Callable[..., Verdict]


def flips(line: bytes) -> Iterator[tuple[str, bytes]]:
    """Each field of a line with one byte of its value changed, the line otherwise as it was."""
    body = json.loads(line)
    for name, value in body.items():
        text = canonical({name: value})[1:-1]
        at = line.index(text) + len(text) - 2
        yield name, line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]


def test_a_changed_byte_in_any_field_names_its_line(audit: AuditLog, check: Check, fill: Fill) -> None:
    lines = fill(audit, 4)
    seen = set()
    for name, changed in flips(lines[1]):
        audit.path.write_bytes(b"".join([lines[0], changed, *lines[2:]]))
        for anchor in (True, False):
            verdict = check(audit, anchor=anchor)
            assert not verdict.ok
            assert not verdict.tail_proven
            assert verdict.problem is not None
            assert (verdict.problem.line, verdict.count) == (2, 1), name
        seen.add(name)
    assert len(seen) == 22


def test_any_byte_of_a_log_changed_is_detected(audit: AuditLog, check: Check, fill: Fill) -> None:
    audit.record(Entry("view"))
    audit.record(Entry("export", parameters={"steps": 3}))
    whole = audit.path.read_bytes()
    for at in range(len(whole)):
        audit.path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert not check(audit, anchor=False).ok, at
    audit.path.write_bytes(whole)
    assert check(audit).tail_proven


TEXT = st.text(max_size=40)
ENTRIES = st.builds(
    Entry,
    st.sampled_from(["create", "view", "failed_access"]),
    parameters=st.dictionaries(
        st.sampled_from(["layer", "steps", "scale"]),
        st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(-1e9, 1e9) | st.just("features.3"),
    ),
    subject=st.none() | TEXT,
    input_digest=st.none() | TEXT,
    object_uids=st.lists(TEXT, max_size=3).map(tuple),
)


@settings(max_examples=80, deadline=None)
@given(entries=st.lists(ENTRIES, min_size=1, max_size=4), keyed=st.booleans(), data=st.data())
def test_any_single_byte_of_a_random_log(
    entries: list[Entry],
    keyed: bool,
    data: st.DataObject,
    make_log: Make,
    check: Check,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        audit = make_log(Path(folder), keyed=keyed)
        for entry in entries:
            audit.record(entry)
        assert check(audit).tail_proven
        whole = audit.path.read_bytes()
        at = data.draw(st.integers(0, len(whole) - 1))
        byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
        audit.path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
        assert not check(audit, anchor=False).ok
        assert check(audit, anchor=False).problem.line == whole.count(b"\n", 0, at) + 1


def resealed(lines: list[bytes], number: int, key: bytes | None = None, **changes: object) -> bytes:
    """A line with other content and a digest that fits it: what can be made by someone without the site's key."""
    body = json.loads(lines[number]) | changes
    return canonical(body | {"digest": digest_of(body, key)}) + b"\n"


def test_a_line_spelled_otherwise_is_a_change(audit: AuditLog, fill: Fill) -> None:
    (line,) = fill(audit, 1)
    for other in (
        line.replace(b'"scale":0.25', b'"scale":0.250'),
        line.replace(b'{"actor":', b'{"actor":"ghost","actor":'),
        line.replace(b'"steps":32', b'"steps": 32'),
        line[:-1] + b" \n",
        line.replace(b"GradCAM", b"Gr\\u0061dCAM"),
    ):
        assert json.loads(other) == json.loads(line)
        audit.path.write_bytes(other)
        assert verify(audit.path, key=audit.key_path).problem.line == 1


@pytest.mark.parametrize(
    ("order", "line", "why"),
    [
        ([0, 1, 1, 2, 3, 4], 3, "removed, repeated or moved"),
        ([0, 1, 3, 4], 3, "removed, repeated or moved"),
        ([1, 2, 3, 4], 1, "removed, repeated or moved"),
        ([0, 2, 1, 3, 4], 2, "removed, repeated or moved"),
        ([0, 1, 2], 4, "its tail was cut"),
        ([], 1, "its tail was cut"),
    ],
)
def test_an_inserted_removed_or_moved_line(
    audit: AuditLog,
    order: list[int],
    line: int,
    why: str,
    check: Check,
    fill: Fill,
) -> None:
    lines = fill(audit, 5)
    audit.path.write_bytes(b"".join(lines[number] for number in order))
    verdict = check(audit)
    assert not verdict.ok
    assert verdict.problem.line == line
    assert why in verdict.problem.why
    assert verdict.words == f"line {line} {verdict.problem.why}; {line - 1} before it fit"


def test_a_forged_line_fits_neither_a_plain_chain_nor_a_keyed_one(audit: AuditLog, check: Check, fill: Fill) -> None:
    lines = fill(audit, 3)
    audit.path.write_bytes(lines[0] + resealed(lines, 1, key_id=None, outcome="major_failure") + lines[2])
    problem = check(audit, anchor=False).problem
    assert (problem.line, "without a key" in problem.why) == ((2, True) if audit.key_path else (3, False))


@pytest.mark.parametrize("key", [None, b"k" * 32])
def test_a_forger_who_copies_the_name_of_the_key_lacks_the_key(keyed: AuditLog, fill: Fill, key: bytes | None) -> None:
    lines = fill(keyed, 1)
    keyed.path.write_bytes(resealed(lines, 0, key, outcome="major_failure"))
    assert "does not fit its own digest" in verify(keyed.path, key=keyed.key_path).words
    mine = keyed.key_path.read_bytes()
    keyed.path.write_bytes(resealed(lines, 0, mine, outcome="major_failure"))
    assert verify(keyed.path, key=keyed.key_path).ok  # the key, and nothing else, makes the difference


def test_a_chain_made_anew_shows_only_with_a_key_or_an_anchor(audit: AuditLog, check: Check, fill: Fill) -> None:
    lines = fill(audit, 2)
    first = resealed(lines, 0, key_id=None, actor="another")
    second = resealed(lines, 1, key_id=None, previous=json.loads(first)["digest"])
    audit.path.write_bytes(first + second)
    assert check(audit, anchor=False).ok == (audit.key_path is None)
    if audit.key_path is None:
        assert "could have written another chain" in check(audit, anchor=False).words
        assert check(audit).problem.line == 2
        assert "anchor was replaced" in check(audit).words


def test_a_cut_tail_is_not_provable_without_an_anchor(audit: AuditLog, check: Check, fill: Fill) -> None:
    lines = fill(audit, 3)
    audit.path.write_bytes(b"".join(lines[:2]))
    verdict = check(audit, anchor=False)
    assert verdict.ok
    assert not verdict.tail_proven
    assert "tail not provable: no anchor was given" in verdict.words
    assert not check(audit).ok
    audit.path.unlink()
    assert check(audit).problem.line == 1
    with pytest.raises(AuditError, match="could not be read"):
        check(audit, anchor=False)


def test_an_older_anchor_proves_the_prefix_and_counts_the_rest(audit: AuditLog, check: Check, fill: Fill) -> None:
    fill(audit, 3)
    older = Head.read(audit.anchor_path)
    lines = fill(audit, 2)
    verdict = verify(audit.path, older, audit.key_path)
    assert (verdict.ok, verdict.tail_proven, verdict.count, verdict.after_anchor) == (True, False, 5, 2)
    assert "proven to record 3, 2 after it, tail not provable" in verdict.words
    Head(4, json.loads(lines[2])["digest"]).write(audit.anchor_path)
    assert check(audit).problem.line == 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"count":1}',
        '{"count":1,"digest":"00"}',
        '{"count":true,"digest":"' + "1" * 64 + '"}',
        '{"count":1,"digest":7}',
        '{"count":-1,"digest":"' + "1" * 64 + '"}',
    ],
)
def test_an_anchor_that_is_none_is_an_error_not_a_verdict(
    audit: AuditLog, text: str, full: Entry, check: Check, fill: Fill
) -> None:
    fill(audit, 1)
    audit.anchor_path.write_text(text)
    with pytest.raises(AuditError):
        check(audit)
    with pytest.raises(AuditError):
        audit.record(full)


def test_wrong_missing_and_short_keys(keyed: AuditLog, tmp_path: Path, full: Entry, fill: Fill) -> None:
    fill(keyed, 2)
    create_key(tmp_path / "other.key")
    assert "wrong key" in verify(keyed.path, key=tmp_path / "other.key").words
    assert "none was given" in verify(keyed.path).words
    (tmp_path / "short").write_bytes(b"x" * (SECRET_BYTES - 1))
    for path, words in ((tmp_path / "short", "at least 32 bytes, not 31"), (tmp_path / "none", "could not be read")):
        with pytest.raises(AuditError, match=f"{words}.*create_key"):
            verify(keyed.path, key=path)
    with pytest.raises(AuditError, match="another key"):
        replace(keyed, key_path=tmp_path / "other.key", salt=keyed.salt_path).record(full)
    with pytest.raises(AuditError, match="exists"):
        create_key(keyed.key_path)
