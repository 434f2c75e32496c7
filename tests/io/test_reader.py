"""Cases from files, folders and tables; masks only where they belong."""

import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image as Picture

from pellucid.core.case import Case
from pellucid.core.errors import BadOption, BadRegion, NonFinite, PellucidError, UnreadableImage
from pellucid.core.grid import Calibration, Grid
from pellucid.core.image import Modality
from pellucid.io.reader import Cases, Failure, iter_cases, read_cases, read_image, read_mask, read_mask_noted

AFFINE = np.diag([-1.5, 1.5, 2.0, 1.0])


def gray(path, values=None, **options):
    values = np.arange(48, dtype=np.uint8).reshape(6, 8) if values is None else values
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(values).save(path, **options)
    return path


def volume(path, values, affine=AFFINE):
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


@pytest.fixture
def blob():
    values = np.zeros((10, 12, 8), np.uint8)
    values[3:6, 4:9, 2:5] = 1
    return values


# --- masks


def test_a_picture_mask_has_the_shape_of_its_image(tmp_path):
    like = Grid.regular((6, 8))
    values = np.zeros((6, 8), np.uint8)
    values[2:4, 3:6] = 255
    region = read_mask(gray(tmp_path / "m.png", values), like)
    assert region.grid is like
    assert np.array_equal(region.mask.numpy(), values > 0)
    values[2:4, 3:6] = 1  # an index, nearly black to the eye
    assert int(read_mask(gray(tmp_path / "n.png", values), like).mask.sum()) == 6
    color = np.zeros((6, 8, 3), np.uint8)
    color[1, 1, 2] = 9
    assert int(read_mask(gray(tmp_path / "o.png", color), like).mask.sum()) == 1
    with pytest.raises(BadRegion, match=r"on the image's grid of 8 x 6 .* got 6 x 8 without a position"):
        read_mask(tmp_path / "m.png", Grid.regular((8, 6)))


def test_the_blurred_zeros_of_a_jpeg_are_outside(tmp_path):
    values = np.zeros((64, 64), np.uint8)
    values[20:40, 20:40] = 255
    path = gray(tmp_path / "m.jpg", values, quality=60)
    assert int((read_image(path).data > 0).sum()) > 450
    assert abs(int(read_mask(path, Grid.regular((64, 64))).mask.sum()) - 400) < 10


def test_masks_that_say_nothing_are_refused(tmp_path, blob):
    like = Grid.regular((6, 8))
    for value, why in ((0, "got an empty mask"), (255, "covers all of it")):
        with pytest.raises(BadRegion, match=why):
            read_mask(gray(tmp_path / "m.png", np.full((6, 8), value, np.uint8)), like)
    grid = read_image(volume(tmp_path / "i.nii.gz", blob)).grid
    for affine in (AFFINE, np.diag([-3.0, 3, 3, 1])):
        with pytest.raises(BadRegion, match="got an empty mask"):
            read_mask(volume(tmp_path / "m.nii.gz", blob * 0, affine), grid)
    values = blob.astype(np.float32)
    values[0, 0, 0] = np.nan  # not zero, so it would be inside
    with pytest.raises(NonFinite):
        read_mask(volume(tmp_path / "m.nii.gz", values), grid)


def test_a_picture_may_outline_a_radiograph_with_millimeters(tmp_path):
    like = Grid.regular((6, 8), (0.1, 0.1), Calibration.DETECTOR, ("F", "L"))
    values = np.zeros((6, 8), np.uint8)
    values[0, 7] = 255
    assert read_mask(gray(tmp_path / "m.png", values), like).mask[0, 7]


def test_a_volume_on_its_own_grid_is_taken_as_it_is(tmp_path, blob):
    grid = read_image(volume(tmp_path / "i.nii.gz", blob * 7)).grid
    region, note = read_mask_noted(volume(tmp_path / "m.nii.gz", blob), grid)
    assert note is None
    assert np.array_equal(region.mask.numpy(), blob > 0)


