import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from pellucid.audit.entry import Entry
from pellucid.audit.log import AuditLog, create_key
from pellucid.audit.verdict import Verdict, verify


@pytest.fixture(autouse=True)
def no_wait_for_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    # That records are synced is tested once, by name; elsewhere it is only time.
    if "synced" not in request.node.name:
        monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def full() -> Entry:
    return Entry(
        "create",
        purpose="test",
        model_hash=sha256(b"weights").hexdigest(),
        config_hash=sha256(b"config").hexdigest(),
        output_hash=sha256(b"map").hexdigest(),
        method="GradCAM",
        parameters={"layer": "features.denseblock4", "steps": 32, "scale": 0.25, "absolute": False, "label": None},
        subject="MRN0074411",
        input_digest=sha256(b"voxels").hexdigest(),
        object_uids=("1.2.826.0.1.3680043.8.498.4711", "1.2.826.0.1.3680043.8.498.4712"),
    )


@pytest.fixture(scope="session")
def make_log() -> Callable[..., AuditLog]:
    def make(folder: Path, *, keyed: bool) -> AuditLog:
        key = folder / "site.key" if keyed else None
        if key and not key.exists():
            create_key(key)
        return AuditLog(folder / "audit.jsonl", key, folder / "head.json", actor="reader-07", role="radiologist")

    return make


@pytest.fixture(params=["keyed", "plain"])
def audit(request: pytest.FixtureRequest, tmp_path: Path, make_log: Callable[..., AuditLog]) -> AuditLog:
    return make_log(tmp_path, keyed=request.param == "keyed")


@pytest.fixture
def keyed(tmp_path: Path, make_log: Callable[..., AuditLog]) -> AuditLog:
    return make_log(tmp_path, keyed=True)


@pytest.fixture(scope="session")
def check() -> Callable[..., Verdict]:
    def run(audit: AuditLog, *, anchor: bool = True) -> Verdict:
        return verify(audit.path, audit.anchor_path if anchor else None, audit.key_path)

    return run


@pytest.fixture(scope="session")
def fill(full: Entry) -> Callable[[AuditLog, int], list[bytes]]:
    def run(audit: AuditLog, count: int) -> list[bytes]:
        for _ in range(count):
            audit.record(full)
        return audit.path.read_bytes().splitlines(keepends=True)

    return run
