"""Sending over DICOMweb to a server that fails in part, is busy, or does not let us in."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pellucid.core.errors import ArchiveError, ArchiveRefused, ArchiveUnreachable, BadOption
from pellucid.pacs.inbox import Inbox
from pellucid.pacs.outbox import Outbox
from pellucid.pacs.parcel import Parcel
from pellucid.pacs.query import Match, Query
from pellucid.pacs.sending import Delivery
from pellucid.pacs.settings import Limits, Login, Pace, Web
from pellucid.pacs.web import WebArchive

FAST = Pace(connect_s=1.0, answer_s=0.5, attempts=3, wait_s=0.01, longest_wait_s=0.02, settle_s=0.2)


@dataclass
class Server:
    """A DICOMweb server that keeps files in memory.

    Args:
        codes: HTTP codes for the next requests; 0: it behaves.
        fail: FailureReason by SOP instance UID.
        most: bytes of a request that it takes.
        login: what the Authorization header must be.
        lose: it accepts and keeps nothing.
        headers: added to each answer.
    """

    codes: list[int] = field(default_factory=list)
    fail: dict[str, int] = field(default_factory=dict)
    most: int = 10**9
    login: str | None = None
    lose: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    held: dict[str, bytes] = field(default_factory=dict)
    posts: list[int] = field(default_factory=list)
    asked: int = 0

    def post(self, body: bytes) -> tuple[int, bytes]:
        self.posts.append(len(body))
        if len(body) > self.most:
            return 413, b""
        kept, failed = [], []
        for part in body.split(b"\r\n--0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1")[1:-1]:
            content = part.split(b"\r\n\r\n", 1)[1]
            data = dcmread(BytesIO(content))
            item = {"00081155": {"vr": "UI", "Value": [str(data.SOPInstanceUID)]}}
            if reason := self.fail.get(str(data.SOPInstanceUID)):
                failed.append({**item, "00081197": {"vr": "US", "Value": [reason]}})
                continue
            kept.append(item)
            if not self.lose:
                self.held.setdefault(str(data.SOPInstanceUID), content)
        told = {"00081199": {"vr": "SQ", "Value": kept}} if kept else {}
        told |= {"00081198": {"vr": "SQ", "Value": failed}} if failed else {}
        return (409 if not kept else 202 if failed else 200), json.dumps(told).encode()

    def get(self, path: str, keys: dict[str, list[str]]) -> tuple[int, bytes, str]:
        if match := re.search(r"/instances/([0-9.]+)$", path):
            if match[1] not in self.held:
                return 404, b"", "text/plain"
            body = b"--xx\r\nContent-Type: application/dicom\r\n\r\n" + self.held[match[1]] + b"\r\n--xx--"
            return 200, body, 'multipart/related; type="application/dicom"; boundary=xx'
        found: dict[str, dict[str, object]] = {}
        for content in self.held.values():
            data = dcmread(BytesIO(content), stop_before_pixels=True)
            series = re.search(r"/series/([0-9.]+)", path)
            wanted = {k: v[0] for k, v in keys.items() if k in ("SOPInstanceUID", "PatientID")}
            if series and series[1] != data.SeriesInstanceUID:
                continue
            if any(str(data[k].value) != v for k, v in wanted.items()):
                continue
            told = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality", "SeriesNumber")
            key = str(data.SOPInstanceUID if path.endswith("instances") else data.SeriesInstanceUID)
            found[key] = json.loads(Dataset({data[k].tag: data[k] for k in told}).to_json())
        start = int(keys.get("offset", ["0"])[0])
        return 200, json.dumps(list(found.values())[start:]).encode(), "application/dicom+json"


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            whole = b""
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole

        def reply(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **server.headers}.items():
                self.send_header(key, value)
            if code == 302:
                self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()
            self.wfile.write(body)

        def do(self, act: Callable[[bytes], tuple[int, bytes, str]]) -> None:
            body = self.body()
            server.asked += 1
            if server.login is not None and self.headers.get("Authorization") != server.login:
                self.reply(401, b"", "text/plain")
            elif server.codes and (code := server.codes.pop(0)):
                self.reply(code, b"", "text/plain")
            else:
                self.reply(*act(body))

        def do_POST(self) -> None:
            self.do(lambda body: (*server.post(body), "application/dicom+json"))

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self.do(lambda _: server.get(parts.path, parse_qs(parts.query)))

    return Handler


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that leaves is no error of the test."""


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[Server, WebArchive]]]:
    running = []

    def start(pace: Pace = FAST, limits: Limits | None = None, ours: Login | None = None, **mood: object) -> tuple:
        server = Server(**mood)
        http = Quiet(("127.0.0.1", 0), handler(server))
        running.append(http)
        Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{http.server_address[1]}/dicom-web"
        return server, WebArchive(Web("web", url, ours, pace=pace), limits or Limits())

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


