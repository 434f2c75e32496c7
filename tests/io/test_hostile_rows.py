"""Files that pose as something else, lie among others, or come twice: right, or refused by name."""

import shutil

import numpy as np
import pydicom
import pytest
from PIL import Image as Picture

from pellucid.core.errors import NonFinite, UnreadableImage
from pellucid.core.image import Modality
from pellucid.io.reader import read_cases, read_image


@pytest.fixture
def one(phantom, tmp_path):
    data = phantom(shape=(1, 16, 20), bright=(0, 3, 15)).datasets()[0]
    data.save_as(tmp_path / "one", enforce_file_format=True)
    return tmp_path / "one"


@pytest.mark.parametrize(
    "start", [b"MZ\x90\0", b"\x7fELF\x02", b"<script>alert(1)</script>", b"II*\0\x08\0\0\0", b"%PDF-1.7"]
)
def test_a_preamble_that_poses_as_something_else_is_not_believed(one, tmp_path, start):
    """PS3.10 7.1: 128 bytes that mean nothing, which others may execute or open; objects we write have zeros there."""
    content = bytearray(one.read_bytes())
    content[: len(start)] = start
    (tmp_path / "x").write_bytes(content)
    assert read_image(tmp_path / "x").digest == read_image(one).digest


def test_a_picture_named_like_dicom_is_a_picture(tmp_path):
    Picture.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / "x.png")
    shutil.copy(tmp_path / "x.png", tmp_path / "x.dcm")
    assert read_image(tmp_path / "x.dcm", Modality.XRAY).data.shape == (1, 6, 8)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_not_explained(one, tmp_path, wrong):
    data = pydicom.dcmread(one)
    values = np.ones((16, 20), np.float32)
    values[3, 4] = wrong
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"):
        del data[name]
    data.BitsAllocated, data.FloatPixelData = 32, values.tobytes()
    data.save_as(tmp_path / "x", enforce_file_format=True)
    with pytest.raises((NonFinite, UnreadableImage), match=r"NaN or infinite|damaged or incomplete"):
        read_image(tmp_path / "x")


def test_a_slice_that_comes_twice_is_refused_with_whatever_bytes(tmp_path, phantom, write):
    datasets = phantom().datasets()
    folder = write(tmp_path / "s", datasets)
    shutil.copy(next(iter(folder.iterdir())), folder / "again")
    with pytest.raises(UnreadableImage, match="1 of 7 positions occupied twice"):
        read_image(folder)
    other = pydicom.dcmread(folder / "again")  # the same UID, other bytes: nobody can say which is meant
    other.PixelData = np.zeros(16 * 20, np.uint16).tobytes()
    other.save_as(folder / "again")
    with pytest.raises(UnreadableImage, match="1 of 7 positions occupied twice"):
        read_cases(folder)


def test_two_patients_in_one_folder_are_never_one_case(tmp_path, phantom, write):
    made = phantom()
    folder = write(tmp_path / "s", made.datasets())
    for path in write(tmp_path / "t", phantom(bright=(1, 1, 1)).datasets()).iterdir():
        shutil.copy(path, folder / f"b{path.name}")
    with pytest.raises(UnreadableImage, match="expected one series, got 2"):
        read_image(folder)
