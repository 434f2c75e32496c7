"""NIfTI: the affine is the whole point, so it is checked against nibabel's own world coordinates."""

import gzip
from pathlib import Path

import nibabel as nib
import nilearn.datasets
import numpy as np
import pytest
import torch

from pellucid.core.errors import BadOption, NonFinite, ShapeMismatch, UnreadableImage, UnwritableOutput
from pellucid.core.grid import Calibration, Grid, as_affine
from pellucid.core.image import Modality
from pellucid.io.nifti import write_nifti
from pellucid.io.reader import read_image

OBLIQUE = np.array([[-0.9, 0.3, 0.2, 12.0], [0.35, 1.1, -0.1, -30.0], [0.05, 0.2, 2.4, 7.0], [0, 0, 0, 1]])
FLIP = np.diag([-1.0, -1.0, 1.0])


def save(path, values, affine=OBLIQUE, **codes):
    image = nib.Nifti1Image(values, affine)
    for name, code in codes.items():
        getattr(image, f"set_{name}")(affine, code=code)
    nib.save(image, path)
    return path


def test_the_brain_volume_of_nilearn():
    folder = Path(nilearn.datasets.__file__).parent / "data"
    path = folder / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    image = read_image(path, Modality.MRI)
    truth = nib.load(path)
    assert torch.equal(image.data[0], torch.from_numpy(truth.get_fdata().astype(np.float32)))
    corner = np.array([[0.0, 0, 0], [5, 60, 100]])
    world = nib.affines.apply_affine(truth.affine, corner) @ FLIP  # RAS to LPS
    assert np.abs(image.grid.world(corner) - world).max() < 1e-9
    assert image.grid.calibration is Calibration.PATIENT
    assert image.grid.letters == tuple({"S": "H", "I": "F"}.get(c, c) for c in nib.aff2axcodes(truth.affine))


def test_every_volume_beside_the_project_lies_where_nibabel_says(shared_data):
    paths = (
        sorted((shared_data / "petctmr_sarcoma").rglob("*.nii.gz"))[::9]
        + sorted((shared_data / "mri_hippocampus" / "images").iterdir())[::40]
    )
    assert len(paths) > 10
    for path in paths:
        truth, image = nib.load(path), read_image(path)
        index = np.array([[0, 0, 0], np.array(truth.shape[:3]) - 1], float)
        world = nib.affines.apply_affine(truth.affine, index) @ FLIP
        assert np.abs(image.grid.world(index) - world).max() < 1e-6
        assert torch.equal(image.data[0], torch.from_numpy(np.asarray(truth.dataobj, np.float32)))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_an_oblique_bright_voxel_is_found_in_the_patient(tmp_path, kind):
    values = np.zeros((7, 8, 9), np.int16)
    values[5, 2, 6] = 100
    nib.save(kind(values, OBLIQUE), tmp_path / "x.nii.gz")
    image = read_image(tmp_path / "x.nii.gz")
    found = image.grid.world(np.argwhere(image.data[0].numpy() == 100).astype(float))
    assert np.abs(found[0] - FLIP @ (OBLIQUE @ [5, 2, 6, 1])[:3]).max() < 1e-5


def test_left_stays_left_whichever_way_the_axes_run(tmp_path):
    """A nodule 40 mm to the patient's left, stored with x growing to the right and to the left."""
    for sign in (1, -1):
        affine = np.diag([sign * 2.0, 2, 2, 1])
        affine[:3, 3] = [-sign * 60, -60, -60]
        values = np.zeros((61, 61, 61), np.float32)
        at = np.round(np.linalg.inv(affine) @ [-40, 0, 0, 1]).astype(int)  # RAS: left is minus x
        values[tuple(at[:3])] = 1
        image = read_image(save(tmp_path / "x.nii.gz", values, affine))
        assert image.grid.letters == ("R" if sign == 1 else "L", "A", "H")
        place = image.grid.world(np.argwhere(image.data[0].numpy() > 0).astype(float))[0]
        assert place.tolist() == [40, 0, 0]  # LPS: left is plus x
        written = nib.load(write_nifti(image.data[0], image.grid, tmp_path / "map.nii.gz"))
        back = nib.affines.apply_affine(written.affine, np.argwhere(written.get_fdata() > 0))[0]
        assert back.tolist() == [-40, 0, 0]


