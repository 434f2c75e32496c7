"""Images are told by their first bytes."""

import gzip
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Picture

from pellucid.core.errors import UnreadableImage
from pellucid.io.formats import Format, find_format, image_format
from pellucid.io.reader import read_image


@pytest.fixture
def files(tmp_path, packaged):
    gray = Picture.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))
    for name, kind in (("a", "PNG"), ("b", "JPEG"), ("c", "TIFF")):
        gray.save(tmp_path / name, format=kind)
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.float32), np.eye(4)), tmp_path / "d.nii")
    nib.save(nib.Nifti2Image(np.ones((3, 4, 5), np.float32), np.eye(4)), tmp_path / "e.nii.gz")
    shutil.copy(packaged("CT_small.dcm"), tmp_path / "f")
    shutil.copy(packaged("OT-PAL-8-face.dcm"), tmp_path / "g")  # no preamble
    expected = (Format.PNG, Format.JPEG, Format.TIFF, Format.NIFTI, Format.NIFTI, Format.DICOM, Format.DICOM)
    return dict(zip(sorted(tmp_path.iterdir()), expected, strict=True))


def test_the_content_decides_and_a_wrong_name_changes_nothing(files, tmp_path):
    for path, kind in files.items():
        assert image_format(path) is kind
        for wrong in ("x.dcm", "x.png", "x.nii.gz", "x"):
            other = tmp_path / "named" / wrong
            other.parent.mkdir(exist_ok=True)
            shutil.copy(path, other)
            assert image_format(other) is kind
            assert read_image(other).digest == read_image(path).digest


def test_a_dicom_whose_preamble_poses_as_a_tiff_is_a_dicom(tmp_path, packaged):
    content = packaged("CT_small.dcm").read_bytes()
    path = tmp_path / "dual.tif"
    path.write_bytes(b"II*\0" + content[4:])
    assert read_image(path).unit == "HU"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"patient,score\n1,0.5\n" * 9, "a text file"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 400, "a file of an unknown kind"),
        (b"#EXTM3U\n" + b"#EXTINF:1,\n/etc/hosts\n" * 20, "a playlist"),
        (b"PK\x03\x04" + b"\0" * 400, "a zip archive"),
        (gzip.compress(b"hello" * 200, mtime=0), "a gzip archive of something else"),
        (b"\x1f\x8b\x08\x00broken", "a damaged archive"),
        (b"\x93NUMPY" + b"\0" * 400, "a NumPy array"),
        (bytes(range(128, 256)) * 4, "a file of an unknown kind"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, content, named):
    path = tmp_path / "scan.png"
    path.write_bytes(content)
    assert find_format(path) is None
    with pytest.raises(
        UnreadableImage,
        match=f"expected a DICOM.*, BMP, GIF or TIFF image, got {named}",
    ):
        image_format(path)


def test_nothing_there_and_nothing_in_it(tmp_path):
    with pytest.raises(UnreadableImage, match="a path where there is none"):
        read_image(tmp_path / "absent.png")
    (tmp_path / "empty.dcm").touch()
    with pytest.raises(UnreadableImage, match="an empty file"):
        read_image(tmp_path / "empty.dcm")