def test_a_volume_of_the_same_world_is_resampled_and_says_so(tmp_path, blob):
    grid = read_image(volume(tmp_path / "i.nii.gz", blob)).grid
    flipped = AFFINE @ np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = AFFINE[0, 0] * (blob.shape[0] - 1)
    region, note = read_mask_noted(volume(tmp_path / "m.nii.gz", blob[::-1].copy(), flipped), grid)
    assert np.array_equal(region.mask.numpy(), blob > 0)  # same voxels, stored from the other side
    assert note == "resampled (nearest) from 10 x 12 x 8 to 10 x 12 x 8 voxels"
    fine = np.kron(blob, np.ones((2, 2, 2), np.uint8))
    half = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    half[:3, 3] = AFFINE[:3, :3] @ [-0.25, -0.25, -0.25]
    region, note = read_mask_noted(volume(tmp_path / "f.nii.gz", fine, half), grid)
    assert np.array_equal(region.mask.numpy(), blob > 0)
    assert "from 20 x 24 x 16 to 10 x 12 x 8" in note


def test_a_mask_that_lies_elsewhere_is_refused(tmp_path, blob):
    grid = read_image(volume(tmp_path / "i.nii.gz", blob)).grid
    far = AFFINE.copy()
    far[:3, 3] = 500
    with pytest.raises(BadRegion, match="at least one voxel where the image lies"):
        read_mask(volume(tmp_path / "m.nii.gz", blob, far), grid)
    nowhere = nib.Nifti1Image(blob, None)
    nib.save(nowhere, tmp_path / "n.nii.gz")
    with pytest.raises(BadRegion, match="without a position in the patient"):
        read_mask(tmp_path / "n.nii.gz", grid)
    with pytest.raises(BadRegion, match="got a 2-D one"):
        read_mask(volume(tmp_path / "flat.nii.gz", blob[..., 3]), grid)


def test_a_dicom_mask_needs_the_same_frame_and_the_same_slice(tmp_path, phantom, write):
    made = phantom()
    image = read_image(write(tmp_path / "ct", made.datasets()))
    other = write(tmp_path / "other", made.datasets())  # another frame of reference, the same numbers
    mask_grid = read_image(other).grid
    assert mask_grid.frame_of_reference != image.grid.frame_of_reference
    moved = made.datasets(positions=[made.position(k) + made.along_row for k in range(6)])
    with pytest.raises(BadRegion, match="one in another frame of reference"):
        read_mask(write(tmp_path / "moved", moved), image.grid)
    first, third = (
        read_image(next(p for p in sorted((tmp_path / "ct").iterdir()) if _slice(p, made) == k)) for k in (0, 2)
    )
    with pytest.raises(BadRegion, match="one of another slice"):
        read_mask(next(p for p in sorted((tmp_path / "ct").iterdir()) if _slice(p, made) == 2), first.grid)
    assert third.grid.rank == 2


def _slice(path, made):
    grid = read_image(path).grid
    return round(float((grid.matrix[:3, 3] - made.origin) @ made.normal) / made.steps[0])


def test_expert_masks_beside_the_project_fit_their_images(shared_data):
    folder = shared_data / "petctmr_sarcoma" / "STS_003"
    for kind in ("PET", "MR_T1"):
        image = read_image(folder / f"{kind}_image.nii.gz")
        region = read_mask(folder / f"{kind}_mask.nii.gz", image.grid)
        assert region.mask.shape == image.grid.shape
    pet = read_image(folder / "PET_image.nii.gz").grid
    region, note = read_mask_noted(folder / "MR_T1_mask.nii.gz", pet)  # the MR outline on the PET
    assert note.startswith("resampled (nearest) from 121 x 138 x 47")
    own = read_mask(folder / "PET_mask.nii.gz", pet).mask
    both = (own & region.mask).sum() * 2 / (own.sum() + region.mask.sum())
    assert float(both) > 0.5  # one tumor, drawn once and moved by its makers


# --- cases


def test_one_file_is_one_case(tmp_path, packaged):
    cases = read_cases(gray(tmp_path / "Knee left #7.png"), Modality.XRAY)
    assert [c.name for c in cases.cases] == ["Knee-left-7"]
    assert cases.cases[0].images["image"].modality is Modality.XRAY
    slice_case = read_cases(packaged("CT_small.dcm")).cases[0]
    assert slice_case.name == f"case-{slice_case.images['image'].digest[:8]}"
    with pytest.raises(UnreadableImage, match="text file"):
        read_cases(packaged("README.txt"))


