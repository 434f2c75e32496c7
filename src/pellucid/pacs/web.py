"""An archive over DICOMweb (PS3.18): STOW, QIDO and WADO, through dicomweb-client."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, final

from pydicom import dcmread, dcmwrite
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from pellucid.core.errors import ArchiveError, ArchiveRefused, ArchiveUnreachable, BadOption, PellucidError
from pellucid.pacs.archive import Answer, Archive, answer_of, check_listed
from pellucid.pacs.extra import optional, quiet
from pellucid.pacs.inbox import FULL, MIB, UNCLEAR, Inbox
from pellucid.pacs.parcel import Parcel
from pellucid.pacs.query import UID_KEYS, Match, Query, match_of
from pellucid.pacs.settings import Limits, Pace, Web
from pellucid.pacs.uids import is_uid

_AS_STORED = (("application/dicom", "*"),)  # without it the server converts to explicit little endian
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # would inflate to anything as soon as it is read
_BATCH_MIB, _PAGE = 32, 500
_NO_ACCESS, _TOO_LARGE, _CONFLICT = (401, 403), 413, 409
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_SERIES_FIELDS = ("Modality", "SeriesNumber", "NumberOfSeriesRelatedInstances")


@final
@dataclass(frozen=True)
class WebArchive(Archive):
    """Speaks to one archive; no redirection is followed, no proxy of the environment used.

    Args:
        place: where it is.
        limits: of what is taken in.
    """

    place: Web
    limits: Limits = field(default_factory=Limits)

    @property
    def pace(self) -> Pace:  # type: ignore[override]  # the base declares it as an attribute
        """Timeouts and retries."""
        return self.place.pace

    def echo(self) -> None:
        """A QIDO search for one study, since DICOMweb has no echo; what it finds is not looked at."""
        with self._client() as client:
            client.search_for_studies(limit=1)

    def store(self, parcels: Sequence[Parcel]) -> Iterator[tuple[Parcel, Answer]]:
        """STOW (PS3.18 10.5), some objects with each request; where that is too large, each alone."""
        with self._client() as client:
            for batch in _batches(parcels, self.pace.objects):
                answers = _post(client, batch)
                if answers is None and len(batch) > 1:
                    answers = {each.sop: (_post(client, [each]) or {}).get(each.sop, _TOO_MUCH) for each in batch}
                for each in batch:
                    yield each, (answers or {}).get(each.sop, _TOO_MUCH if answers is None else _UNSAID)

    def held(self, parcels: Sequence[Parcel]) -> frozenset[str]:
        """QIDO (PS3.18 10.6), one question for each instance."""
        with self._client() as client:
            return frozenset(each.sop for each in parcels if _has(client, each))

    def recall(self, parcel: Parcel) -> Dataset | None:
        """WADO (PS3.18 10.4) of one instance, as it is stored."""
        with self._client() as client:
            return client.retrieve_instance(parcel.study, parcel.series, parcel.sop, media_types=_AS_STORED)

    def find(self, query: Query, most: int) -> tuple[Match, ...]:
        """QIDO for series."""
        filters = {key: value for key, value in query.keys.items() if key != "StudyInstanceUID"}
        with self._client() as client:
            found = client.search_for_series(
                query.keys.get("StudyInstanceUID"),
                search_filters=filters or None,
                fields=list(_SERIES_FIELDS),
                limit=most,
            )
        matches = [match_of(_plain(item)) for item in found[:most]]
        return tuple(match for match in matches if match)

    def fetch(self, match: Match, inbox: Inbox, told: Callable[[int], None]) -> None:
        """QIDO for the instances of a series, then WADO for each that has not come yet."""
        with self._client() as client:
            there = self._instances(client, match)
            if not there:
                raise ArchiveError("the archive lists no object of this series", "find it again; it may have moved")
            for sop in there - inbox.taken:
                try:
                    got = client.retrieve_instance(match.study, match.series, sop, media_types=_AS_STORED)
                    stream = BytesIO()
                    dcmwrite(stream, got, enforce_file_format=True)
                    inbox.take(stream.getvalue())
                except _TooLarge:
                    inbox.refuse(FULL)
                except _Unclear:
                    inbox.refuse(UNCLEAR)
                told(len(inbox.taken))
        check_listed(match, len(there))

    def _instances(self, client: Any, match: Match) -> set[str]:
        found: set[str] = set()
        while True:
            page = client.search_for_instances(match.study, match.series, limit=_PAGE, offset=len(found))
            uids = {str(_value(item, "SOPInstanceUID")) for item in page}
            new = {uid for uid in uids if is_uid(uid)} - found
            if not new:  # also where a server takes no notice of the offset
                return found
            found |= new
            if len(found) > self.limits.objects:
                raise ArchiveError(
                    f"expected at most {self.limits.objects} objects in a series, the archive lists more",
                    "raise objects in [limits]",
                )

    @contextmanager
    def _client(self) -> Iterator[Any]:
        with optional():
            import requests
            from dicomweb_client.api import DICOMwebClient
        place, pace = self.place, self.pace
        with quiet(), requests.Session() as session, _told(requests.exceptions):
            session.trust_env = False  # no proxy, and no login, that the list does not name
            session.max_redirects = 0
            session.headers["Accept-Encoding"] = "identity"  # nothing that inflates
            session.verify = place.ca or True
            session.cert = place.certificate
            session.auth = _auth(place)
            client = DICOMwebClient(
                place.url.rstrip("/"),
                session=session,
                callback=_bounded(self.limits.object_mib * MIB, pace.answer_s),
                timeout=(pace.connect_s, pace.answer_s),
            )
            client.set_http_retry_params(retry=False)  # tried again by us, with a record of it
            yield client


class _TooLarge(ArchiveError):
    """An answer beyond the limit."""


class _Unclear(ArchiveError):
    """An answer that is not looked into."""


_TOO_MUCH = Answer(False, words="larger than the archive takes (413)")
_UNSAID = Answer(False, again=True, words="the archive did not say what became of it")


@final
class _Bounded:
    """The body of an answer, cut off at a size and a time: a timeout alone would let it drip for ever."""

    def __init__(self, raw: Any, most: int, seconds: float) -> None:
        self._raw, self._left, self._end = raw, most, time.monotonic() + seconds
        self.release_conn, self.close = raw.release_conn, raw.close

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        if time.monotonic() > self._end:
            raise ArchiveUnreachable("the archive did not end its answer in time", "raise answer_s where it is slow")
        piece = self._raw.read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise _TooLarge("the archive sent more than the limit on one object", "raise object_mib in [limits]")
        return piece


def _bounded(most: int, seconds: float) -> Callable[..., Any]:
    """What sees each answer before its body is read."""

    def look(response: Any) -> None:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _Unclear("the archive packed its answer, which was not asked for", "have compression turned off")
        response.raw = _Bounded(response.raw, most, seconds)
        if _DEFLATED in response.content and "json" not in response.headers.get("Content-Type", ""):
            raise _Unclear("an object is deflated, which is not taken", "have it stored in another coding")

    def guard(response: Any, *_rest: Any, **_named: Any) -> Any:
        try:
            look(response)
        except BaseException:
            response.close()  # what was not read to its end would stay open
            raise
        return response

    return guard


@contextmanager
def _told(errors: Any) -> Iterator[None]:
    """Turn what requests raises into our errors; its own texts hold addresses and identifiers."""
    from urllib3.exceptions import HTTPError as TransportError

    try:
        yield
    except PellucidError:
        raise
    except errors.TooManyRedirects:
        raise ArchiveRefused("the archive points to another address", "write that address as url") from None
    except errors.SSLError:
        raise ArchiveRefused(
            "the certificate of the archive is not believed", "give ca, the file of its authority"
        ) from None
    except errors.HTTPError as error:
        raise _http_error(error.response.status_code) from None
    except (errors.RequestException, TransportError) as error:
        raise ArchiveUnreachable(
            f"the archive cannot be reached or broke off ({type(error).__name__})", "check url, and that it runs"
        ) from None
    except Exception as error:  # whatever the libraries make of a hostile answer, it is told without quoting it
        raise ArchiveError(
            f"the archive gave an answer that is not DICOMweb ({type(error).__name__})",
            "check url: it ends as /dicom-web",
        ) from None


def _http_error(code: int) -> ArchiveError:
    if code in _NO_ACCESS:
        return ArchiveRefused(f"the archive does not let us in ({code})", "correct the login that the settings name")
    if code in _PASSING:
        return ArchiveUnreachable(f"the archive cannot answer now ({code})", "try again later")
    if code == _TOO_LARGE:
        return ArchiveError("the archive takes no object of this size (413)", "have its limit raised")
    return ArchiveError(f"the archive refused the request ({code})", "check url, and what the archive allows")


def _auth(place: Web) -> Any:
    login = place.login
    if login is None:
        return None
    if login.netrc:
        from requests.utils import get_netrc_auth

        return get_netrc_auth(place.url) or _absent("an entry for this host in .netrc")
    if login.token_variable:
        token = _secret(login.token_variable)

        def bear(request: Any) -> Any:
            request.headers["Authorization"] = f"Bearer {token}"
            return request

        return bear
    return _secret(str(login.user_variable)), _secret(str(login.password_variable))


def _secret(variable: str) -> str:
    return os.environ.get(variable) or _absent(f"the environment variable {variable}")


def _absent(what: str) -> Any:
    raise BadOption(f"expected {what}, there is none", "set it where the login of this archive shall come from")


def _batches(parcels: Sequence[Parcel], most: int) -> Iterator[list[Parcel]]:
    batch: list[Parcel] = []
    for each in parcels:
        if batch and (len(batch) >= most or sum(p.size for p in batch) + each.size > _BATCH_MIB * MIB):
            yield batch
            batch = []
        batch.append(each)
    if batch:
        yield batch


def _post(client: Any, batch: Sequence[Parcel]) -> dict[str, Answer] | None:
    """What became of each, by UID; None where the request was too large."""
    from requests.exceptions import HTTPError

    try:
        told = client.store_instances([dcmread(each.path) for each in batch])
    except HTTPError as error:
        if error.response.status_code == _TOO_LARGE:
            return None
        if error.response.status_code != _CONFLICT:
            raise
        told = Dataset.from_json(error.response.json())  # PS3.18 10.5.3: 409 says that all failed, and why
    answers = {each.sop: Answer(True) for each in batch} if not len(told) else {}
    for item in told.get("ReferencedSOPSequence", []):
        answers[str(item.ReferencedSOPInstanceUID)] = answer_of(int(item.get("WarningReason", 0) or 0))
    for item in told.get("FailedSOPSequence", []):
        answers[str(item.ReferencedSOPInstanceUID)] = answer_of(int(item.get("FailureReason", 0x0110)))
    return answers


def _has(client: Any, each: Parcel) -> bool:
    filters = {"SOPInstanceUID": each.sop}
    found = client.search_for_instances(each.study, each.series, search_filters=filters)
    return any(_value(item, "SOPInstanceUID") == each.sop for item in found)


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: _value(item, key) for key in (*UID_KEYS, "Modality", "SeriesNumber")}
    return {**told, "Instances": _value(item, "NumberOfSeriesRelatedInstances")}


def _value(item: Mapping[str, Any], keyword: str) -> Any:
    values = item.get(f"{tag_for_keyword(keyword):08X}", {}).get("Value") or [None]
    return values[0]
