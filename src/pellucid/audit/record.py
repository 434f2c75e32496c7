"""One line of the log, its digest, and the head of the chain."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, final

from pellucid.audit.disk import MAX_LINE, replace
from pellucid.audit.entry import DIGEST, Scalar
from pellucid.core.errors import AuditError

GENESIS = "0" * 64


@final
@dataclass(frozen=True)
class Record:
    """One line of the log: the fields of ``Entry``, keyed where they could name a patient, and the links of the chain.

    Args:
        format: version of this list of fields, 1.
        sequence: number of the line, from 1.
        time, clock: UTC in ISO 8601 with microseconds; where the time came from.
        actor, role: who, by a pseudonym, and as what.
        purpose, event, outcome: as in ``Entry``.
        model_hash, config_hash, output_hash, method, parameters: as in ``Entry``.
        software: name and version of this package.
        subject_hash, input_hash, object_hashes: HMAC-SHA256 under the site's salt.
        salt_id, key_id: short names of the salt and of the key; None without a key.
        previous, digest: digest of the record before, all zero for the first; own digest.
    """

    format: int
    sequence: int
    time: str
    clock: str
    actor: str
    role: str
    purpose: str
    event: str
    outcome: str
    model_hash: str | None
    config_hash: str | None
    output_hash: str | None
    software: str
    method: str | None
    parameters: Mapping[str, Scalar]
    subject_hash: str | None
    input_hash: str | None
    object_hashes: tuple[str, ...]
    salt_id: str
    key_id: str | None
    previous: str
    digest: str

    def line(self) -> bytes:
        """The record as it stands in the log."""
        return canonical(vars(self)) + b"\n"


_FIELDS = frozenset(item.name for item in fields(Record))


def canonical(body: Mapping[str, Any]) -> bytes:
    """The one spelling of a JSON object: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def digest_of(body: Mapping[str, Any], key: bytes | None) -> str:
    """HMAC-SHA256 under the key, or sha256 without one, over the canonical record without its own digest."""
    data = canonical({name: value for name, value in body.items() if name != "digest"})
    return hashlib.sha256(data).hexdigest() if key is None else hmac.digest(key, data, "sha256").hex()


def keyed(salt: bytes, kind: str, text: str | None) -> str | None:
    """HMAC-SHA256 of an identifier under the site's salt, apart for each kind of identifier; None stays None."""
    if text is None:
        return None
    data = f"pellucid.{kind}\0{text}".encode("utf-8", "surrogatepass")  # a damaged DICOM text has lone surrogates
    return hmac.digest(salt, data, "sha256").hex()


def name_of(secret: bytes) -> str:
    """A short name by which a key or salt is known without being told."""
    return hmac.digest(secret, b"pellucid.name", "sha256").hex()[:16]


def read_line(line: bytes, key: bytes | None) -> tuple[dict[str, Any], str]:
    """The record in a line and an empty text, or an empty record and what is wrong with the line by itself."""
    if not line.endswith(b"\n"):
        torn = f"is torn: {len(line)} bytes without a line end"
        return {}, torn if len(line) < MAX_LINE else "is longer than any record"
    try:
        body = json.loads(line.decode("ascii"))
        whole = isinstance(body, dict) and canonical(body) + b"\n" == line
    except (ValueError, RecursionError):
        body, whole = {}, False
    if not whole or body.keys() != _FIELDS or type(body["sequence"]) is not int:
        return {}, "is not a record as Pellucid writes it: it was changed"
    if body["key_id"] is None and key is not None:
        return {}, "was written without a key, and a key was given"
    if body["key_id"] is not None and key is None:
        return {}, "was written with a key, and none was given"
    if key is not None and body["key_id"] != name_of(key):
        return {}, "names another key than the one given: wrong key, or the line was changed"
    if body["digest"] != digest_of(body, key):
        return {}, "does not fit its own digest: it was changed"
    return body, ""


@final
@dataclass(frozen=True)
class Head:
    """How many records a log held and the digest of the last: what a cut tail is measured against.

    Args:
        count: number of records, 0 or more.
        digest: digest of the last one, 64 hex digits; all zero for an empty log.
    """

    count: int
    digest: str

    def __post_init__(self) -> None:
        # A head comes from a file or a reader's hand, so the types are looked at too.
        typed = type(self.count) is int and type(self.digest) is str and DIGEST.fullmatch(self.digest)
        if not typed or self.count < 0 or (self.count == 0) != (self.digest == GENESIS):
            mend = "Give the head as it was kept"
            raise AuditError("a head is a number of records and the 64 hex digits of the last one", mend)

    @classmethod
    def read(cls, path: Path) -> "Head":
        """Read the head that an ``AuditLog`` keeps; AuditError where the file is absent or malformed."""
        try:
            body = json.loads(path.read_text(encoding="ascii"))
            count, digest = body["count"], body["digest"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            mend = "Restore the file from where its copies are kept, or verify without an anchor"
            raise AuditError(f"no head (count and digest) in {path}: {type(error).__name__}", mend) from error
        return cls(count, digest)

    def write(self, path: Path) -> None:
        """Replace the file at ``path`` in one step, so that a reader sees the old head or this one."""
        try:
            replace(path, canonical(vars(self)) + b"\n")
        except OSError as error:
            mend = "Make its folder writable; the record itself is in the log, and the next append anchors it too"
            raise AuditError(f"record {self.count} could not be anchored in {path}: {error.strerror}", mend) from error
