"""Objects to archives and series from them, with every step in the audit record."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import platformdirs

from pellucid.audit.entry import MAX_OBJECTS, Entry, Outcome
from pellucid.core.errors import ArchiveError, ArchiveRefused, InputError
from pellucid.io.dicomfile import open_header
from pellucid.io.guard import reading
from pellucid.pacs.admission import admit, doubts, is_own
from pellucid.pacs.archive import Archive, retrying
from pellucid.pacs.dimse import DimseArchive
from pellucid.pacs.inbox import Inbox
from pellucid.pacs.outbox import Outbox
from pellucid.pacs.parcel import Parcel, Receipt, parcel
from pellucid.pacs.query import Match, Query
from pellucid.pacs.sending import Delivery
from pellucid.pacs.settings import FILE_NAME, Dimse, Settings, identity, read_settings
from pellucid.pacs.web import WebArchive
from pellucid.workbench.recording import Recorder

_Given = TypeVar("_Given")
_OUTCOMES: Mapping[str, Outcome] = {
    "stored": "success",
    "there": "success",
    "refused": "serious_failure",
    "failed": "serious_failure",
    "lost": "serious_failure",
    "differs": "major_failure",
}


def settings_of(path: Path | None) -> Settings:
    """The user's own settings, or those of a file.

    Raises:
        BadOption: see ``pacs.settings.read_settings``.
    """
    return read_settings(path or Path(platformdirs.user_config_dir("pellucid")) / FILE_NAME)


def own_outbox() -> Outbox:
    """The user's; ``$PELLUCID_OUTBOX`` names another file."""
    given = os.environ.get("PELLUCID_OUTBOX")
    return Outbox(Path(given) if given else Path(platformdirs.user_state_dir("pellucid")) / "outbox.sqlite")


