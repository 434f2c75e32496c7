"""Files that lie: refused in bounded time and memory, and without a word of who the patient is."""

import logging
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from pellucid.core.errors import InputError, PellucidError, UnreadableImage
from pellucid.io import apart, dicomfile, guard
from pellucid.io.codestream import jpeg2000_size, jpeg_size
from pellucid.io.reader import read_cases, read_image


@pytest.fixture
def one(phantom):
    return phantom(shape=(1, 16, 20), bright=(0, 3, 15)).datasets()[0]


def refused(path, match):
    """The message of a refusal that took under a second and under 64 MB."""
    started = time.perf_counter()
    tracemalloc.start()
    with pytest.raises(InputError, match=match) as caught:
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.perf_counter() - started < 10
    assert peak < 64e6
    return str(caught.value)


@pytest.mark.parametrize(
    ("tags", "match"),
    [
        ({"Rows": 65535, "Columns": 65535}, "declares 65535 x 65535 x 1 x 1"),
        ({"NumberOfFrames": 2**31 - 1}, "declares 16 x 20 x 1 x 2147483647"),
        ({"NumberOfFrames": 0}, "at least one voxel"),
        ({"Rows": 0}, "at least one voxel"),
        ({"BitsStored": 20}, "got 20 of 16"),
        ({"Rows": 17}, "pixels that decode"),
        ({"PixelSpacing": [0, 0.6]}, "missing, zero, negative or not a number"),
        ({"PixelSpacing": [-0.8, 0.6]}, "missing, zero, negative or not a number"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not perpendicular unit vectors"),
    ],
)
def test_headers_that_lie(tmp_path, one, tags, match):
    for name, value in tags.items():
        setattr(one, name, value)
    one.save_as(tmp_path / "x", enforce_file_format=True)
    refused(tmp_path / "x", match)


def test_a_spacing_that_is_no_number(tmp_path, one):
    one.PixelSpacing = [0.8, 0.6]
    one.save_as(tmp_path / "x", enforce_file_format=True)
    content = (tmp_path / "x").read_bytes()
    for wrong in (b"nan\\0.6", b"inf\\0.6", b"abc\\0.6"):
        (tmp_path / "x").write_bytes(content.replace(b"0.8\\0.6", wrong))
        refused(tmp_path / "x", "missing, zero, negative or not a number|damaged")


def test_a_deflated_bomb_is_measured_and_not_inflated(tmp_path, one, monkeypatch):
    monkeypatch.setattr(dicomfile, "MAX_INFLATED_BYTES", 2**22)
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    one.save_as(tmp_path / "good", enforce_file_format=True)
    assert read_image(tmp_path / "good").unit == "HU"
    whole = (tmp_path / "good").read_bytes()
    meta = whole[: 144 + struct.unpack("<I", whole[140:144])[0]]
    squeeze = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = b"".join(squeeze.compress(b"\0" * 2**20) for _ in range(6))
    (tmp_path / "bomb").write_bytes(meta + packed + squeeze.flush())
    assert (tmp_path / "bomb").stat().st_size < 1e6
    refused(tmp_path / "bomb", "inflates beyond it")


def test_a_run_length_bomb_is_refused_by_its_declared_size(tmp_path, one):
    one.file_meta.TransferSyntaxUID = RLELossless
    one.Rows = one.Columns = 60000
    one.PixelData = pydicom.encaps.encapsulate([b"\x01\0\0\0\x40\0\0\0" + b"\0" * 56 + b"\x81\0" * 1000])
    one["PixelData"].is_undefined_length = True
    one.save_as(tmp_path / "x", enforce_file_format=True)
    refused(tmp_path / "x", "declares 60000 x 60000")


@pytest.mark.parametrize(
    ("name", "marker", "offset", "form"),
    [
        ("MR_small_jp2klossless.dcm", b"\xff\x4f\xff\x51", 8, ">I"),
        ("MR_small_jpeg_ls_lossless.dcm", b"\xff\xf7", 5, ">H"),
        ("SC_rgb_small_odd_jpeg.dcm", b"\xff\xc0", 5, ">H"),
        ("JPEG-LL.dcm", b"\xff\xc3", 5, ">H"),
    ],
)
def test_a_codestream_larger_than_its_header_is_not_decoded(tmp_path, packaged, name, marker, offset, form):
    content = bytearray(packaged(name).read_bytes())
    assert read_image(packaged(name)).data.numel() > 0
    struct.pack_into(form, content, content.index(marker) + offset, 60000)
    (tmp_path / "x").write_bytes(bytes(content))
    refused(tmp_path / "x", r"compressed pixels of \d+ x \d+ as the header says, got .*60000")


def test_a_stream_that_ends_its_decoder_does_not_end_us(tmp_path, packaged):
    """Found by fuzzing: gdcm 3.2.6 calls abort() on this copy of a JPEG Lossless file, which Python cannot catch."""
    content = bytearray(packaged("SC_rgb_jpeg_gdcm.dcm").read_bytes())
    rng = np.random.default_rng(161)
    for place in rng.integers(132, len(content), 6):
        content[place] = int(rng.integers(256))
    (tmp_path / "x").write_bytes(bytes(content))
    refused(tmp_path / "x", r"pixels that decode as JPEG Lossless.*, got damaged or incomplete data")
    (tmp_path / "cases.csv").write_text(f"image\nx\n{packaged('CT_small.dcm')}\n")
    assert [len(part) for part in (read_cases(tmp_path / "cases.csv").cases, read_cases(tmp_path).failures)] == [1, 1]


def test_a_stream_that_stalls_its_decoder_is_stopped(packaged, monkeypatch):
    for name in ("START_SECONDS", "_FILE_SECONDS"):
        monkeypatch.setattr(apart, name, 0.0)
    with pytest.raises(UnreadableImage, match="pixels that decode within 0 s, got some that do not"):
        read_image(packaged("MR_small_jpeg_ls_lossless.dcm"))


def test_codestreams_of_real_files_say_their_size(packaged):
    names = (
        "GDCMJ2K_TextGBR.dcm",
        "RG1_J2KR.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "JPEGLSNearLossless_08.dcm",
        "JPEG-lossy.dcm",
    )
    for name in names:
        raw = pydicom.dcmread(packaged(name))
        frame = next(pydicom.encaps.generate_frames(raw.PixelData, number_of_frames=1))
        measure = jpeg2000_size if "JPEG 2000" in raw.file_meta.TransferSyntaxUID.name else jpeg_size
        assert measure(frame) == (raw.Rows, raw.Columns)
    for stream in (b"", b"\xff\xd8", b"\xff\xd8\xff\xc0\0", b"\xff\x4f\xff\x51\0", b"\0" * 99, b"\xff" * 99):
        assert jpeg_size(stream) is None
        assert jpeg2000_size(stream) is None


def test_sequences_nested_beyond_reason(tmp_path, one):
    one.save_as(tmp_path / "x", enforce_file_format=True)
    content = (tmp_path / "x").read_bytes()
    start = content.index(b"\x08\0\x05\0") if b"\x08\0\x05\0" in content else content.index(b"\x08\0\x08\0")
    nest = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 50_000
    (tmp_path / "x").write_bytes(content[:start] + nest)
    refused(tmp_path / "x", "damaged|without pixels|expected a DICOM")


def test_files_that_are_too_large_are_not_opened(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)
    monkeypatch.setattr(guard, "MAX_FILE_BYTES", 50)
    with pytest.raises(UnreadableImage, match="at most 50 bytes, got 108"):
        read_image(tmp_path / "x.png")


def test_memory_that_runs_out_is_said_plainly():
    with pytest.raises(UnreadableImage, match="that fits into memory"), guard.reading("a picture", "mend"):
        raise MemoryError


def test_mutated_headers_raise_nothing_but_our_errors(tmp_path, one, packaged, canary):
    """A seeded walk over damaged copies of real and synthetic files."""
    one.save_as(tmp_path / "own", enforce_file_format=True)
    names = ("MR_small.dcm", "SC_rgb_small_odd_jpeg.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm")
    rng = np.random.default_rng(11)
    outcomes, said = {"read": 0, "refused": 0}, []
    for source in (tmp_path / "own", *(packaged(name) for name in names)):
        whole = source.read_bytes()
        for _ in range(40):
            content = bytearray(whole)
            for place in rng.integers(132, min(len(whole), 3000), 6):
                content[place] = int(rng.integers(256))
            (tmp_path / "x").write_bytes(bytes(content))
            try:
                read_image(tmp_path / "x")
                outcomes["read"] += 1
            except PellucidError as error:
                outcomes["refused"] += 1
                said.append(str(error))
    assert not [part for part in canary for line in said if part in line]
    assert outcomes["refused"] > 30
    assert outcomes["read"] > 10


def chain(error):
    while error is not None:
        yield error
        error = error.__cause__ if error.__suppress_context__ else error.__cause__ or error.__context__


def test_no_refusal_names_the_patient(tmp_path, phantom, canary, caplog, capfd, recwarn):
    """Files named after the patient, with the name in the header, broken in every way there is."""
    caplog.set_level(logging.DEBUG)
    made = phantom()
    folder = tmp_path / "in"
    folder.mkdir()
    for k, data in enumerate(made.datasets()):
        data["PatientBirthDate"] = pydicom.DataElement("PatientBirthDate", "LO", canary[0])
        data.save_as(folder / f"{canary[0]}_{k}.dcm", enforce_file_format=True)
    whole = next(iter(sorted(folder.iterdir()))).read_bytes()
    broken = {
        "cut": whole[:-50],
        "header": whole[:500],
        "text": f"{canary[0]} {canary[2]}".encode() * 30,
        "empty": b"",
        "spacing": whole.replace(b"0.8\\0.6 ", canary[0][:8].encode()),
        "rows": whole.replace(b"(\0\x10\0US\2\0\x10\0", b"(\0\x10\0US\2\0\x11\0"),
        "syntax": whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.\0"[:20]),
        "intercept": whole.replace(b"-1024.0 ", b"ZEBRA   "),
    }
    for name, content in broken.items():
        path = tmp_path / "broken" / f"{canary[0]}^{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    messages = []
    for path in (*(tmp_path / "broken").iterdir(), tmp_path / "nowhere" / f"{canary[0]}.dcm"):
        with pytest.raises(PellucidError) as caught:
            read_image(path)
        messages += [str(e) + repr(e) for e in chain(caught.value)]
    with pytest.raises(PellucidError) as caught:
        read_cases(tmp_path / "broken")
    table = tmp_path / "cases.csv"
    table.write_text("\n".join(["image", *(f"broken/{path.name}" for path in (tmp_path / "broken").iterdir())]))
    messages += [str(caught.value), repr(read_cases(table).failures)]
    image = read_image(folder)
    case = read_cases(folder).cases[0]
    messages += [repr(image.traits), repr(image.grid), case.name]
    captured = capfd.readouterr()
    spoken = "\n".join([*messages, caplog.text, captured.out, captured.err, *(str(w.message) for w in recwarn)])
    assert len(messages) >= 14
    assert not [part for part in canary if part in spoken]
    raw = pydicom.dcmread(tmp_path / "broken" / f"{canary[0]}^intercept.png")
    with pytest.raises(ValueError, match="ZEBRA"):  # the decoder itself would have said it
        float(raw.RescaleIntercept)


def test_what_a_decoder_would_log_of_the_patient_is_dropped(tmp_path, one, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    one.save_as(tmp_path / "x", enforce_file_format=True)
    frame = one.FrameOfReferenceUID.encode()
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content.replace(frame, b"ZEBRA" + frame[5:]))
    assert read_image(tmp_path / "x").unit == "HU"
    assert "ZEBRA" not in caplog.text
    assert not recwarn.list
    with pytest.warns(UserWarning, match="ZEBRA"):  # outside our guard the library speaks as before
        assert pydicom.dcmread(tmp_path / "x").FrameOfReferenceUID.startswith("ZEBRA")
    assert "ZEBRA" in caplog.text