Start = Callable[..., tuple[Server, WebArchive]]


def send(archive: WebArchive, parcels: list[Parcel], outbox: Outbox, compare: bool = False) -> list[str]:
    return [r.state for r in Delivery(archive, "here", outbox, compare).send(parcels, lambda *_: None).values()]


def test_sent_read_back_compared_and_sent_again(serve: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    server, archive = serve()
    archive.echo()
    assert send(archive, parcels, outbox, compare=True) == ["stored"] * 4
    assert send(archive, parcels, outbox, compare=True) == ["there"] * 4
    assert len(server.posts) == 1
    assert set(server.held) == {each.sop for each in parcels}


def test_a_failure_is_told_for_its_own_instance(serve: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    server, archive = serve(fail={parcels[1].sop: 0xA900, parcels[2].sop: 0xA700})
    assert send(archive, parcels, outbox) == ["stored", "refused", "failed", "stored"]
    assert len(server.posts) == 3, "what may pass is tried again, alone"
    assert server.posts[1] < server.posts[0]
    server.fail.clear()
    assert send(archive, parcels, outbox) == ["there", "stored", "stored", "there"]


def test_where_all_fail_the_reasons_are_read(serve: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    _, archive = serve(fail={each.sop: 0x0124 for each in parcels})
    receipts = Delivery(archive, "here", outbox).send(parcels, lambda *_: None)
    assert {r.state for r in receipts.values()} == {"refused"}
    assert all("not authorized" in r.words for r in receipts.values())


def test_busy_passes(serve: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    server, archive = serve(codes=[503, 0, 0, 0, 0, 503])
    assert send(archive, parcels, outbox) == ["stored"] * 4
    assert len(server.posts) == 1


def test_too_large_is_tried_one_by_one(serve: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    server, archive = serve(most=2500)
    assert send(archive, parcels, outbox) == ["stored"] * 4
    assert len(server.posts) == 5
    tiny, archive = serve(most=10)
    assert send(archive, parcels, outbox) == ["refused"] * 4
    assert len(tiny.posts) == 5


def test_accepted_and_lost(serve: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    _, archive = serve(lose=True)
    assert send(archive, parcels, outbox) == ["lost"] * 4


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        (Login(user_variable="PACS_USER", password_variable="PACS_PASSWORD"), "Basic YW5uYTpodW50ZXIy"),
        (Login(token_variable="PACS_PASSWORD"), "Bearer hunter2"),
    ],
)
def test_the_login_comes_from_the_environment(
    serve: Start, monkeypatch: pytest.MonkeyPatch, login: Login, expected: str
) -> None:
    monkeypatch.setenv("PACS_USER", "anna")
    monkeypatch.setenv("PACS_PASSWORD", "hunter2")
    _, archive = serve(login=expected, ours=login)
    archive.echo()
    monkeypatch.setenv("PACS_PASSWORD", "wrong")
    with pytest.raises(ArchiveRefused, match="401") as caught:
        archive.echo()
    assert "wrong" not in str(caught.value)
    monkeypatch.delenv("PACS_PASSWORD")
    with pytest.raises(BadOption, match="PACS_PASSWORD"):
        archive.echo()


def test_no_access_is_not_tried_again(serve: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    server, archive = serve(login="Basic other")
    with pytest.raises(ArchiveRefused):
        send(archive, parcels, outbox)
    assert server.asked == 1


def test_a_redirection_is_not_followed(serve: Start) -> None:
    _, archive = serve(codes=[302])
    with pytest.raises(ArchiveRefused, match="another address"):
        archive.echo()


def test_a_proxy_of_the_environment_is_not_used(serve: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    _, archive = serve()
    archive.echo()


@pytest.mark.parametrize(
    ("headers", "word"), [({"Content-Encoding": "gzip"}, "packed"), ({"Content-Length": "99999"}, "broke off")]
)
def test_an_answer_that_is_packed_or_never_ends(serve: Start, headers: dict[str, str], word: str) -> None:
    _, archive = serve(headers=headers)
    with pytest.raises(ArchiveError, match=word):
        archive.echo()


def test_what_is_no_dicomweb(serve: Start, parcels: list[Parcel]) -> None:
    server, archive = serve()
    server.held[parcels[0].sop] = b"CANARYNAME is no DICOM"
    with pytest.raises(ArchiveError, match="not DICOMweb") as caught:
        archive.recall(parcels[0])
    assert "CANARY" not in str(caught.value)


def test_find_and_fetch(serve: Start, parcels: list[Parcel], outbox: Outbox, tmp_path: Path) -> None:
    _, archive = serve()
    send(archive, parcels, outbox)
    found = archive.find(Query({"PatientID": "CANARYID7"}), 10)
    assert {match.series for match in found} == {each.series for each in parcels}
    assert archive.find(Query({"PatientID": "NOBODY"}), 10) == ()
    match = Match(parcels[0].study, parcels[0].series)
    inbox = Inbox({match.series: tmp_path / "in"}, Limits())
    archive.fetch(match, inbox, lambda _: None)
    got = {dcmread(path).PixelData for path in (tmp_path / "in").iterdir()}
    assert got == {dcmread(each.path).PixelData for each in parcels[:3]}


def test_a_series_that_is_not_listed_to_its_end_is_not_called_whole(
    serve: Start, parcels: list[Parcel], outbox: Outbox, tmp_path: Path
) -> None:
    _, archive = serve()
    send(archive, parcels, outbox)
    match = Match(parcels[0].study, parcels[0].series, instances=4)
    inbox = Inbox({match.series: tmp_path / "in"}, archive.limits)
    with pytest.raises(ArchiveError, match="counts 4 objects in this series and lists 3"):
        archive.fetch(match, inbox, lambda _: None)
    assert len(inbox.taken) == 3, "what is listed came all the same"


def test_a_deflated_or_large_object_is_refused_unread(
    serve: Start, parcels: list[Parcel], make: Callable[..., Dataset], tmp_path: Path
) -> None:
    server, archive = serve(limits=Limits(object_mib=1))
    for number, syntax in ((1, DeflatedExplicitVRLittleEndian), (2, None)):
        data = make(number, PixelData=bytes(2**21))
        data.file_meta.TransferSyntaxUID = syntax or data.file_meta.TransferSyntaxUID
        stream = BytesIO()
        data.save_as(stream, enforce_file_format=True)
        server.held[str(data.SOPInstanceUID)] = stream.getvalue()
    with pytest.raises(ArchiveError, match="more than the limit"):
        archive.recall(parcels[1])
    match = Match(parcels[0].study, parcels[0].series)
    inbox = Inbox({match.series: tmp_path / "in"}, archive.limits)
    archive.fetch(match, inbox, lambda _: None)
    assert sum(inbox.refused.values()) == 2
    assert set(inbox.refused) == {"beyond the limits on size and number", "damaged, or of a coding that is not taken"}
    assert not (tmp_path / "in").exists()


def test_nobody_there(parcels: list[Parcel], outbox: Outbox) -> None:
    pace = Pace(connect_s=0.5, attempts=2, wait_s=0)
    with pytest.raises(ArchiveUnreachable, match="cannot be reached"):
        send(WebArchive(Web("web", "http://127.0.0.1:1/dicom-web", pace=pace), Limits()), parcels, outbox)
