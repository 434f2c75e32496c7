"""An archive over DIMSE (PS3.7): echo, store, find, get and move, through pynetdicom."""

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from pellucid.core.errors import ArchiveError, ArchiveRefused, ArchiveUnreachable, BadOption
from pellucid.pacs.archive import Answer, Archive, answer_of, check_listed
from pellucid.pacs.extra import optional, quiet
from pellucid.pacs.inbox import Inbox
from pellucid.pacs.listening import SYNTAXES, handlers, listening
from pellucid.pacs.parcel import Parcel
from pellucid.pacs.query import UID_KEYS, Match, Query, match_of
from pellucid.pacs.settings import Dimse, Limits, Listener, Pace, Tls
from pellucid.pacs.uids import is_uid

MOST_CONTEXTS = 128  # PS3.8 9.3.2.2: their numbers are the odd ones of a byte
_PENDING = (0xFF00, 0xFF01)
_TRANSIENT = 2  # PS3.8 9.3.4: the result of a rejection; 1 is permanent
_KNOWN_REASONS = {3: "it does not know our AE title", 7: "no archive there has this AE title"}
_SERIES = ("Modality", "SeriesNumber", "SeriesDescription", "BodyPartExamined")


@final
@dataclass(frozen=True)
class DimseArchive(Archive):
    """Speaks to one archive; an association for each call, and none is kept.

    Args:
        place: where it is.
        title: our AE title.
        listener: where C-MOVE delivers to.
        limits: of what is taken in.
    """

    place: Dimse
    title: str
    listener: Listener = field(default_factory=Listener)
    limits: Limits = field(default_factory=Limits)

    @property
    def pace(self) -> Pace:  # type: ignore[override]  # the base declares it as an attribute
        """Timeouts and retries."""
        return self.place.pace

    def echo(self) -> None:
        """C-ECHO (PS3.7 9.1.5)."""
        with optional():
            from pynetdicom.presentation import build_context
            from pynetdicom.sop_class import Verification
        with self._association([build_context(Verification)]) as link:
            _check(_status(link.send_c_echo()), "answer an echo")

    def store(self, parcels: Sequence[Parcel]) -> Iterator[tuple[Parcel, Answer]]:
        """C-STORE (PS3.4 annex B): one context for each (kind, coding), nothing is converted."""
        with optional():
            from pynetdicom.presentation import build_context
        for group in groups(parcels, self.pace.objects):
            pairs = dict.fromkeys((each.sop_class, each.syntax) for each in group)
            with self._association([build_context(*pair) for pair in pairs]) as link:
                taken = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in link.accepted_contexts}
                for each in group:
                    yield each, _store_one(link, each, taken)

    def held(self, parcels: Sequence[Parcel]) -> frozenset[str]:
        """C-FIND at IMAGE level, one question for each series of ours."""
        found: set[str] = set()
        with self._finding() as link:
            for study, series in dict.fromkeys((each.study, each.series) for each in parcels):
                found |= {sop for sop, _ in self._instances(link, study, series)}
        return frozenset(each.sop for each in parcels if each.sop in found)

    def recall(self, parcel: Parcel) -> Dataset | None:
        """C-GET of one instance; None where the archive does not offer it."""
        if self.place.retrieve != "get":
            return None
        found: list[Dataset] = []

        def keep(content: bytes) -> int:
            found.append(dcmread(BytesIO(content)))
            return 0

        keys = {**_keys(parcel.study, parcel.series), "SOPInstanceUID": parcel.sop}
        try:
            self._get("IMAGE", keys, [(parcel.sop_class, parcel.syntax)], keep)
        except ArchiveRefused:
            return None
        return found[0] if found and found[0].get("SOPInstanceUID") == parcel.sop else None

    def find(self, query: Query, most: int) -> tuple[Match, ...]:
        """C-FIND at SERIES level in the study root; study keys are resolved at STUDY level first."""
        studies = self._studies(query, most)
        told = {"Modality": "", "SeriesNumber": "", "NumberOfSeriesRelatedInstances": ""}
        wanted = {key: value for key, value in query.keys.items() if key in ("SeriesInstanceUID", *_SERIES)}
        found: list[Match] = []
        with self._finding() as link:
            for study in studies:
                keys = {**told, "SeriesInstanceUID": "", **wanted, "StudyInstanceUID": study}
                for answer in self._ask(link, "SERIES", keys, most):
                    plain = {key: answer.get(key) for key in (*UID_KEYS, "Modality", "SeriesNumber")}
                    plain["Instances"] = answer.get("NumberOfSeriesRelatedInstances")
                    match = match_of({**plain, "StudyInstanceUID": plain["StudyInstanceUID"] or study})
                    found += [match] if match else []
        return tuple(found[:most])

    def fetch(self, match: Match, inbox: Inbox, told: Callable[[int], None]) -> None:
        """C-GET, or C-MOVE to our own listener; what should have come and did not is an error."""
        with self._finding() as link:
            there = dict(self._instances(link, match.study, match.series))
        if not there:
            raise ArchiveError("the archive lists no object of this series", "find it again; it may have been moved")
        if len(there) > self.limits.objects:
            raise ArchiveError(
                f"expected at most {self.limits.objects} objects in a series, the archive lists {len(there)}",
                "raise objects in [limits]",
            )

        def keep(content: bytes) -> int:
            status = inbox.take(content)
            told(len(inbox.taken))
            return status

        keys = _keys(match.study, match.series)
        classes = sorted({kind for kind in there.values() if kind})
        if self.place.retrieve == "move":
            watching = handlers(keep, self.limits)
            with listening(self.listener, self.title, self.place.ae, classes, watching):
                self._move(keys)
        else:
            for pairs in _pieces([(kind, syntax) for kind in classes for syntax in SYNTAXES]):
                self._get("SERIES", keys, pairs, keep)
        check_listed(match, len(there))
        missing = len(set(there) - inbox.taken)
        if missing:
            raise ArchiveUnreachable(
                f"{missing} of {len(there)} objects did not come", "try again: what came is not asked for twice"
            )

    def _studies(self, query: Query, most: int) -> list[str]:
        if "StudyInstanceUID" in query.keys:
            return [query.keys["StudyInstanceUID"]]
        keys = {key: value for key, value in query.keys.items() if key not in ("SeriesInstanceUID", *_SERIES)}
        if not keys:
            raise BadOption(
                "expected a key of the study beside those of the series", "add StudyInstanceUID, PatientID or StudyDate"
            )
        with self._finding() as link:
            answers = self._ask(link, "STUDY", {"StudyInstanceUID": "", **keys}, most)
            uids = [str(answer.get("StudyInstanceUID", "")) for answer in answers]
        return [uid for uid in uids if is_uid(uid)]

    def _instances(self, link: Any, study: str, series: str) -> list[tuple[str, str]]:
        """SOP instance and class UIDs of a series; those that are not valid are left out."""
        keys = {**_keys(study, series), "SOPInstanceUID": "", "SOPClassUID": ""}
        answers = self._ask(link, "IMAGE", keys, self.limits.objects + 1)
        pairs = [(str(a.get("SOPInstanceUID", "")), str(a.get("SOPClassUID", ""))) for a in answers]
        return [(sop, kind if is_uid(kind) else "") for sop, kind in pairs if is_uid(sop)]

    def _ask(self, link: Any, level: str, keys: dict[str, str], most: int) -> list[Dataset]:
        with optional():
            from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Model
        found: list[Dataset] = []
        for status, identifier in link.send_c_find(_identifier(level, keys), Model):
            code = _status(status)
            if code not in _PENDING:
                _check(code, "answer a query")
            elif identifier is not None:
                found.append(identifier)
            if len(found) >= most:
                link.abort()  # a cancel would be answered by as many matches again
                break
        return found

    def _get(
        self, level: str, keys: dict[str, str], pairs: Sequence[tuple[str, str]], keep: Callable[[bytes], int]
    ) -> None:
        with optional():
            from pynetdicom.presentation import build_context, build_role
            from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as Model
        contexts = [build_context(Model), *(build_context(*pair) for pair in pairs)]
        roles = [build_role(kind, scp_role=True) for kind in dict.fromkeys(kind for kind, _ in pairs)]
        with self._association(contexts, handlers(keep, self.limits), roles) as link:
            if all(c.abstract_syntax != Model for c in link.accepted_contexts):
                raise ArchiveRefused("the archive does not offer C-GET", 'say retrieve = "move", and add a [listener]')
            for status, _ in link.send_c_get(_identifier(level, keys), Model):
                _check(_status(status), "hand objects over")

    def _move(self, keys: dict[str, str]) -> None:
        with optional():
            from pynetdicom.presentation import build_context
            from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as Model
        with self._association([build_context(Model)]) as link:
            for status, _ in link.send_c_move(_identifier("SERIES", keys), self.title, Model):
                _check(_status(status), "move objects to us")

    def _finding(self) -> Any:
        with optional():
            from pynetdicom.presentation import build_context
            from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Model
        return self._association([build_context(Model)])

    @contextmanager
    def _association(
        self, contexts: list[Any], watching: Sequence[tuple[Any, ...]] = (), roles: Sequence[Any] = ()
    ) -> Iterator[Any]:
        with optional():
            from pynetdicom import evt
            from pynetdicom.ae import ApplicationEntity
        pace, place = self.pace, self.place
        entity = ApplicationEntity(ae_title=self.title)
        entity.connection_timeout = entity.acse_timeout = pace.connect_s
        entity.dimse_timeout = entity.network_timeout = pace.answer_s
        doors: list[Any] = []  # pynetdicom 3.0 leaves a connection open that the other side ended first
        opened = (evt.EVT_CONN_OPEN, lambda event: doors.append(event.assoc.dul.socket.socket))
        with quiet():
            link = entity.associate(
                place.host, place.port, contexts, place.ae,
                ext_neg=list(roles), evt_handlers=[*watching, opened], tls_args=_tls(place.tls, place.host),
            )  # fmt: skip
            try:
                if not link.is_established:
                    raise _refusal(link)
                yield link
            except RuntimeError:  # what pynetdicom raises where the other side ended it between two questions
                if link.is_established:
                    raise
                raise ArchiveUnreachable("the archive ended the connection", "try again later") from None
            finally:
                if link.is_established:
                    link.release()
                for door in doors:
                    door.close()


