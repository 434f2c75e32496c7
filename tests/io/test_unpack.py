"""Archives and indexes of disks: what they hold is read, and nothing leads out of them."""

import io
import os
import shutil
import stat
import struct
import subprocess
import sys
import warnings
import zipfile

import pytest
from pydicom import dcmread
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid

from pellucid.core.errors import UnreadableImage
from pellucid.io import unpack as unpacking
from pellucid.io.reader import read_cases, read_image
from pellucid.io.unpack import is_zip, unpack


def zipped(path, entries, form=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", form) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def series(tmp_path, phantom, write):
    made = phantom()
    return made, write(tmp_path / "series", made.datasets())


def test_a_zipped_series_is_the_series(tmp_path, series):
    made, folder = series
    entries = {f"ANNA SMITH/1.2.3/{file.name}": file.read_bytes() for file in folder.iterdir()}
    path = zipped(tmp_path / "study.zip", {**entries, "__MACOSX/._x": b"x", "ANNA SMITH/.DS_Store": b"x"})
    image = read_image(path)
    assert image.digest == read_image(folder).digest
    cases = read_cases(path)
    assert [case.images["image"].digest for case in cases.cases] == [image.digest]
    assert cases.cases[0].name == f"case-{image.digest[:8]}"
    files = cases.cases[0].files["image"]
    assert len(files) == len(made.hu)
    assert stat.S_IMODE(unpacking._unpacked(path, *_state(path)).stat().st_mode) == 0o700
    assert dcmread(files[0]).Rows == 16  # opened again later, as objects bound to them are
    assert unpack(path) == unpack(path)


def _state(path):
    return path.stat().st_size, path.stat().st_mtime_ns


def test_other_images_in_archives(tmp_path, packaged):
    film = packaged("RG1_UNCR.dcm").read_bytes()
    one = zipped(tmp_path / "one.zip", {"film.dcm": film})
    assert read_image(one).digest == read_image(packaged("RG1_UNCR.dcm")).digest
    two = zipped(tmp_path / "two.zip", {"a/film": film, "a/knee": packaged("RG3_UNCR.dcm").read_bytes()})
    assert len(read_cases(two).cases) == 2
    (tmp_path / "cases.csv").write_text("image,name\none.zip,first\n")
    assert [case.name for case in read_cases(tmp_path / "cases.csv").cases] == ["first"]
    with pytest.raises(UnreadableImage, match="a folder with images, got one without"):
        read_cases(zipped(tmp_path / "none.zip", {"a.txt": b"nothing", "b.txt": b"nothing"}))


def test_what_was_unpacked_is_gone_with_the_process(tmp_path, series):
    path = zipped(tmp_path / "s.zip", {file.name: file.read_bytes() for file in series[1].iterdir()})
    room = tmp_path / "rooms"
    room.mkdir()
    code = "import sys; from pathlib import Path; from pellucid.io.unpack import unpack"
    code += "; print(len(list(unpack(Path(sys.argv[1])).iterdir())))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "TMPDIR": str(room)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "6"
    assert list(room.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path, series, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    rooms = tmp_path / "rooms"
    left, mine, others = (rooms / f"{unpacking._ROOM}{name}-x" for name in (ended.pid, os.getppid(), "notes"))
    for folder in (left, mine, others):
        folder.mkdir(parents=True)
        (folder / "slice").write_bytes(b"x")
    monkeypatch.setattr("tempfile.tempdir", str(rooms))
    unpack(zipped(tmp_path / "s.zip", {file.name: file.read_bytes() for file in series[1].iterdir()}))
    assert not left.exists()
    assert mine.exists()  # its process lives
    assert others.exists()


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../../x", "leads out of it"),
        ("a/../../x", "leads out of it"),
        ("/etc/x", "leads out of it"),
        ("..\\..\\x", "leads out of it"),
        ("C:/x", "leads out of it"),
        ("a/" * 20 + "x", "leads out of it"),
        ("x" * 2000, "leads out of it"),
    ],
)
def test_names_that_lead_out_are_refused(tmp_path, name, why):
    room = tmp_path / "in" / "side"
    room.mkdir(parents=True)
    path = zipped(room / "x.zip", {"fine.dcm": b"fine", name: b"evil"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UnreadableImage, match=why) as caught:
        read_image(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert "etc" not in str(caught.value)


def test_links_passwords_and_doubles_are_refused(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link("image.dcm"), "/etc/hostname")
    with pytest.raises(UnreadableImage, match="a link or a device"):
        read_image(path)
    zipped(path, {"a": b"x", "A": b"y"})
    with pytest.raises(UnreadableImage, match="got one twice"):
        read_image(path)
    content = bytearray(zipped(path, {"a": b"x"}, zipfile.ZIP_STORED).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match="with a password"):
        read_image(path)
    path.write_bytes(b"PK\x03\x04" + b"\0" * 100)
    with pytest.raises(UnreadableImage, match="without its end"):
        read_image(path)
    assert not is_zip(tmp_path / "absent")


def test_bombs_are_refused_before_and_while_they_are_inflated(tmp_path, monkeypatch):
    flat = zipped(tmp_path / "flat.zip", {"a.dcm": b"\0" * 2**27})
    assert flat.stat().st_size < 2**18
    with pytest.raises(UnreadableImage, match="times its own size"):
        read_image(flat)
    monkeypatch.setattr(unpacking, "_ALWAYS", 2**20)
    content = bytearray(zipped(tmp_path / "lies.zip", {"a.dcm": b"\0" * 2**24}).read_bytes())
    at = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, at + 24, 100)  # the list says a hundred bytes
    (tmp_path / "lies.zip").write_bytes(content)
    with pytest.raises(UnreadableImage, match=r"times its own|damaged or incomplete"):
        read_image(tmp_path / "lies.zip")
    monkeypatch.setattr(unpacking, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(UnreadableImage, match="at most 1000 bytes inside"):
        read_image(zipped(tmp_path / "large.zip", {"a.dcm": os.urandom(2000)}))


def test_a_million_entries_are_not_listed(tmp_path):
    small = io.BytesIO()
    with zipfile.ZipFile(small, "w") as archive:
        archive.writestr("x", b"")
    whole = small.getvalue()
    at, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    entry = whole[at:end]
    record = bytearray(whole[end:])
    struct.pack_into("<HHI", record, 8, 65535, 65535, 1_000_000 * len(entry))
    (tmp_path / "x.zip").write_bytes(whole[:at] + entry * 1_000_000 + bytes(record))
    with pytest.raises(UnreadableImage, match=r"at most 100000 entries, got a list of \d+ bytes"):
        read_image(tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        for number in range(20):
            archive.writestr(str(number), b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpacking, "MAX_ENTRIES", 10)
        with pytest.raises(UnreadableImage, match="at most 10 entries, got 20"):
            read_image(tmp_path / "y.zip")


def test_a_refused_archive_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "rooms"))
    (tmp_path / "rooms").mkdir()
    with pytest.raises(UnreadableImage):
        read_image(zipped(tmp_path / "x.zip", {"a": b"1", "../b": b"2"}))
    assert list((tmp_path / "rooms").iterdir()) == []


# --- DICOMDIR


def disk(folder, datasets):
    files = FileSet()
    for data in datasets:
        data.PatientID, data.StudyID, data.StudyDate, data.StudyTime = "x", "1", "20200101", "120000"
        files.add(data)
    files.write(folder)
    files._stage["t"].cleanup()
    return folder / "DICOMDIR"


def test_the_index_of_a_disk_leads_to_its_series(tmp_path, phantom, packaged):
    made = phantom()
    index = disk(tmp_path / "disk", made.datasets())
    (tmp_path / "disk" / "readme.png").write_bytes(b"\x89PNG\r\n\x1a\n decoration")
    for path in (index, tmp_path / "disk"):
        cases = read_cases(path).cases
        assert [case.images["image"].data.shape for case in cases] == [(1, 6, 16, 20)]
    assert read_image(index).digest == cases[0].images["image"].digest
    with pytest.raises(UnreadableImage, match=r"expected one series, got \d+: .*--series NUMBER"):
        read_image(packaged("DICOMDIR"))


def test_an_index_that_names_files_elsewhere_is_refused(tmp_path, phantom):
    index = disk(tmp_path / "disk", phantom(shape=(2, 16, 20), bright=(0, 0, 0)).datasets())
    (tmp_path / "secret").write_bytes(b"x" * 500)
    record = dcmread(index)
    image = next(item for item in record.DirectoryRecordSequence if "ReferencedFileID" in item)
    known = list(image.ReferencedFileID)
    for crafted in (["..", "secret"], ["..\\..\\secret"], ["/etc", "hostname"], ["..", "..", "secret"]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom minds them, as it should
            image.ReferencedFileID = crafted
            record.save_as(index)
        with pytest.raises(UnreadableImage, match=r"it names one outside|damaged"):
            read_cases(index)
    image.ReferencedFileID = ["LINK"]
    record.save_as(index)
    (tmp_path / "disk" / "LINK").symlink_to(tmp_path / "secret")
    with pytest.raises(UnreadableImage, match="it names one outside"):
        read_cases(index)
    image.ReferencedFileID = known
    record.save_as(index)
    shutil.rmtree(tmp_path / "disk" / known[0])
    with pytest.raises(UnreadableImage, match="the 2 files that the index of the disk names, 2 are missing"):
        read_cases(index)


def test_records_that_point_at_each_other_end(tmp_path, phantom):
    index = disk(tmp_path / "disk", phantom(shape=(2, 16, 20), bright=(0, 0, 0)).datasets())
    record = dcmread(index)
    for item in record.DirectoryRecordSequence:
        item.OffsetOfTheNextDirectoryRecord = record.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity
    record.save_as(index)
    assert read_image(index).grid.rank == 3


# --- folders in folders


def test_a_study_in_folders_is_one_case_of_each_series(tmp_path, phantom, write):
    for patient in ("p1", "p2"):
        write(tmp_path / "in" / patient / "study" / "ct", phantom().datasets())
    cases = read_cases(tmp_path / "in")
    assert len(cases.cases) == 2
    assert cases.failures == ()


def test_uids_and_names_that_are_paths_name_nothing(tmp_path, phantom, write):
    datasets = phantom().datasets()
    truth = read_image(write(tmp_path / "s", datasets)).digest
    for uid in ("../../etc/passwd", "1." + "2" * 63, "1.2\0.3", generate_uid()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom minds them, as it should
            for data in datasets:
                data.SeriesInstanceUID = data.StudyInstanceUID = uid
                data.PatientID = "../../x"
            case = read_cases(write(tmp_path / "t", datasets)).cases[0]
        assert (case.name, case.images["image"].digest) == (f"case-{truth[:8]}", truth)
