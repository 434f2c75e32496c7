"""Appending to the log."""

import hashlib
import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from pellucid.audit.disk import append, fill, last_line, lines, locked, replace, secret, sync_folder
from pellucid.audit.entry import TOKEN, Entry, check_form
from pellucid.audit.record import GENESIS, Head, Record, digest_of, keyed, name_of, read_line
from pellucid.audit.verdict import walk
from pellucid.core.errors import AuditError

_COPIED = ("purpose", "event", "outcome", "model_hash", "config_hash", "output_hash", "method")
_EVIDENCE = "Keep the log and its anchor as evidence, find out who wrote to them, and start another log"


@final
@dataclass(frozen=True)
class AuditLog:
    """The log that one actor appends to; several processes and threads may do so at once.

    Args:
        path: the log, made on first use in a folder that exists. The other files lie outside it.
        key_path: file of at least 32 bytes that keys the chain (see ``create_key``); None: plain sha256.
        anchor_path: file that keeps the ``Head``, best on another medium; None: a cut tail will not show.
        salt: file with the site's salt, made on first use with mode 0600; None: beside the key, else beside the log.
        actor, role, clock: pseudonym or AE title, role, and source of the time; letters, digits and _.:- only.

    Raises:
        AuditError: an actor, role or clock of another form, or one file given twice.
    """

    path: Path
    key_path: Path | None = None
    anchor_path: Path | None = None
    salt: Path | None = None
    actor: str = field(kw_only=True)
    role: str = field(kw_only=True)
    clock: str = field(default="system", kw_only=True)

    def __post_init__(self) -> None:
        for name, value in (("actor", self.actor), ("role", self.role), ("clock", self.clock)):
            check_form(name, value, TOKEN, "a pseudonym of 1 to 80 letters, digits and _.:-")
        given = [path.resolve() for path in (self.path, self.key_path, self.anchor_path, self.salt_path) if path]
        if len(set(given)) < len(given):
            raise AuditError("the log, its key, salt and anchor must be different files", "Give each a path of its own")

    @property
    def salt_path(self) -> Path:
        """Where the site's salt lies."""
        beside = self.key_path or self.path
        return self.salt or beside.with_name(f"{beside.name}.salt")

    def record(self, entry: Entry) -> Record:
        """Append one record, on the disk when this returns, and anchor it.

        Raises:
            AuditError: the log, key, salt or anchor cannot be used, or the log does not end as the anchor says.
        """
        key = self._key()
        with locked(self.path) as fd:
            end = os.fstat(fd).st_size
            last = self._last(fd, end, key)
            self._require_anchor(last, end, key)
            return self._append(fd, entry, last, key)

    def repair(self) -> Record:
        """Move a torn last line aside, or accept that the anchor is lost, and record that this was done.

        The torn bytes are kept beside the log (``NAME.torn-DIGEST``); their sha256 is the ``output_hash`` of a
        ``failure`` event. Records that the anchor names must all be whole: a log that was cut or changed is refused.

        Raises:
            AuditError: nothing to repair, or the log does not verify up to the torn line.
        """
        key = self._key()
        with locked(self.path) as fd:
            size = os.fstat(fd).st_size
            torn = _torn(fd, size)
            end = size - len(torn)
            lost = self.anchor_path is not None and not self.anchor_path.exists() and end > 0
            if not torn and not lost:
                raise AuditError(f"nothing to repair in {self.path}", "Append with record()")
            head = Head.read(self.anchor_path) if self.anchor_path and self.anchor_path.exists() else None
            self._require_whole(end, head, key)
            digest = hashlib.sha256(torn).hexdigest()
            if torn:
                replace(self.path.with_name(f"{self.path.name}.torn-{digest[:16]}"), torn)
                os.ftruncate(fd, end)
            entry = Entry(
                "failure",
                purpose="operations",
                outcome="minor_failure",
                output_hash=digest,
                method="audit.repair",
                parameters={"torn_bytes": len(torn), "anchor_lost": lost},
            )
            return self._append(fd, entry, self._last(fd, end, key), key)

    def _key(self) -> bytes | None:
        return secret(self.key_path) if self.key_path else None

    def _last(self, fd: int, end: int, key: bytes | None) -> Mapping[str, Any]:
        if torn := _torn(fd, end):
            mend = "Call AuditLog.repair(), which keeps these bytes aside and records that it did"
            raise AuditError(f"{self.path} ends in a torn record of {len(torn)} bytes", mend)
        if end == 0:
            return {}
        last, why = read_line(last_line(fd, end), key)
        if why:
            raise AuditError(f"the last line of {self.path} {why}", f"Give the key of this log. {_EVIDENCE}")
        return last

    def _require_anchor(self, last: Mapping[str, Any], end: int, key: bytes | None) -> None:
        # Without this an append would anchor a log whose tail was cut, and so hide the cut.
        if self.anchor_path is None:
            return
        if self.anchor_path.exists():
            head = Head.read(self.anchor_path)
            if head != _head(last):
                self._require_whole(end, head, key)
        elif last:
            mend = "Restore the anchor, or call AuditLog.repair(), which records that it was lost"
            raise AuditError(f"{self.path} has {last['sequence']} records, and its anchor is absent", mend)

    def _require_whole(self, end: int, head: Head | None, key: bytes | None) -> None:
        verdict = walk(lines(self.path, end), head, key)
        if not verdict.ok:
            raise AuditError(f"{self.path}: {verdict.words}", _EVIDENCE)

    def _append(self, fd: int, entry: Entry, last: Mapping[str, Any], key: bytes | None) -> Record:
        record = self._compose(entry, _head(last), self._salt(last), key)
        append(fd, record.line())
        if not last:
            sync_folder(self.path)
        if self.anchor_path:
            Head(record.sequence, record.digest).write(self.anchor_path)
        return record

    def _salt(self, last: Mapping[str, Any]) -> bytes:
        if not last:
            fill(self.salt_path)
        salt = secret(self.salt_path)
        if last and last["salt_id"] != name_of(salt):
            mend = "Restore the salt file, or start another log: under two salts one patient has two hashes"
            raise AuditError(f"the salt in {self.salt_path} is not the one that {self.path} was written with", mend)
        return salt

    def _compose(self, entry: Entry, tail: Head, salt: bytes, key: bytes | None) -> Record:
        body: dict[str, Any] = {
            "format": 1,
            "sequence": tail.count + 1,
            "time": utc_now().isoformat(timespec="microseconds"),
            "clock": self.clock,
            "actor": self.actor,
            "role": self.role,
            **{name: getattr(entry, name) for name in _COPIED},
            "software": f"pellucid {_version()}",
            "parameters": dict(entry.parameters),
            "subject_hash": keyed(salt, "subject", entry.subject),
            "input_hash": keyed(salt, "input", entry.input_digest),
            "object_hashes": tuple(keyed(salt, "object", uid) for uid in entry.object_uids),
            "salt_id": name_of(salt),
            "key_id": name_of(key) if key else None,
            "previous": tail.digest,
        }
        return Record(**body, digest=digest_of(body, key))


def create_key(path: Path) -> None:
    """Make a key file of 32 random bytes with mode 0600; AuditError where the file exists or cannot be made."""
    if path.exists():
        raise AuditError(f"{path} exists", "Give a new name: a log is verified with the key that it was written with")
    fill(path)


def utc_now() -> datetime:
    """The time of a record, read under the lock so that it follows the order of the log."""
    return datetime.now(UTC)


def _version() -> str:
    return importlib.metadata.version("pellucid")


def _head(last: Mapping[str, Any]) -> Head:
    return Head(last["sequence"], last["digest"]) if last else Head(0, GENESIS)


def _torn(fd: int, end: int) -> bytes:
    line = last_line(fd, end)
    return b"" if line.endswith(b"\n") else line
