"""Handing objects over so that "sent" means: the archive was asked afterwards, and has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from pydicom import dcmread

from pellucid.core.errors import ArchiveError, ArchiveRefused, ArchiveUnreachable
from pellucid.pacs.archive import Answer, Archive, retrying
from pellucid.pacs.extra import optional, quiet
from pellucid.pacs.outbox import Outbox
from pellucid.pacs.parcel import Parcel, Receipt, same_content

_FIRST_LOOK_S = 0.1
_SLOWEST_LOOK_S = 2.0
_DIFFERS = "another object stands there under the same UID: the first was kept, ours was not stored"
_UNPROVEN = "an object stands there under the same UID, and the archive cannot hand it back to be compared"
_LOST = "the archive accepted it, and does not list it"
_UNASKED = "the archive accepted it, and could not be asked whether it kept it"


@final
@dataclass(frozen=True)
class Delivery:
    """One archive, and what is known of earlier deliveries to it.

    Args:
        archive: to send to.
        identity: digest of its address.
        outbox: what was noted.
        compare: fetch every object back, and compare its content.
    """

    archive: Archive
    identity: str
    outbox: Outbox
    compare: bool = False

    def send(self, parcels: Sequence[Parcel], told: Callable[[str, int], None]) -> dict[Parcel, Receipt]:
        """Send what the archive does not have, and ask it afterwards.

        An object that is there already is compared with ours, unless the outbox says that it is ours. It is never
        sent again: an archive may keep either of two objects under one UID.

        Args:
            parcels: to send.
            told: is told of each step and how many objects it is done with.

        Raises:
            ArchiveError: the archive cannot be asked at all; nothing was sent then.
        """
        receipts: dict[Parcel, Receipt] = {}
        before = retrying(self.archive.pace)(self.archive.held, parcels)
        for each in parcels:
            if each.sop in before:
                receipts[each] = self._there(each)
                told("asked", 1)
        rest = [each for each in parcels if each not in receipts]
        self.outbox.note([each.digest for each in rest], self.identity, "sending")
        accepted = self._hand_over(rest, receipts, told)
        self._read_back(accepted, receipts)
        for each, receipt in receipts.items():
            self.outbox.note([each.digest], self.identity, receipt.state)
        return {each: receipts[each] for each in parcels}

    def _there(self, each: Parcel) -> Receipt:
        known = self.outbox.state(each.digest, self.identity) in ("stored", "there")
        if known and not self.compare:
            return Receipt("there", "it was there already")
        same = self._same(each)
        if same is None:
            return Receipt("there", "it was there already, not compared") if known else Receipt("differs", _UNPROVEN)
        return Receipt("there", "it was there already, with the same content") if same else Receipt("differs", _DIFFERS)

    def _same(self, each: Parcel) -> bool | None:
        found = retrying(self.archive.pace)(self.archive.recall, each)
        if found is None:
            return None
        with quiet():
            return same_content(dcmread(each.path), found)

    def _hand_over(
        self, rest: list[Parcel], receipts: dict[Parcel, Receipt], told: Callable[[str, int], None]
    ) -> dict[Parcel, Answer]:
        """Send with retries; what was refused or failed gets its receipt here, what may be there is returned."""
        pending, accepted, reasons = list(rest), dict[Parcel, Answer](), dict[Parcel, str]()

        def attempt() -> None:
            unanswered = list(pending)
            try:
                for each, answer in self.archive.store(tuple(pending)) if pending else ():
                    unanswered.remove(each)
                    reasons[each] = answer.words
                    if answer.again:
                        continue
                    pending.remove(each)
                    told("sent", 1)
                    if answer.accepted or answer.double:
                        accepted[each] = answer
                    else:
                        receipts[each] = Receipt("refused", answer.words)
            except ArchiveUnreachable as error:
                for each in unanswered[:1]:  # perhaps it is this object that breaks the connection: the others first
                    pending.append(pending.pop(pending.index(each)))
                reasons.update(dict.fromkeys(unanswered, error.problem))
                raise
            if pending:
                raise ArchiveUnreachable("the archive could not take all objects now", "try again later")

        try:
            retrying(self.archive.pace)(attempt)
        except ArchiveError as error:
            state = "refused" if isinstance(error, ArchiveRefused) else "failed"
            words = error.problem
            receipts.update({each: Receipt(state, reasons.get(each) or words) for each in pending})
        return accepted

    def _read_back(self, accepted: dict[Parcel, Answer], receipts: dict[Parcel, Receipt]) -> None:
        """Ask for what was accepted, for a while: an archive may list an object a moment after it took it."""
        if not accepted:
            return
        with optional():
            from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_exponential
        archive, parcels = self.archive, list(accepted)

        def missing() -> list[Parcel]:
            held = retrying(archive.pace)(archive.held, parcels)
            return [each for each in parcels if each.sop not in held]

        def give_up(state: RetryCallState) -> list[Parcel]:
            return state.outcome.result() if state.outcome else parcels

        looking = Retrying(
            stop=stop_after_delay(archive.pace.settle_s),
            wait=wait_exponential(multiplier=_FIRST_LOOK_S, max=_SLOWEST_LOOK_S),
            retry=retry_if_result(bool),
            retry_error_callback=give_up,
        )
        try:
            lost = looking(missing)
        except ArchiveError:
            receipts.update({each: Receipt("failed", _UNASKED) for each in parcels})
            return
        for each in parcels:
            receipts[each] = self._absent(accepted[each]) if each in lost else self._compared(each, accepted[each])

    def _absent(self, answer: Answer) -> Receipt:
        return Receipt("lost", _LOST) if answer.accepted else Receipt("refused", answer.words)

    def _compared(self, each: Parcel, answer: Answer) -> Receipt:
        words = answer.words
        if not self.compare and not answer.double:
            return Receipt("stored", words)
        try:
            same = self._same(each)
        except ArchiveError as error:
            return Receipt("failed", f"stored, and could not be fetched back to be compared: {error.problem}")
        if same is None and answer.double:
            return Receipt("differs", _UNPROVEN)
        if same is None:
            return Receipt("stored", "not compared: the archive cannot hand it back")
        words = "with the same content" if answer.double else words or "with the same content"
        return Receipt("stored", words) if same else Receipt("differs", _DIFFERS)
