"""Our own storage provider against callers that mean no good, and connections that are encrypted."""

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE, build_context, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification

from pellucid.core.errors import ArchiveUnreachable, BadOption
from pellucid.pacs.dimse import DimseArchive
from pellucid.pacs.inbox import MISMATCH, Inbox
from pellucid.pacs.listening import handlers, listening
from pellucid.pacs.settings import Dimse, Limits, Listener, Pace, Tls

Make = Callable[..., Dataset]
KIND = SecondaryCaptureImageStorage


@pytest.fixture
def open_door(make: Make, tmp_path: Path) -> Iterator[tuple[int, Inbox]]:
    """Our listener with an inbox for one series, on a free port."""
    limits = Limits(object_mib=1)
    inbox = Inbox({str(make().SeriesInstanceUID): tmp_path / "in"}, limits)
    where = Listener("127.0.0.1", free_port())
    with listening(where, "PELLUCID", "ARCHIVE", [KIND], handlers(inbox.take, limits)) as port:
        yield port, inbox


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def call(port: int, title: str = "ARCHIVE", called: str = "PELLUCID", syntax: str = ExplicitVRLittleEndian) -> object:
    entity = AE(ae_title=title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 5
    watching = [(evt.EVT_CONN_OPEN, lambda event: DOORS.append(event.assoc.dul.socket.socket))]
    return entity.associate("127.0.0.1", port, [build_context(KIND, syntax)], called, evt_handlers=watching)


DOORS: list[socket.socket] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """pynetdicom leaves a connection open that the other side ended first."""
    yield
    while DOORS:
        DOORS.pop().close()


def store(
    link: object, data: Dataset, named: str | None = None, instead: tuple[bytes, bytes] = (b"Z", b"Z")
) -> int | None:
    """C-STORE as it stands, past the checks of pynetdicom's own client."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID = KIND
    request.AffectedSOPInstanceUID = named or data.SOPInstanceUID
    request.DataSet = BytesIO(encode(data, False, True).replace(*instead))
    link._reactor_checkpoint.clear()  # as its own client does, or another thread takes the answer
    while not link._is_paused:
        time.sleep(0.001)
    link.dimse.send_msg(request, link.accepted_contexts[0].context_id)
    _, answer = link.dimse.get_msg(block=True)
    link._reactor_checkpoint.set()
    return None if answer is None else answer.Status


def test_an_object_that_was_asked_for_is_taken(open_door: tuple[int, Inbox], make: Make, tmp_path: Path) -> None:
    port, inbox = open_door
    link = call(port)
    assert store(link, make()) == 0
    link.release()
    assert len(inbox.taken) == 1
    assert len(list((tmp_path / "in").iterdir())) == 1


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1." + "2" * 63, "1.2\0/../x"])
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_hostile_uid_is_refused(open_door: tuple[int, Inbox], make: Make, tmp_path: Path, uid: str) -> None:
    port, inbox = open_door
    data = make(SOPInstanceUID=uid.replace("\0", "Z"))
    link = call(port)
    assert store(link, data, str(make().SOPInstanceUID), (b"1.2Z/../x", b"1.2\0/../x")) == MISMATCH
    link.release()
    assert not inbox.taken
    assert inbox.refusals == 1
    assert list(tmp_path.iterdir()) == []


def test_an_object_under_another_name_is_refused(open_door: tuple[int, Inbox], make: Make, tmp_path: Path) -> None:
    link = call(open_door[0])
    assert store(link, make(1), str(make(2).SOPInstanceUID)) == MISMATCH
    link.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("title", "called"), [("OTHER", "PELLUCID"), ("ARCHIVE", "OTHER")])
def test_nobody_else_may_call(open_door: tuple[int, Inbox], title: str, called: str) -> None:
    link = call(open_door[0], title, called)
    assert link.is_rejected


def test_deflated_is_not_agreed_to(open_door: tuple[int, Inbox]) -> None:
    link = call(open_door[0], syntax=DeflatedExplicitVRLittleEndian)
    assert not link.accepted_contexts


def test_an_object_beyond_the_limit_is_cut_off(open_door: tuple[int, Inbox], make: Make, tmp_path: Path) -> None:
    port, inbox = open_door
    link = call(port)
    assert store(link, make(PixelData=bytes(8 * 2**20))) is None
    assert not inbox.taken
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_named(make: Make) -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        where = Listener("127.0.0.1", door.getsockname()[1])
        with pytest.raises(BadOption, match="nobody can listen"), listening(where, "US", "THEM", [KIND], []):
            pass


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """An archive that speaks TLS, and the file of its authority."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a key with")
    own, key = tmp_path / "own.pem", tmp_path / "own.key"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-addext",
             "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(own)]  # fmt: skip
    subprocess.run(words, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    entity = AE(ae_title="ARCHIVE")
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", 0), block=False, ssl_context=context)
    yield server.socket.getsockname()[1], own
    server.shutdown()


def test_tls_believes_only_its_authority(encrypted: tuple[int, Path], tmp_path: Path) -> None:
    port, own = encrypted
    pace = Pace(connect_s=2.0, answer_s=2.0)
    DimseArchive(Dimse("dimse", "127.0.0.1", port, "ARCHIVE", tls=Tls(ca=str(own)), pace=pace), "US").echo()
    for tls in (Tls(), None):
        with pytest.raises(ArchiveUnreachable):
            DimseArchive(Dimse("dimse", "127.0.0.1", port, "ARCHIVE", tls=tls, pace=pace), "US").echo()
    broken = Tls(ca=str(tmp_path / "absent.pem"))
    with pytest.raises(BadOption, match="tls"):
        DimseArchive(Dimse("dimse", "127.0.0.1", port, "ARCHIVE", tls=broken, pace=pace), "US").echo()