def test_a_folder_of_images_is_one_case_each_in_natural_order(tmp_path, packaged):
    for name in ("slice10.png", "slice2.png", "slice1.nii.gz"):
        if name.endswith("png"):
            gray(tmp_path / name)
        else:
            volume(tmp_path / name, np.ones((3, 4, 5), np.float32))
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / ".hidden.png").write_bytes(b"")
    shutil.copy(packaged("RG3_J2KI.dcm"), tmp_path / "zz")
    cases = read_cases(tmp_path)
    assert [c.name for c in cases.cases[:3]] == ["slice1", "slice2", "slice10"]
    assert cases.cases[3].name.startswith("case-")
    assert (cases.failures, cases.ignored) == ((), 1)


def test_one_bad_file_does_not_cost_the_others(tmp_path, packaged):
    for name in ("RG1_J2KI.dcm", "RG3_J2KI.dcm"):
        shutil.copy(packaged(name), tmp_path / name)
    gray(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "c.png").write_text("no picture")
    (tmp_path / "d.nii.gz").write_bytes(b"")
    (tmp_path / "e.dcm").write_bytes(packaged("RG3_J2KI.dcm").read_bytes()[:700])
    cases = read_cases(tmp_path)
    assert len(cases.cases) == 3
    assert [f.reference for f in cases.failures] == [f"file {n} of 7" for n in (2, 3, 4, 5)]
    assert all(isinstance(f.error, PellucidError) for f in cases.failures)


def test_a_series_folder_is_one_case_and_its_parent_one_each(tmp_path, phantom, write, canary):
    write(tmp_path / "all" / f"{canary[0]} 1", phantom().datasets())
    write(tmp_path / "all" / f"{canary[0]} 2", phantom(shape=(4, 8, 8), bright=(1, 2, 3)).datasets())
    (tmp_path / "all" / "empty").mkdir()
    one = read_cases(tmp_path / "all" / f"{canary[0]} 1")
    assert len(one.cases) == 1
    assert one.cases[0].images["image"].grid.rank == 3
    both = read_cases(tmp_path / "all")
    assert [c.images["image"].grid.shape for c in both.cases] == [(6, 16, 20), (4, 8, 8)]
    assert not any(canary[0] in c.name for c in both.cases)
    next((tmp_path / "all" / f"{canary[0]} 2").iterdir()).unlink()  # a gap, unless it was at an end
    third = sorted((tmp_path / "all" / f"{canary[0]} 1").iterdir())[2]
    third.write_bytes(third.read_bytes()[:-9])
    later = read_cases(tmp_path / "all")
    assert "folder 1 of 2" in [f.reference for f in later.failures]


def test_folders_that_hold_no_case_say_so(tmp_path, phantom, write):
    with pytest.raises(UnreadableImage, match="expected a folder with images, got one without"):
        read_cases(tmp_path)
    write(tmp_path / "s", phantom().datasets())
    mixed = write(tmp_path / "s" / "more", phantom(shape=(3, 8, 8), bright=(0, 0, 0)).datasets())
    for path in mixed.iterdir():
        shutil.move(path, tmp_path / "s" / f"other_{path.name}")
    with pytest.raises(UnreadableImage, match="expected one series, got 2"):
        read_cases(tmp_path / "s")


def test_the_same_name_twice_is_made_two(tmp_path):
    gray(tmp_path / "a.png")
    gray(tmp_path / "a.jpg")
    gray(tmp_path / "a.tif")
    assert [c.name for c in read_cases(tmp_path).cases] == ["a", "a-2", "a-3"]


