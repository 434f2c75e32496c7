"""Sending over DIMSE to an archive that misbehaves, and fetching from it."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ParametricMapStorage, SecondaryCaptureImageStorage, generate_uid

from pellucid.core.errors import ArchiveError, ArchiveRefused, ArchiveUnreachable, BadOption
from pellucid.pacs.dimse import DimseArchive, groups
from pellucid.pacs.inbox import Inbox
from pellucid.pacs.outbox import Outbox
from pellucid.pacs.parcel import Parcel, parcel
from pellucid.pacs.query import Match, Query
from pellucid.pacs.sending import Delivery
from pellucid.pacs.settings import Dimse, Limits, Pace

Start = Callable[..., tuple]


def send(archive: DimseArchive, parcels: list[Parcel], outbox: Outbox, compare: bool = False) -> list[str]:
    receipts = Delivery(archive, "here", outbox, compare).send(parcels, lambda *_: None)
    assert list(receipts) == parcels
    return [receipt.state for receipt in receipts.values()]


def test_echo(moody: Start) -> None:
    _, archive = moody()
    archive.echo()


def test_sent_is_said_after_the_archive_lists_it_and_again_sends_nothing(
    moody: Start, parcels: list[Parcel], outbox: Outbox
) -> None:
    there, archive = moody()
    assert send(archive, parcels, outbox) == ["stored"] * 4
    assert set(there.held) == {each.sop for each in parcels}
    assert send(archive, parcels, outbox) == ["there"] * 4
    assert len(there.came) == 4
    kept = there.held[parcels[0].sop]
    assert kept.PixelData == dcmread(parcels[0].path).PixelData


def test_one_context_for_each_kind_and_coding(moody: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    there, archive = moody()
    send(archive, parcels, outbox)
    storing = [pairs for pairs in there.contexts if SecondaryCaptureImageStorage in dict(pairs)]
    wanted = {(each.sop_class, each.syntax) for each in parcels}
    assert [sorted(pairs) for pairs in storing] == [sorted(wanted)]


def test_out_of_resources_passes(moody: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    there, archive = moody(answers=[0xA700, 0, 0, 0, 0x0110])
    assert send(archive, parcels, outbox) == ["stored"] * 4
    assert there.came.count(parcels[0].sop) == 3
    assert len(there.came) == 6


def test_what_never_passes_is_not_tried_again(moody: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    there, archive = moody(answers=[0xA900, 0xC001])
    assert send(archive, parcels, outbox) == ["refused", "refused", "stored", "stored"]
    assert len(there.came) == 4
    assert outbox.count() == {"refused": 2, "stored": 2}


def test_busy_for_ever_fails_each_object_and_goes_on_later(moody: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    there, archive = moody(answers=[0xA700] * 12)
    assert send(archive, parcels, outbox) == ["failed"] * 4
    assert len(there.came) == 3 * 4
    there.answers.clear()
    assert send(archive, parcels, outbox) == ["stored"] * 4


def test_accepted_and_lost_is_not_called_sent(moody: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    there, archive = moody(lose=True)
    assert send(archive, parcels, outbox) == ["lost"] * 4
    assert len(there.came) == 4


def test_an_archive_that_hangs_is_left(moody: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    pace = Pace(connect_s=1.0, answer_s=0.3, attempts=2, wait_s=0.01, settle_s=0.1)
    there, archive = moody(pace=pace, hang=0.8)
    assert send(archive, parcels, outbox) == ["failed"] * 4
    assert len(set(there.came)) == 2, "the second attempt begins with another object"


def test_an_abort_midway_is_mended(moody: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    there, archive = moody(abort_at=2)
    assert send(archive, parcels, outbox) == ["stored"] * 4
    assert there.came[1] in there.came[2:]


def test_an_archive_that_leaves_between_two_objects(moody: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    there, archive = moody(leave_at=1)
    receipts = Delivery(archive, "here", outbox).send(parcels, lambda *_: time.sleep(0.2))
    assert [r.state for r in receipts.values()] == ["stored"] * 4
    assert there.associations > 3, "asked, sent, sent again and asked"


@pytest.mark.parametrize(("ours", "state"), [(True, "stored"), (False, "differs")])
def test_a_double_is_compared_and_neither_refused_nor_believed(
    moody: Start, parcels: list[Parcel], outbox: Outbox, make: Callable[..., Dataset], ours: bool, state: str
) -> None:
    there, archive = moody(doubles=0x0111)
    kept = make(1) if ours else make(1, PixelData=bytes(144))

    def meanwhile(step: str, _: int) -> None:
        there.held[parcels[0].sop] = kept

    receipts = Delivery(archive, "here", outbox).send(parcels[1:2] + parcels[:1], meanwhile)
    assert [r.state for r in receipts.values()] == ["stored", state]


@pytest.mark.parametrize(("mood", "word"), [({"ae": "WRONG"}, "AE title"), ({"only": "OTHER"}, "our AE title")])
def test_a_refused_association_is_told_and_not_tried_again(
    moody: Start, parcels: list[Parcel], outbox: Outbox, mood: dict[str, str], word: str
) -> None:
    there, archive = moody(**mood)
    with pytest.raises(ArchiveRefused, match=word):
        send(archive, parcels, outbox)
    assert not there.came
    assert there.associations == 1


def test_nobody_there(moody: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    archive = DimseArchive(Dimse("dimse", "127.0.0.1", 1, "X", pace=Pace(connect_s=0.5, attempts=2, wait_s=0)), "US")
    with pytest.raises(ArchiveUnreachable, match="cannot be reached"):
        send(archive, parcels, outbox)
    assert outbox.count() == {}


def test_a_kind_that_is_not_taken_is_refused_by_name(moody: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    there, archive = moody(kinds=[SecondaryCaptureImageStorage])
    receipts = Delivery(archive, "here", outbox).send(parcels, lambda *_: None)
    assert [r.state for r in receipts.values()] == ["stored"] * 3 + ["refused"]
    assert "Parametric Map Storage as Explicit VR Little Endian" in list(receipts.values())[-1].words
    assert len(there.came) == 3


@pytest.mark.parametrize("known", [False, True])
def test_other_content_under_the_same_uid_keeps_the_first(
    moody: Start, parcels: list[Parcel], outbox: Outbox, make: Callable[..., Dataset], tmp_path: Path, known: bool
) -> None:
    there, archive = moody()
    send(archive, parcels[:1], outbox if known else Outbox(tmp_path / "other.sqlite"))
    assert send(archive, parcels[:1], outbox, compare=True) == ["there"]
    changed = make(1, PixelData=bytes(144))
    changed.save_as(tmp_path / "changed.dcm", enforce_file_format=True)
    other = parcel(tmp_path / "changed.dcm", "changed.dcm", changed)
    assert send(archive, [other], outbox) == ["differs"]
    assert len(there.came) == 1
    assert there.held[other.sop].PixelData == dcmread(parcels[0].path).PixelData


def test_what_the_archive_cannot_give_back_is_not_taken_for_ours(
    moody: Start, parcels: list[Parcel], outbox: Outbox, tmp_path: Path
) -> None:
    _, archive = moody(give=False)
    assert send(archive, parcels[:1], outbox) == ["stored"]
    assert send(archive, parcels[:1], outbox) == ["there"], "the outbox knows that it is ours"
    assert send(archive, parcels[:1], Outbox(tmp_path / "other.sqlite")) == ["differs"]


def test_coercion_by_the_archive_is_no_difference(moody: Start, parcels: list[Parcel], outbox: Outbox) -> None:
    there, archive = moody()
    send(archive, parcels[:1], outbox)
    there.held[parcels[0].sop].PatientName = "Other^Name"
    assert send(archive, parcels[:1], outbox, compare=True) == ["there"]
    there.held[parcels[0].sop].SeriesDescription = "no longer research"
    assert send(archive, parcels[:1], outbox, compare=True) == ["differs"]


def test_find_and_fetch_bring_the_bytes(moody: Start, parcels: list[Parcel], outbox: Outbox, tmp_path: Path) -> None:
    _, archive = moody()
    send(archive, parcels, outbox)
    found = archive.find(Query({"PatientID": "CANARYID7"}), 10)
    assert len(found) == 2
    captures = next(m for m in found if m.series == parcels[0].series)
    inbox = Inbox({captures.series: tmp_path / "in"}, Limits())
    archive.fetch(captures, inbox, lambda _: None)
    files = sorted((tmp_path / "in").iterdir())
    assert len(files) == 3
    wanted = {dcmread(each.path).PixelData for each in parcels[:3]}
    assert {dcmread(path).PixelData for path in files} == wanted
    archive.fetch(captures, inbox, lambda _: None)
    assert sorted((tmp_path / "in").iterdir()) == files
    with pytest.raises(ArchiveError, match="counts 4 objects in this series and lists 3"):
        archive.fetch(replace(captures, instances=4), inbox, lambda _: None)


def test_find_by_a_series_key_alone_is_refused(moody: Start) -> None:
    _, archive = moody()
    with pytest.raises(BadOption, match="key of the study"):
        archive.find(Query({"Modality": "CT"}), 10)


def test_a_series_that_is_not_there(moody: Start, tmp_path: Path) -> None:
    _, archive = moody()
    match = Match(generate_uid(), generate_uid())
    with pytest.raises(ArchiveError, match="lists no object"):
        archive.fetch(match, Inbox({match.series: tmp_path}, Limits()), lambda _: None)


def test_an_object_beyond_the_limit_ends_the_association(
    moody: Start, outbox: Outbox, make: Callable[..., Dataset], tmp_path: Path
) -> None:
    there, archive = moody(limits=Limits(object_mib=1))
    large = make(5, PixelData=bytes(4 * 2**20))
    there.held[str(large.SOPInstanceUID)] = large
    match = Match(str(large.StudyInstanceUID), str(large.SeriesInstanceUID))
    inbox = Inbox({match.series: tmp_path / "in"}, archive.limits)
    with pytest.raises(ArchiveUnreachable):
        archive.fetch(match, inbox, lambda _: None)
    assert not inbox.taken
    assert not (tmp_path / "in").exists()


def test_groups_hold_at_most_128_pairs(parcels: list[Parcel]) -> None:
    kinds = [ParametricMapStorage, SecondaryCaptureImageStorage]
    many = [
        Parcel(f"{n}", parcels[0].path, kinds[n % 2], f"1.2.{n}", "1.2", "1.2", f"1.2.{n // 2}", "") for n in range(300)
    ]
    sizes = [len(group) for group in groups(many, 1000)]
    assert sizes == [128, 128, 44]
    assert [len(group) for group in groups(many[:5], 2)] == [2, 2, 1]
