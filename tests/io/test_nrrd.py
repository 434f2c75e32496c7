"""NRRD as 3D Slicer reads it: values and places to the last digit."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from pellucid.core.errors import BadOption, ShapeMismatch
from pellucid.core.grid import Calibration, Grid, as_affine
from pellucid.io.nrrd import write_nrrd

VALUES = np.random.default_rng(5).normal(size=(4, 5, 6)).astype(np.float32)


def oblique() -> Grid:
    turn, _ = np.linalg.qr(np.random.default_rng(9).normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.sign(np.linalg.det(turn)) @ np.diag([2.5, 0.8, 0.6])
    matrix[:3, 3] = [-50.25, 31.5, 7.125]
    return Grid((4, 5, 6), as_affine(matrix), Calibration.PATIENT)


def test_itk_finds_every_voxel_where_the_grid_has_it(tmp_path: Path) -> None:
    grid = oblique()
    image = sitk.ReadImage(str(write_nrrd(VALUES, grid, tmp_path / "map.nrrd", "GradCAM of nodule")))
    assert (sitk.GetArrayFromImage(image) == VALUES).all()
    for index in ((0, 0, 0), (3, 4, 5), (1, 3, 2)):
        found = image.TransformIndexToPhysicalPoint(index[::-1])
        assert np.allclose(found, grid.world(np.asarray([index], float))[0], atol=1e-9)


def test_without_a_place_there_are_lengths_and_no_space(tmp_path: Path) -> None:
    grid = Grid.regular((4, 5, 6), (2.0, 0.5, 0.25))
    path = write_nrrd(VALUES, grid, tmp_path / "map.nrrd")
    assert b"space:" not in path.read_bytes()
    assert b"content" not in path.read_bytes()
    assert sitk.ReadImage(str(path)).GetSpacing() == (0.25, 0.5, 2.0)


def test_equal_maps_are_equal_files(tmp_path: Path) -> None:
    one, two = (write_nrrd(VALUES, oblique(), tmp_path / f"{n}.nrrd").read_bytes() for n in "ab")
    assert one == two


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="ends in"):
        write_nrrd(VALUES, oblique(), tmp_path / "map.nii")
    with pytest.raises(ShapeMismatch):
        write_nrrd(VALUES[1:], oblique(), tmp_path / "map.nrrd")