def groups(parcels: Sequence[Parcel], most: int) -> Iterator[list[Parcel]]:
    """Parcels for one association each: at most 128 pairs of kind and coding, and at most so many objects."""
    group: list[Parcel] = []
    pairs: set[tuple[str, str]] = set()
    for each in parcels:
        pair = (each.sop_class, each.syntax)
        if group and (len(group) >= most or len(pairs | {pair}) > MOST_CONTEXTS):
            yield group
            group, pairs = [], set()
        group.append(each)
        pairs.add(pair)
    if group:
        yield group


def _pieces(pairs: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    most = (MOST_CONTEXTS - 1) // len(SYNTAXES) * len(SYNTAXES)  # one context is the question's own
    for start in range(0, len(pairs), most):
        yield pairs[start : start + most]


def _store_one(link: Any, each: Parcel, taken: set[tuple[str, str]]) -> Answer:
    if (each.sop_class, each.syntax) not in taken:
        return Answer(False, words=f"the archive does not take {each.kind} as {UID(each.syntax).name}")
    status = link.send_c_store(dcmread(each.path))
    return answer_of(_status(status))


def _status(status: Dataset) -> int:
    """The code of an answer; none at all means that it did not come in time, or the connection was lost."""
    if "Status" not in status:
        raise ArchiveUnreachable("the archive did not answer", "try again; raise answer_s where it is slow")
    return int(status.Status)


def _check(code: int, what: str) -> None:
    if code in _PENDING or answer_of(code).accepted:
        return
    told = answer_of(code)
    kind = ArchiveUnreachable if told.again else ArchiveError
    raise kind(f"the archive would not {what}: {told.words}", "ask those who keep the archive, with this code")


def _refusal(link: Any) -> ArchiveError:
    """Why there is no association (PS3.8 9.3.4)."""
    if not link.is_rejected:
        return ArchiveUnreachable("the archive cannot be reached", "check host, port and tls, and that it runs")
    answer = link.acceptor.primitive
    if answer.result == _TRANSIENT or (answer.result_source, answer.diagnostic) == (1, 1):
        return ArchiveUnreachable("the archive is busy and refused the association", "try again later")
    reason = (
        _KNOWN_REASONS.get(answer.diagnostic, "it gave no reason that we know") if answer.result_source == 1 else ""
    )
    return ArchiveRefused(
        f"the archive refused the association: {reason or 'it does not speak as we do'}",
        "correct ae, or have our ae_title entered there",
    )


def _tls(tls: Tls | None, host: str) -> tuple[ssl.SSLContext, str] | None:
    if tls is None:
        return None
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise BadOption(
            f"a file of tls cannot be read ({type(error).__name__})",
            "ca, certificate and key name files of the form PEM, not DER",
        ) from None
    return context, host


def _keys(study: str, series: str) -> dict[str, str]:
    return dict(zip(UID_KEYS, (study, series), strict=True))


def _identifier(level: str, keys: dict[str, str]) -> Dataset:
    found = Dataset()
    found.QueryRetrieveLevel = level
    for key, value in keys.items():
        setattr(found, key, value)
    found.SpecificCharacterSet = "ISO_IR 192"
    return found