def test_scaled_values_and_the_display_range(tmp_path):
    values = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = nib.Nifti1Image(values, np.eye(4))
    image.header["cal_min"], image.header["cal_max"] = -5, 15
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([0.5, -10], "<f4").tobytes()  # scl_slope and scl_inter of the header
    (tmp_path / "x.nii").write_bytes(bytes(content))
    read = read_image(tmp_path / "x.nii")
    assert np.array_equal(read.data[0].numpy(), values * 0.5 - 10)
    assert read.window == (-5.0, 15.0)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("meter", 1000), ("micron", 0.001)])
def test_the_unit_of_the_header_is_believed(tmp_path, unit, factor):
    image = nib.Nifti1Image(np.ones((3, 4, 5), np.float32), np.diag([1, 2, 3, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "x.nii")
    assert read_image(tmp_path / "x.nii").grid.spacing == pytest.approx([factor, 2 * factor, 3 * factor])


def test_without_orientation_lengths_stay_and_directions_do_not(tmp_path):
    image = nib.Nifti1Image(np.ones((3, 4, 5), np.float32), None)
    image.header.set_zooms((1, 2, 3))
    nib.save(image, tmp_path / "x.nii")
    grid = read_image(tmp_path / "x.nii").grid
    assert (grid.calibration, grid.letters, grid.spacing) == (Calibration.CALIBRATED, None, (1, 2, 3))
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.float32), None), tmp_path / "y.nii")
    grid = read_image(tmp_path / "y.nii").grid  # all ones and no unit: nobody knew a length
    assert (grid.calibration, grid.letters, grid.unit) == (Calibration.NONE, None, "px")


@pytest.mark.parametrize(("shape", "rank"), [((6, 7), 2), ((6, 7, 1), 2), ((6, 7, 5), 3), ((6, 7, 5, 1), 3)])
def test_axes_of_length_one_are_not_axes(tmp_path, shape, rank):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    image = read_image(save(tmp_path / "x.nii", values))
    assert image.grid.rank == rank
    assert np.array_equal(image.data[0].numpy(), values.reshape(image.grid.shape))
    assert np.allclose(image.grid.matrix[:3], np.diag([-1, -1, 1]) @ OBLIQUE[:3], atol=1e-6)


def test_a_series_of_volumes_is_refused_by_name_or_asked_for_one(tmp_path):
    values = np.random.default_rng(1).normal(size=(4, 5, 6, 3)).astype(np.float32)
    path = save(tmp_path / "x.nii.gz", values)
    with pytest.raises(BadOption, match=r"got a 4-D NIfTI of 3 volumes .* choose one: index 0 to 2"):
        read_image(path)
    assert np.array_equal(read_image(path, index=1).data[0].numpy(), values[..., 1])
    with pytest.raises(BadOption, match="index from 0 to 2, got -1"):
        read_image(path, index=-1)
    five = save(tmp_path / "y.nii.gz", np.zeros((4, 5, 6, 1, 3), np.float32))
    with pytest.raises(UnreadableImage, match="2 or 3 axes"):
        read_image(five)


def test_bad_values_are_refused(tmp_path):
    values = np.ones((4, 5, 6), np.float32)
    values[1, 2, 3] = np.nan
    with pytest.raises(NonFinite, match="1 of 120"):
        read_image(save(tmp_path / "x.nii", values))
    with pytest.raises(UnreadableImage, match="complex voxels"):
        read_image(save(tmp_path / "y.nii", values.astype(np.complex64)))
    color = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(UnreadableImage, match="color voxels"):
        read_image(save(tmp_path / "z.nii", color))


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_what_is_cut_short_is_refused(tmp_path, name):
    path = save(tmp_path / name, np.random.default_rng(2).normal(size=(20, 20, 20)))
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UnreadableImage, match="a complete NIfTI file, got damaged or incomplete data"):
            read_image(path)


