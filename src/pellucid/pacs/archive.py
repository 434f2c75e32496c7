"""What every archive can be asked, whatever it speaks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from pydicom.dataset import Dataset

from pellucid.core.errors import ArchiveError, ArchiveUnreachable
from pellucid.pacs.extra import optional
from pellucid.pacs.inbox import Inbox
from pellucid.pacs.parcel import Parcel
from pellucid.pacs.query import Match, Query
from pellucid.pacs.settings import Pace

ACCEPTED: Final = 0x0000
# PS3.4 B.2.3 and PS3.7 annex C. 0122 says that a kind is not supported: that seldom passes, but a retry costs
# seconds, and a "not stored" that was wrong costs a call to the archive's keepers.
_PASSING = {0x0110: "processing failure", 0x0122: "kind of object not supported"}
_DOUBLE: Final = 0x0111
_LASTING = {_DOUBLE: "it already has an object of this UID", 0x0117: "invalid UID", 0x0124: "not authorized"}


@final
@dataclass(frozen=True)
class Answer:
    """What an archive says to one object.

    Args:
        accepted: it took it; whether it kept it is another question.
        again: another try may succeed.
        words: why not, or with what reservation.
        double: it says to have an object of this UID: ours, of a try whose answer was lost, or another.
    """

    accepted: bool
    again: bool = False
    words: str = field(default="")
    double: bool = False


class Archive(ABC):
    """One archive of the list.

    Every method speaks once, without a retry, and raises ``ArchiveUnreachable`` where another try may help,
    ``ArchiveRefused`` where it will not.
    """

    pace: Pace

    @abstractmethod
    def echo(self) -> None:
        """Ask whether it is there and lets us in."""

    @abstractmethod
    def held(self, parcels: Sequence[Parcel]) -> frozenset[str]:
        """Which of these objects it says to hold, by SOP instance UID."""

    @abstractmethod
    def store(self, parcels: Sequence[Parcel]) -> Iterator[tuple[Parcel, Answer]]:
        """Hand objects over, each with its answer as it comes; a lost connection ends this with the error."""

    @abstractmethod
    def recall(self, parcel: Parcel) -> Dataset | None:
        """The object that it holds under this UID; None where it cannot give objects back."""

    @abstractmethod
    def find(self, query: Query, most: int) -> tuple[Match, ...]:
        """The series that fit, at most so many."""

    @abstractmethod
    def fetch(self, match: Match, inbox: Inbox, told: Callable[[int], None]) -> None:
        """Bring one series into the inbox; what it took and refused stands there."""


def answer_of(status: int) -> Answer:
    """What a DIMSE status, or the FailureReason of DICOMweb, means for one object."""
    code = f"status 0x{status:04X}"
    if status == ACCEPTED:
        return Answer(True)
    if status in (0x0001, 0x0107, 0x0116) or 0xB000 <= status <= 0xBFFF:
        return Answer(True, words=f"taken with a warning ({code}): the archive changed or dropped an attribute")
    if status in _PASSING:
        return Answer(False, again=True, words=f"{_PASSING[status]} ({code})")
    if 0xA700 <= status <= 0xA7FF:
        return Answer(False, again=True, words=f"the archive is out of resources ({code})")
    if 0xA900 <= status <= 0xA9FF:
        return Answer(False, words=f"the object does not fit its kind ({code})")
    words = f"{_LASTING.get(status, 'the archive refuses it')} ({code})"
    return Answer(False, words=words, double=status == _DOUBLE)


def check_listed(match: Match, listed: int) -> None:
    """Refuse a series that was not listed to its end: an archive may cut an answer short, and nobody would see it.

    Raises:
        ArchiveError: the archive counts more objects in the series than it listed.
    """
    if match.instances is not None and listed < match.instances:
        raise ArchiveError(
            f"the archive counts {match.instances} objects in this series and lists {listed}: the others did not come",
            "what is listed is there; ask those who keep the archive for the rest",
        )


def retrying(pace: Pace) -> Any:
    """Runs a callable again, with a wait that doubles, as long as it raises ``ArchiveUnreachable``."""
    with optional():
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential
    return Retrying(
        stop=stop_after_attempt(pace.attempts),
        wait=wait_exponential(multiplier=pace.wait_s, max=pace.longest_wait_s),
        retry=retry_if_exception_type(ArchiveUnreachable),
        reraise=True,
    )
