"""Whether a log is as it was written."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from pellucid.audit.disk import lines, locked, secret
from pellucid.audit.record import GENESIS, Head, read_line


@final
@dataclass(frozen=True)
class Problem:
    """The first line that does not fit, counted from 1, and why."""

    line: int
    why: str


@final
@dataclass(frozen=True)
class Verdict:
    """What ``verify`` found.

    Args:
        ok: every line fits the chain, and the anchor where one was given.
        tail_proven: ok, and the anchor names the very last record.
        count: records that fit, up to the first problem.
        after_anchor: records that came after the one that the anchor names; 0 without an anchor.
        clock_back: records whose time is earlier than that of the record before.
        keyed: a key was given: only who holds it could have made the chain.
        problem: the first line that does not fit, or None.
        words: one line for a reader.
    """

    ok: bool
    tail_proven: bool
    count: int
    after_anchor: int
    clock_back: int
    keyed: bool
    problem: Problem | None
    words: str


def verify(path: Path, anchor: Path | Head | None = None, key: Path | None = None) -> Verdict:
    """Say whether a log shows any change, insertion, removal, new order or cut tail.

    Reads one line at a time, so that the length of the log does not matter. Without a key, who can write the log can
    also write another chain; without an anchor out of that person's reach, a cut tail does not show.

    Args:
        path: the log.
        anchor: the file in which an ``AuditLog`` keeps the head, or the head itself.
        key: the key file, where the log was written with one.

    Raises:
        AuditError: the log, the anchor or the key cannot be read.
    """
    key_bytes = secret(key) if key else None
    if anchor is not None and not path.exists():
        return walk((), _head(anchor), key_bytes)
    with locked(path, shared=True) as fd:
        # Read together under the lock: an append between the two would look like a record after the anchor.
        head, end = _head(anchor), os.fstat(fd).st_size
    return walk(lines(path, end), head, key_bytes)


def _head(anchor: Path | Head | None) -> Head | None:
    return Head.read(anchor) if isinstance(anchor, Path) else anchor


def walk(source: Iterable[bytes], head: Head | None, key: bytes | None) -> Verdict:
    """Follow the chain through lines as they stand in the file, to the first that does not fit."""
    previous, count, time, clock_back = GENESIS, 0, "", 0
    for line in source:
        body, why = read_line(line, key)
        why = why or _misfit(body, count + 1, previous, head)
        if why:
            return _failure(Problem(count + 1, why), clock_back, keyed=key is not None)
        clock_back += str(body["time"]) < time
        previous, count, time = body["digest"], count + 1, str(body["time"])
    if head is not None and head.count > count:
        why = f"is missing: the anchor names {head.count} records, and the log ends after {count}: its tail was cut"
        return _failure(Problem(count + 1, why), clock_back, keyed=key is not None)
    return _success(count, head, clock_back, keyed=key is not None)


def _misfit(body: dict[str, Any], number: int, previous: str, head: Head | None) -> str:
    if body["sequence"] != number:
        return f"is record {body['sequence']} where {number} belongs: records were removed, repeated or moved"
    if body["previous"] != previous:
        return "does not follow the record before it: a record was inserted or replaced"
    if head is not None and head.count == number and head.digest != body["digest"]:
        return "is not the record that the anchor names: the log was written anew, or the anchor was replaced"
    return ""


def _failure(problem: Problem, clock_back: int, *, keyed: bool) -> Verdict:
    fit = problem.line - 1
    words = f"line {problem.line} {problem.why}; {fit} before it fit"
    return Verdict(False, False, fit, 0, clock_back, keyed, problem, words)


def _success(count: int, head: Head | None, clock_back: int, *, keyed: bool) -> Verdict:
    after = 0 if head is None else count - head.count
    proven = head is not None and after == 0
    words = [f"records: {count}, each fits the chain"]
    if head is None:
        words.append("tail not provable: no anchor was given")
    elif proven:
        words.append("tail proven by the anchor")
    else:
        words.append(f"anchor older than the log: proven to record {head.count}, {after} after it, tail not provable")
    if not keyed:
        words.append("no key: who can write the log could have written another chain")
    if clock_back:
        words.append(f"the clock went back {clock_back} time{'s' * (clock_back > 1)}")
    return Verdict(True, proven, count, after, clock_back, keyed, None, "; ".join(words))
