"""A real archive for tests that run in a network namespace of their own: nothing else can reach it, nor it anything.

Orthanc 1.10.1 listens on all addresses whatever it is told, so its tests are never run beside a network. The files here
are not collected by name; ``run_alone`` of the folder above runs them.
"""

import fcntl
import importlib.util
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
import requests

TESTS = Path(__file__).resolve().parents[2]
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "anna", "hunter2"
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
START_S = 40


@pytest.fixture(scope="session", autouse=True)
def alone() -> None:
    """Refuse to run outside a namespace of our own, and bring up its loopback."""
    if os.environ.get("PELLUCID_ALONE") != "yes" or [name for _, name in socket.if_nameindex()] != ["lo"]:
        pytest.exit("these tests run in a network namespace of their own: start them through tests/integration", 3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        flags = struct.unpack("16sh", fcntl.ioctl(door, SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(door, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP))


def module(place: str) -> ModuleType:
    """A conftest of another folder of tests, for its phantoms."""
    spec = importlib.util.spec_from_file_location(place.replace("/", "_"), TESTS / place / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="session")
def other() -> Callable[[str], ModuleType]:
    return module


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@dataclass
class Orthanc:
    """One server with its own storage, which survives a restart.

    Args:
        folder: for its configuration and storage.
        dicom: port of DIMSE.
        web: port of HTTP.
        ours: port that it moves objects to.
    """

    folder: Path
    dicom: int = field(default_factory=free_port)
    web: int = field(default_factory=free_port)
    ours: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.web}/dicom-web"

    def start(self) -> None:
        settings = {
            "StorageDirectory": str(self.folder / "db"), "IndexDirectory": str(self.folder / "db"),
            "DicomPort": self.dicom, "DicomAet": "ORTHANC", "HttpPort": self.web, "RemoteAccessAllowed": True,
            "AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD}, "DicomCheckCalledAet": True,
            "DicomModalities": {"pellucid": ["PELLUCID", "127.0.0.1", self.ours]}, "OverwriteInstances": False,
            "UnknownSopClassAccepted": True, "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }  # fmt: skip
        (self.folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
        with (self.folder / "log.txt").open("ab") as log:
            command = ["Orthanc", str(self.folder / "orthanc.json")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                pytest.fail("Orthanc ended: " + (self.folder / "log.txt").read_text(errors="replace")[-2000:])
            try:
                if self.ask("system"):
                    return
            except requests.ConnectionError:
                time.sleep(0.1)
        pytest.fail(f"Orthanc does not answer after {START_S} s")

    def kill(self) -> None:
        """As a power cut would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)

    def ask(self, what: str) -> object:
        """Its own REST interface, which our code never uses: a second opinion on what it holds."""
        return requests.get(f"http://127.0.0.1:{self.web}/{what}", auth=(USER, PASSWORD), timeout=10).json()

    def put(self, content: bytes) -> None:
        """As a scanner would."""
        done = requests.post(f"http://127.0.0.1:{self.web}/instances", data=content, auth=(USER, PASSWORD), timeout=20)
        assert done.status_code == 200, done.text

    def settings(self, path: Path, **changes: str) -> Path:
        """Our file of settings with it as ``dimse``, ``moving``, ``web``, ``wrong-ae`` and ``wrong-login``."""
        dimse = f'kind = "dimse"\nhost = "127.0.0.1"\nport = {self.dicom}\n'
        pace = "pace = {connect_s = 5.0, answer_s = 20.0, attempts = 2, wait_s = 0.05, settle_s = 5.0}\n"
        web = f'kind = "web"\nurl = "{self.url}"\n'
        login = 'login = {user_variable = "PACS_USER", password_variable = "%s"}\n'
        tables = {
            "dimse": f'{dimse}ae = "ORTHANC"\n{pace}',
            "moving": f'{dimse}ae = "ORTHANC"\nretrieve = "move"\n{pace}',
            "wrong-ae": f'{dimse}ae = "NOBODY"\n{pace}',
            "web": web + login % "PACS_PASSWORD" + pace,
            "wrong-login": web + login % "PACS_USER" + pace,
        }
        text = "sending = true\n" + "".join(f"[archives.{name}]\n{table}" for name, table in tables.items())
        path.write_text(f"{text}[listener]\nport = {self.ours}\n", encoding="utf-8")
        return path


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    if shutil.which("Orthanc") is None or not PLUGIN.is_file():
        pytest.skip("no Orthanc with DICOMweb: run .ci/hospital")
    server = Orthanc(tmp_path_factory.mktemp("orthanc"))
    try:
        server.start()
        yield server
    finally:
        server.kill()