def test_a_flipped_bit_in_the_archive_is_noticed(tmp_path):
    path = save(tmp_path / "x.nii.gz", np.random.default_rng(3).integers(0, 99, (20, 20, 20)).astype(np.uint8))
    content = gzip.decompress(path.read_bytes())
    stored = bytearray(gzip.compress(content, 0))  # stored blocks: a flipped bit stays decodable
    stored[len(stored) // 2] ^= 1
    path.write_bytes(bytes(stored))
    with pytest.raises(UnreadableImage, match="a complete NIfTI file"):
        read_image(path)


def test_a_huge_declared_size_is_refused_before_it_is_allocated(tmp_path):
    path = save(tmp_path / "x.nii", np.zeros((4, 5, 6), np.uint8))
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    path.write_bytes(bytes(content))
    with pytest.raises(UnreadableImage, match="declares 30000 x 30000 x 30000"):
        read_image(path)


def test_half_of_a_pair_is_named(tmp_path):
    nib.save(nib.Nifti1Pair(np.zeros((4, 5, 6), np.uint8), np.eye(4)), tmp_path / "x.hdr")
    with pytest.raises(UnreadableImage, match=r"one of a \.hdr and \.img pair"):
        read_image(tmp_path / "x.hdr")


def test_a_map_is_written_on_its_image_and_reads_back(tmp_path):
    grid = Grid((7, 8, 9), as_affine(np.vstack([FLIP @ OBLIQUE[:3], [0, 0, 0, 1]])), Calibration.PATIENT)
    values = torch.randn(7, 8, 9)
    path = write_nifti(values, grid, tmp_path / "map.nii.gz", "Saliency of nodule, research " * 9)
    back = nib.load(path)
    assert back.get_data_dtype() == np.float32
    assert np.array_equal(back.get_fdata().astype(np.float32), values.numpy())
    assert np.abs(back.affine - OBLIQUE).max() < 1e-5
    assert len(back.header["descrip"].item()) == 79
    assert read_image(path).grid.same_geometry(grid)
    again = write_nifti(values, grid, tmp_path / "again.nii.gz", "Saliency of nodule, research " * 9)
    assert again.read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.nii.gz", "map.nii.gz"]


def test_a_rigid_grid_is_written_in_both_codes(tmp_path):
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * [0.7, 0.8, 3.0], [5, 6, 7]
    grid = Grid((5, 6, 4), as_affine(affine), Calibration.PATIENT)
    back = nib.load(write_nifti(np.zeros((5, 6, 4)), grid, tmp_path / "x.nii"))
    for matrix, code in (back.get_sform(coded=True), back.get_qform(coded=True)):
        assert code == 1
        assert np.abs(np.diag([-1, -1, 1, 1]) @ matrix - affine).max() < 1e-5


def test_a_map_of_a_flat_image_claims_no_direction(tmp_path):
    for calibration, spacing in ((Calibration.NONE, None), (Calibration.DETECTOR, (0.1, 0.2))):
        grid = Grid.regular((6, 8), spacing, calibration)
        back = nib.load(write_nifti(np.ones((6, 8)), grid, tmp_path / "x.nii"))
        assert (int(back.header["sform_code"]), int(back.header["qform_code"])) == (0, 0)
        assert back.header.get_zooms()[:2] == pytest.approx(grid.spacing)
        assert read_image(tmp_path / "x.nii").grid.letters is None


def test_what_cannot_be_written_is_named(tmp_path):
    grid = Grid.regular((6, 8))
    with pytest.raises(ShapeMismatch, match=r"expected a map of shape \(6, 8\), got \(8, 6\)"):
        write_nifti(np.ones((8, 6)), grid, tmp_path / "x.nii")
    with pytest.raises(BadOption, match=r"ends in \.nii"):
        write_nifti(np.ones((6, 8)), grid, tmp_path / "x.img")
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableOutput, match="file"):
        write_nifti(np.ones((6, 8)), grid, tmp_path / "file" / "x.nii")
