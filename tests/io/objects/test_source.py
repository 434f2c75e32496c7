"""The source of an object: its instances in order, in their place, and still what was explained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pydicom import dcmread

from pellucid.core.case import Case
from pellucid.core.errors import BadOption, ShapeMismatch, SourceChanged
from pellucid.core.image import Image
from pellucid.io.objects.source import check_dicom, open_source
from pellucid.io.reader import read_cases


@pytest.fixture
def oblique(phantom: type, write: Callable[..., Path], tmp_path: Path) -> tuple[object, Case]:
    """A shuffled, oblique, anisotropic series, and its truth."""
    about_x, about_z = np.deg2rad(17), np.deg2rad(-24)
    one = np.array([[1, 0, 0], [0, np.cos(about_x), -np.sin(about_x)], [0, np.sin(about_x), np.cos(about_x)]])
    two = np.array([[np.cos(about_z), -np.sin(about_z), 0], [np.sin(about_z), np.cos(about_z), 0], [0, 0, 1]])
    truth = phantom(turn=two @ one)
    return truth, read_cases(write(tmp_path / "series", truth.datasets())).cases[0]


def _image(case: Case) -> Image:
    return case.images["image"]


def test_headers_follow_the_first_axis_of_the_volume(oblique: tuple[object, Case]) -> None:
    truth, case = oblique
    source = open_source(case.files["image"], _image(case))
    ends = _image(case).grid.world(np.array([[k, 0, 0] for k in range(len(source.headers))], float))
    for header, place in zip(source.headers, ends, strict=True):
        assert np.allclose(np.asarray(header.ImagePositionPatient, float), place, atol=1e-4)
    assert source.frames == (1,) * len(truth.hu)
    assert source.aligned
    assert not source.flat
    assert source.geometry is not None
    assert np.allclose(source.geometry.affine, _image(case).grid.matrix)
    assert "CANARY" not in repr(source)
    assert all("PixelData" not in header for header in source.headers)


def test_a_cropped_image_keeps_the_slices_it_came_from(oblique: tuple[object, Case]) -> None:
    _, case = oblique
    whole, part = _image(case), _image(case).cropped((1, 2, 3), (3, 8, 9))
    everything = open_source(case.files["image"], whole)
    source = open_source(case.files["image"], part)
    assert source.start == (2, 3)
    assert [h.SOPInstanceUID for h in source.headers] == [h.SOPInstanceUID for h in everything.headers[1:4]]
    with pytest.raises(ShapeMismatch):
        source.volume(np.zeros(whole.grid.shape, np.float32))


def test_other_files_than_were_explained_are_refused(
    oblique: tuple[object, Case], phantom: type, write: Callable[..., Path], tmp_path: Path
) -> None:
    _, case = oblique
    image = _image(case)
    changed = image.data.clone()
    changed[0, 0, 0, 0] += 1
    with pytest.raises(SourceChanged, match="their values are others"):
        open_source(case.files["image"], replace(image, data=changed))
    other = read_cases(write(tmp_path / "other", phantom().datasets())).cases[0]
    with pytest.raises(SourceChanged, match="their geometry is another"):
        open_source(other.files["image"], image)
    with pytest.raises(SourceChanged, match="source has changed"):
        open_source(case.files["image"][:-1], image)
    mixed = dcmread(case.files["image"][0])
    mixed.PatientID = "SOMEBODYELSE"
    mixed.save_as(case.files["image"][0])
    with pytest.raises(SourceChanged, match="one patient") as caught:
        open_source(case.files["image"], image)
    assert "SOMEBODYELSE" not in str(caught.value)


def test_a_projection_has_one_source_and_no_place(packaged: Callable[[str], Path]) -> None:
    path = packaged("RG1_UNCR.dcm")
    case = read_cases(path).cases[0]
    source = open_source(case.files["image"], _image(case))
    assert source.flat
    assert source.geometry is None
    assert source.size == _image(case).grid.shape
    values = np.zeros(source.size, np.float32)
    assert source.flat_map(values).array.shape == source.size
    with pytest.raises(BadOption, match="frame of reference"):
        source.volume(values)
    with pytest.raises(BadOption, match="one source instance"):
        open_source((path, path), _image(case))


def test_only_dicom_files_have_a_study(tmp_path: Path) -> None:
    picture = tmp_path / "film.png"
    PIL.Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    with pytest.raises(BadOption, match="leave out --dicom"):
        check_dicom((picture,))
