"""Objects as we write them, and archives in this process that misbehave when they are told to."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ParametricMapStorage, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    Verification,
)

from pellucid.pacs.dimse import DimseArchive
from pellucid.pacs.outbox import Outbox
from pellucid.pacs.parcel import Parcel, parcel
from pellucid.pacs.settings import Dimse, Limits, Listener, Pace

FAST = Pace(connect_s=1.0, answer_s=0.5, attempts=3, wait_s=0.01, longest_wait_s=0.02, settle_s=0.2)
NAME, IDENTITY = "CANARYNAME^ZEBRA", "CANARYID7"


def make_object(seed: int = 1, kind: str = SecondaryCaptureImageStorage, **changes: Any) -> Dataset:
    """A small capture or map with the marks that ours have, of a patient whose name must show nowhere."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = kind
    data.SOPInstanceUID = generate_uid(entropy_srcs=["object", str(seed)])
    data.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    data.SeriesInstanceUID = generate_uid(entropy_srcs=["series", kind])
    data.PatientName, data.PatientID, data.PatientSex, data.PatientBirthDate = NAME, IDENTITY, "", ""
    data.StudyID = data.AccessionNumber = data.ReferringPhysicianName = ""
    data.StudyDate, data.StudyTime, data.Modality = "20200101", "120000", "CT"
    data.Manufacturer, data.SeriesNumber, data.InstanceNumber = "Pellucid", 900, seed
    data.SeriesDescription = "RESEARCH - NOT FOR DIAGNOSIS: attribution map"
    data.ImageType, data.ConversionType = ["DERIVED", "SECONDARY"], "WSD"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = 8, 9, 16, 16, 15
    data.PixelRepresentation = 0
    data.PixelData = np.random.default_rng(seed).integers(0, 4096, (8, 9)).astype(np.uint16).tobytes()
    for keyword, value in changes.items():
        setattr(data, keyword, value)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    return data


@pytest.fixture
def make() -> Callable[..., Dataset]:
    return make_object


@pytest.fixture
def parcels(tmp_path: Path) -> list[Parcel]:
    """Three captures and a map as files."""
    objects = [make_object(n) for n in (1, 2, 3)] + [make_object(4, ParametricMapStorage)]
    return [save(tmp_path / f"object{n}.dcm", each) for n, each in enumerate(objects)]


def save(path: Path, data: Dataset) -> Parcel:
    data.save_as(path, enforce_file_format=True)
    return parcel(path, path.name, data)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "state" / "outbox.sqlite")


@dataclass
class Moody:
    """A DIMSE archive that keeps objects in memory.

    Args:
        answers: statuses for the next objects, before it behaves.
        lose: it accepts and keeps nothing.
        hang: seconds that it waits before each answer to a store.
        abort_at: it aborts the association when this many objects came.
        leave_at: it keeps the object of this number, answers, and ends the association.
        doubles: what it answers to an object that it holds.
        give: whether it offers C-GET.
    """

    answers: list[int] = field(default_factory=list)
    lose: bool = False
    hang: float = 0.0
    abort_at: int | None = None
    leave_at: int | None = None
    doubles: int = 0
    give: bool = True
    held: dict[str, Dataset] = field(default_factory=dict)
    came: list[str] = field(default_factory=list)
    contexts: list[list[tuple[str, str]]] = field(default_factory=list)
    associations: int = 0
    port: int = 0
    only: str | None = None

    def start(self, kinds: list[str]) -> Any:
        entity = AE(ae_title="MOODY")
        entity.require_called_aet = True
        if self.only:
            entity.require_calling_aet = [self.only]
        entity.add_supported_context(Verification)
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        if self.give:
            entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
        for kind in kinds:
            entity.add_supported_context(kind, ExplicitVRLittleEndian, scp_role=True, scu_role=True)
        watching = [
            (evt.EVT_C_ECHO, lambda _: 0), (evt.EVT_C_STORE, self.store), (evt.EVT_C_FIND, self.find),
            (evt.EVT_C_GET, self.get), (evt.EVT_REQUESTED, self.asked),
            (evt.EVT_ACCEPTED, self.agreed),
        ]  # fmt: skip
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=watching)
        self.port = server.socket.getsockname()[1]
        return server

    def asked(self, _: Any) -> None:
        self.associations += 1

    def agreed(self, event: Any) -> None:
        pairs = [(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in event.assoc.accepted_contexts]
        self.contexts.append(pairs)

    def store(self, event: Any) -> int:
        data = event.dataset
        data.file_meta = event.file_meta
        self.came.append(str(data.SOPInstanceUID))
        if self.abort_at == len(self.came):
            event.assoc.abort()
            return 0
        time.sleep(self.hang)
        if self.answers and (status := self.answers.pop(0)):
            return status
        if self.leave_at == len(self.came):
            Thread(target=self.leave, args=(event.assoc,)).start()
        if self.doubles and str(data.SOPInstanceUID) in self.held:
            return self.doubles
        if not self.lose:
            self.held.setdefault(str(data.SOPInstanceUID), data)
        return 0

    @staticmethod
    def leave(link: Any) -> None:
        time.sleep(0.05)  # the answer goes out first
        link.abort()

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked, told = event.identifier, set()
        level = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
        for data in self.held.values():
            keys = [e for e in asked if e.keyword not in ("QueryRetrieveLevel", "SpecificCharacterSet") and e.value]
            uid = str(data[level[asked.QueryRetrieveLevel]].value)
            if uid in told or any(str(data.get(e.keyword, "")) != str(e.value) for e in keys):
                continue
            told.add(uid)
            answer = Dataset()
            for element in asked:
                if element.keyword in data:
                    answer[element.keyword] = data[element.keyword]
            yield 0xFF00, answer

    def get(self, event: Any) -> Iterator[Any]:
        asked = event.identifier
        keys = ("SeriesInstanceUID", "SOPInstanceUID")
        fits = [d for d in self.held.values() if all(str(d[k].value) == asked[k].value for k in keys if k in asked)]
        yield len(fits)
        for data in fits:
            yield 0xFF00, data


@pytest.fixture
def moody() -> Iterator[Callable[..., tuple[Moody, DimseArchive]]]:
    """Start an archive of a mood, and our side of it."""
    servers = []

    def start(pace: Pace = FAST, limits: Limits | None = None, **mood: Any) -> tuple[Moody, DimseArchive]:
        kinds = mood.pop("kinds", [SecondaryCaptureImageStorage, ParametricMapStorage])
        ae = mood.pop("ae", "MOODY")
        there = Moody(**mood)
        servers.append(there.start(kinds))
        place = Dimse("dimse", "127.0.0.1", there.port, ae, pace=pace)
        return there, DimseArchive(place, "PELLUCID", Listener(), limits or Limits())

    yield start
    for server in servers:  # it looks up every half second whether it shall end: nobody waits for that
        Thread(target=server.shutdown, daemon=True).start()
