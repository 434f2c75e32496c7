"""Label maps and their names, as users bring them."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Picture

from pellucid.core.errors import BadOption, BadRegion, PellucidError
from pellucid.io.labelmap import parse_atlas, read_labelmap, read_names

LABELS = np.zeros((6, 5, 4), np.int16)
LABELS[:2], LABELS[3:] = 1, 17


def nifti(folder: Path, values: np.ndarray = LABELS) -> Path:
    path = folder / "labels.nii.gz"
    nib.save(nib.Nifti1Image(values, np.diag([-1, -1, 2, 1.0])), path)
    return path


def picture(folder: Path, values: np.ndarray, name: str = "labels.png") -> Path:
    path = folder / name
    Picture.fromarray(values).save(path)
    return path


def names(folder: Path, text: str) -> Path:
    path = folder / "names.csv"
    path.write_text(text, "utf-8")
    return path


def test_labels_of_a_volume_with_their_names(tmp_path: Path) -> None:
    atlas = read_labelmap(nifti(tmp_path), names(tmp_path, "label,name\n1,right upper lobe\n17,heart\n99,not there\n"))
    assert atlas.names == {1: "right upper lobe", 17: "heart"}
    np.testing.assert_array_equal(atlas.on(atlas.image.grid)[0], LABELS)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_gray_levels_of_a_picture_are_its_labels(tmp_path: Path, depth: type) -> None:
    values = np.zeros((8, 9), depth)
    values[:3], values[5:] = 2, 200 if depth is np.uint8 else 4000
    atlas = read_labelmap(picture(tmp_path, values))
    assert atlas.names == {2: "label 2", int(values.max()): f"label {values.max()}"}
    np.testing.assert_array_equal(atlas.on(atlas.image.grid)[0], values)


def test_a_black_and_white_mask_has_label_1(tmp_path: Path) -> None:
    values = np.zeros((8, 9), np.uint8)
    values[2:4] = 255
    assert read_labelmap(picture(tmp_path, values)).names == {1: "label 1"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,right lower lobe\n2,left lobe 2", {1: "right lower lobe", 2: "left lobe 2"}),
        ("# FreeSurfer\n10  Left-Thalamus   0 118 14 0\n49 Right 0 118 14 0", {10: "Left-Thalamus", 49: "Right"}),
        ('    1   255    0    0        1  1  1    "Caudate nucleus"', {1: "Caudate nucleus"}),
        ("number;structure\n3;liver", {3: "liver"}),
        ("4: spleen\n\n5:\tleft kidney", {4: "spleen", 5: "left kidney"}),
    ],
)  # fmt: skip
def test_tables_of_names(tmp_path: Path, text: str, found: dict[int, str]) -> None:
    assert read_names(names(tmp_path, text)) == found


@pytest.mark.parametrize("text", ["1,a\n1,b", "1,a\nliver", "", "name only", "1,a\n2,"])
def test_tables_that_are_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadOption) as caught:
        read_names(names(tmp_path, text))
    assert caught.value.mend


def test_names_of_another_label_map_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRegion, match="expected names of the labels 1, 17, got names of 4, 5"):
        read_labelmap(nifti(tmp_path), names(tmp_path, "4,liver\n5,spleen"))


def test_two_labels_of_one_name_stay_apart(tmp_path: Path) -> None:
    atlas = read_labelmap(nifti(tmp_path), names(tmp_path, "1,lung\n17,lung"))
    assert atlas.names == {1: "lung (label 1)", 17: "lung (label 17)"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((4, 4, 4), 3, np.int16), "got 3 in every voxel"),
        (np.random.default_rng(0).random((4, 4, 4)).astype(np.float32), "with fractions"),
        (np.full((4, 4, 4), -1, np.int16), "got -1 to -1"),
        (np.arange(1000, dtype=np.int16).reshape(10, 10, 10), "looks like an image"),
    ],
)
def test_what_is_no_label_map(tmp_path: Path, values: np.ndarray, said: str) -> None:
    with pytest.raises(BadRegion, match=said) as caught:
        read_labelmap(nifti(tmp_path, values))
    assert caught.value.mend


def test_lossy_and_colored_pictures_are_refused(tmp_path: Path) -> None:
    values = np.zeros((16, 16), np.uint8)
    values[4:9] = 80
    with pytest.raises(BadRegion, match="lossy"):
        read_labelmap(picture(tmp_path, values, "labels.jpg"))
    with pytest.raises(BadRegion, match="one channel"):
        read_labelmap(picture(tmp_path, np.stack([values, values, 255 - values], -1)))


def test_the_command_takes_a_path_with_a_colon(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    table = names(folder, "1,lung\n17,heart")
    path = nifti(folder)
    assert parse_atlas(str(path)).names[1] == "label 1"
    assert parse_atlas(f"{path}:{table}").names[1] == "lung"
    with pytest.raises(PellucidError):
        parse_atlas(f"{path}:{folder / 'absent.csv'}")
    with pytest.raises(PellucidError):
        parse_atlas(str(folder / "absent.nii"))