@dataclass(frozen=True)
class Counter:
    """One archive of the list, spoken to on the record.

    Args:
        settings: of the user.
        name: of the archive.
        recorder: of the audit.
    """

    settings: Settings
    name: str
    recorder: Recorder

    def archive(self) -> Archive:
        """Opened by what it speaks.

        Raises:
            UnknownName: it is not on the list.
        """
        place = self.settings.archive(self.name)
        if isinstance(place, Dimse):
            return DimseArchive(place, self.settings.ae_title, self.settings.listener, self.settings.limits)
        return WebArchive(place, self.settings.limits)

    def echo(self) -> None:
        """Ask whether it is there.

        Raises:
            ArchiveError: it is not, or does not let us in.
        """
        archive = self.archive()
        self._on_record("dicom.echo", archive.echo)

    def send(
        self, parcels: Sequence[Parcel], outbox: Outbox, compare: bool, told: Callable[[str, int], None]
    ) -> dict[Parcel, Receipt]:
        """Send, and record for each outcome which objects (as keyed hashes) it befell.

        Args:
            parcels: from ``gather``.
            outbox: of the user.
            compare: fetch each back and compare.
            told: is told of the progress.

        Raises:
            InputError: sending is off.
            ArchiveError: nothing could be sent.
        """
        place = self.settings.archive(self.name)
        if not self.settings.sending:
            raise InputError("sending is off", f"say sending = true in {FILE_NAME} where this machine may send")
        # a record that cannot be written must show before anything leaves this machine
        self.recorder.log.record(Entry("config", method="dicom.send", parameters=self._to()))
        delivery = Delivery(self.archive(), identity(place), outbox, compare)
        receipts = self._on_record("dicom.send", lambda: delivery.send(parcels, told))
        by_state: dict[str, list[str]] = {}
        for each, receipt in receipts.items():
            by_state.setdefault(receipt.state, []).append(each.sop)
        for state, uids in sorted(by_state.items()):
            self._record_objects("dicom.send", state, uids)
        return receipts

    def find(self, query: Query, most: int) -> tuple[Match, ...]:
        """The series that fit.

        Raises:
            ArchiveError: the archive cannot be asked.
        """
        archive = self.archive()
        found = self._on_record("dicom.find", lambda: retrying(archive.pace)(archive.find, query, most))
        self.recorder.log.record(Entry("view", method="dicom.find", parameters=self._to() | {"series": len(found)}))
        return found

    def fetch(self, matches: Sequence[Match], out: Path, told: Callable[[int], None]) -> Inbox:
        """Bring series, each into a numbered folder.

        Args:
            matches: what ``find`` gave.
            out: folder for them.
            told: is told how many objects came.

        Returns:
            What was taken and what refused.

        Raises:
            ArchiveError: the archive cannot be asked, or not all came; what came is there.
        """
        archive = self.archive()
        ordered = sorted(matches, key=lambda match: (match.study, match.number, match.series))
        folders = {match.series: out / f"series-{place:02d}" for place, match in enumerate(ordered, 1)}
        inbox = Inbox(folders, self.settings.limits)
        outcome: Outcome = "serious_failure"
        try:
            for match in ordered:
                self._on_record("dicom.fetch", lambda m=match: retrying(archive.pace)(archive.fetch, m, inbox, told))
            outcome = "minor_failure" if inbox.refusals else "success"
        finally:
            uids = tuple(match.series for match in ordered)[:MAX_OBJECTS]
            told_of = self._to() | {"objects": len(inbox.taken), "refused": inbox.refusals}
            entry = Entry("view", method="dicom.fetch", outcome=outcome, parameters=told_of, object_uids=uids)
            self.recorder.log.record(entry)
        return inbox

    def _on_record(self, what: str, act: Callable[[], _Given]) -> _Given:
        try:
            return act()
        except ArchiveError as error:
            event = "failed_access" if isinstance(error, ArchiveRefused) else "failure"
            kind = self._to() | {"error": type(error).__name__}
            self.recorder.log.record(Entry(event, outcome="serious_failure", method=what, parameters=kind))
            raise

    def _record_objects(self, what: str, state: str, uids: list[str]) -> None:
        parameters = self._to() | {"state": state}
        for start in range(0, len(uids), MAX_OBJECTS):
            some = tuple(uids[start : start + MAX_OBJECTS])
            self.recorder.log.record(
                Entry("send", method=what, outcome=_OUTCOMES[state], parameters=parameters, object_uids=some)
            )

    def _to(self) -> dict[str, str | int | float | bool | None]:
        return {"archive": f"to {self.name}"}  # a bare name such as facade could pass for a hash


def gather(paths: Sequence[Path], any_maker: bool = False) -> tuple[list[Parcel], list[str]]:
    """The objects among files and folders, each admitted, and what the sender should know of them.

    In a folder everything that is no DICOM file is passed over; a file that is named must be one.

    Args:
        paths: files, or folders that are searched.
        any_maker: see ``pacs.admission.admit``.

    Raises:
        InputError: none, or one that may not be sent; nothing is sent then.
    """
    files = [(path, path.name) for path in paths if not path.is_dir()]
    for folder in (path for path in paths if path.is_dir()):
        inside = sorted(path for path in folder.rglob("*") if path.is_file() and _is_dicom(path))
        files += [(path, path.relative_to(folder).as_posix()) for path in inside]
    found: dict[str, Parcel] = {}
    for number, (path, name) in enumerate(dict(files).items(), 1):
        each = _parcel(path, name, f"object {number}", any_maker)
        found.setdefault(each.digest, each)  # one file given twice is one object
    if not found:
        raise InputError("expected DICOM objects, found none there", "give what `pellucid explain --dicom` wrote")
    return list(found.values()), doubts(found.values())


def _parcel(path: Path, name: str, number: str, any_maker: bool) -> Parcel:
    with reading(f"a DICOM object as {number}", "give what `pellucid explain --dicom` wrote"):
        header = open_header(path)
        shown = name if is_own(header) else number  # a foreign name may say who the patient is
        admit(header, shown, any_maker)
        return parcel(path, shown, header)


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"
