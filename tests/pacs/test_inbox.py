"""What comes in: hostile identifiers, sizes and codings are refused, and names say nothing."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from pellucid.pacs.inbox import DUPLICATE, FULL, MISMATCH, SUCCESS, UNCLEAR, Inbox
from pellucid.pacs.settings import Limits

Make = Callable[..., Dataset]


def content(data: Dataset) -> bytes:
    stream = BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def unchecked(data: Dataset) -> bytes:
    """The same without what pydicom corrects or refuses when it writes."""
    stream = BytesIO()
    data.preamble = bytes(128)
    data.save_as(stream, enforce_file_format=False)
    return stream.getvalue()


def inbox(folder: Path, data: Dataset, limits: Limits | None = None) -> Inbox:
    return Inbox({str(data.SeriesInstanceUID): folder / "series-01"}, limits or Limits())


def test_an_object_is_kept_under_a_name_without_identity(make: Make, tmp_path: Path) -> None:
    data = make()
    box = inbox(tmp_path, data)
    program = b"MZ" + content(data)[2:]
    assert box.take(program) == SUCCESS
    (path,) = (tmp_path / "series-01").iterdir()
    assert path.read_bytes() == content(data)
    assert path.read_bytes()[:128] == bytes(128), "a preamble that a machine could run"
    assert str(data.SOPInstanceUID) not in path.name
    assert dcmread(path).PixelData == data.PixelData
    assert box.take(content(data)) == SUCCESS
    assert len(list((tmp_path / "series-01").iterdir())) == 1


@pytest.mark.parametrize(
    "uid", ["../../etc/passwd", "1." + "2" * 63, "1.2\0/../x", "", "1..2", "1.02", "/etc/passwd", "1.2 or 1"]
)
@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "SOPClassUID"])
@pytest.mark.filterwarnings("ignore")
def test_a_uid_that_is_none_is_refused(make: Make, tmp_path: Path, uid: str, keyword: str) -> None:
    plain = make()
    data = make(**{keyword: uid})
    box = Inbox({uid: tmp_path / "x", str(plain.SeriesInstanceUID): tmp_path / "y"}, Limits())
    assert box.take(unchecked(data)) == MISMATCH
    assert list(tmp_path.iterdir()) == []
    assert not box.taken


def test_a_header_that_names_another_object_is_refused(make: Make, tmp_path: Path) -> None:
    data = make()
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    assert inbox(tmp_path, data).take(unchecked(data)) == MISMATCH
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    assert inbox(tmp_path, data).take(unchecked(data)) == SUCCESS


def test_a_series_that_nobody_asked_for_is_refused(make: Make, tmp_path: Path) -> None:
    box = Inbox({generate_uid(): tmp_path / "x"}, Limits())
    assert box.take(content(make())) == MISMATCH
    assert box.refused == {"invalid or unexpected UIDs": 1}


def test_other_bytes_under_the_same_uid_keep_the_first(make: Make, tmp_path: Path) -> None:
    first, second = make(), make(PixelData=bytes(144))
    box = inbox(tmp_path, first)
    assert box.take(content(first)) == SUCCESS
    assert box.take(content(second)) == DUPLICATE
    again = inbox(tmp_path, first)
    assert again.take(content(second)) == DUPLICATE, "also where an earlier fetch brought the first"
    (path,) = (tmp_path / "series-01").iterdir()
    assert dcmread(path).PixelData == first.PixelData


def test_deflated_is_refused_before_it_is_inflated(make: Make, tmp_path: Path) -> None:
    data = make(PixelData=bytes(2**22))
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    packed = content(data)
    assert len(packed) < 2**16
    assert inbox(tmp_path, data).take(packed) == UNCLEAR
    assert list(tmp_path.iterdir()) == []


def test_limits_on_size_and_number(make: Make, tmp_path: Path) -> None:
    objects = [make(n, SeriesInstanceUID="1.2.3") for n in range(3)]
    box = inbox(tmp_path, objects[0], Limits(objects=2))
    assert [box.take(content(each)) for each in objects] == [SUCCESS, SUCCESS, FULL]
    large = make(4, SeriesInstanceUID="1.2.3", PixelData=bytes(2**20))
    assert inbox(tmp_path, large, Limits(object_mib=1)).take(content(large)) == FULL
    assert box.refusals == 1


@pytest.mark.parametrize("cut", [0, 100, 131, 140, 200, 300])
def test_a_part_of_an_object_is_refused(make: Make, tmp_path: Path, cut: int) -> None:
    data = make()
    assert inbox(tmp_path, data).take(content(data)[:cut]) in (UNCLEAR, MISMATCH)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_file_is_said_to_the_archive(make: Make, tmp_path: Path) -> None:
    (tmp_path / "series-01").write_bytes(b"a file where the folder should be")
    data = make()
    assert inbox(tmp_path, data).take(content(data)) == FULL