@pytest.fixture
def table(tmp_path):
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 2:5] = 255
    gray(tmp_path / "images" / "a.png")
    gray(tmp_path / "images" / "b.png")
    gray(tmp_path / "masks" / "a.png", mask)

    def write_table(text, name="cases.csv", encoding="utf-8"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return tmp_path / name

    return write_table


def test_a_table_of_cases(table):
    path = table(
        "image,region:tumor,label,group,name,covariate:age\n"
        "images/a.png,masks/a.png,malignant,site A,,61\n"
        "images/b.png,,benign,site B,second case,47.5\n"
    )
    cases = read_cases(path)
    assert cases.failures == ()
    first, second = cases.cases
    assert (first.name, first.label, first.group, first.covariates) == ("a", "malignant", "site A", {"age": 61.0})
    assert int(first.region("tumor").mask.sum()) == 6
    assert (second.name, second.label, dict(second.regions)) == ("second-case", "benign", {})


def test_a_table_of_several_named_inputs(tmp_path, blob, table):
    volume(tmp_path / "pet.nii.gz", blob * 3)
    volume(tmp_path / "ct.nii.gz", blob * 9, np.diag([-3.0, 3, 4, 1]))
    volume(tmp_path / "mask.nii.gz", blob, AFFINE @ np.diag([1.0, 1, 1, 1]))
    path = table("name;image:pet;image:ct;region:lesion\nx;pet.nii.gz;ct.nii.gz;mask.nii.gz\n", encoding="utf-8-sig")
    case = read_cases(path).cases[0]
    assert list(case.images) == ["pet", "ct"]
    assert case.regions["lesion"].grid is case.images["pet"].grid
    assert case.notes == ()
    flipped = table("name\timage:ct\timage:pet\tregion:lesion\nx\tct.nii.gz\tpet.nii.gz\tmask.nii.gz\n", "t.tsv")
    noted = read_cases(flipped).cases[0]
    assert noted.notes == ("region lesion: resampled (nearest) from 10 x 12 x 8 to 10 x 12 x 8 voxels",)


def test_a_bad_row_does_not_cost_the_others(table, tmp_path):
    gray(tmp_path / "masks" / "wide.png", np.eye(9, dtype=np.uint8) * 255)
    path = table(
        "image,region:tumor,covariate:age\n"
        "images/a.png,masks/a.png,61\n"
        "images/absent.png,,50\n"
        "images/b.png,masks/wide.png,50\n"
        "images/b.png,,old\n"
        ",,3\n"
        "images/b.png,,nan\n"
        "images/b.png,,1,2,3\n"
        "\n"
        "images/b.png,,40\n"
    )
    cases = read_cases(path)
    assert [c.name for c in cases.cases] == ["a", "b"]
    assert [f.reference for f in cases.failures] == [f"row {n}" for n in range(2, 8)]
    kinds = [type(f.error) for f in cases.failures]
    assert kinds == [UnreadableImage, BadRegion, BadOption, BadOption, BadOption, BadOption]
    assert "covariate 'age'" in str(cases.failures[2].error)
    reference, error = cases.failures[0]  # also a plain pair
    assert reference == "row 2"
    assert isinstance(error, UnreadableImage)


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("image,regoin:tumor\nimages/a.png,x\n", BadOption, r"got 1 other\(s\), the first is 'regoin:tumor'"),
        ("image,region:\nimages/a.png,x\n", BadOption, "the first is 'region:'"),
        ("image,image\nimages/a.png,x\n", BadOption, "each column once"),
        ("image,label\n", UnreadableImage, "at least one case, got its header only"),
        ("path,label\nimages/a.png,1\n", UnreadableImage, "a text file"),
    ],
)
def test_headers_that_cannot_be_meant(table, text, error, match):
    with pytest.raises(error, match=match):
        read_cases(table(text))


def test_a_table_in_another_encoding_is_named(table):
    with pytest.raises(UnreadableImage, match="in UTF-8"):
        read_cases(table("image,label\nimages/a.png,bösartig\n", encoding="latin-1"))


def test_cases_come_one_by_one_for_large_cohorts(table):
    stream = iter_cases(table("image\nimages/a.png\nimages/absent.png\nimages/b.png\n"))
    assert [type(item) for item in stream] == [Case, Failure, Case]


def test_the_whole_cohort_of_hippocampi_with_its_labels(shared_data, tmp_path):
    root = shared_data / "mri_hippocampus"
    names = [p.name for p in sorted((root / "images").iterdir())][:12]
    masks = next(p for p in root.iterdir() if p.is_dir() and p.name != "images")
    rows = [f"{root / 'images' / n},{masks / n},{i}" for i, n in enumerate(names)]
    (tmp_path / "c.csv").write_text("\n".join(["image,region:hippocampus,covariate:rank", *rows]))
    cases = read_cases(tmp_path / "c.csv", Modality.MRI)
    assert isinstance(cases, Cases)
    assert [c.covariates["rank"] for c in cases.cases] == list(range(12))
    for case in cases.cases:
        region = case.region("hippocampus")
        assert region.grid.same_geometry(case.images["image"].grid)
        assert torch.isfinite(case.images["image"].data).all()
        assert 0.005 < float(region.mask.float().mean()) < 0.3
