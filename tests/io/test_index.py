"""One image of several: by number, by range, or by axis."""

import nibabel as nib
import numpy as np
import pytest

from pellucid.core.errors import BadOption
from pellucid.io.index import Axes, parse_index
from pellucid.io.several import read_chosen


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "-1",
        "1:2:3:4",
        "3:3",
        "5:2",
        "0:9:0",
        "1.5",
        "0:2000",
        "9999999999",
        "Q=1",
        "T=1,T=2",
        "T=:",
        "Z=:,Z=1",
        "C=1;",
    ],
)
def test_what_is_no_index_is_refused(text):
    with pytest.raises(BadOption):
        parse_index(text)


def test_axes_are_letters_with_numbers():
    assert parse_index("t=2, c=1,Z=:") == Axes({"T": 2, "C": 1}, "Z")


def test_each_volume_of_a_range_is_a_case_of_one_patient(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "perfusion.nii.gz")
    found = read_chosen(tmp_path / "perfusion.nii.gz", parse_index("1:7:2"))
    assert [c.name for c in found.cases] == ["perfusion-1", "perfusion-3", "perfusion-5"]
    assert {c.patient for c in found.cases} == {"perfusion"}
    np.testing.assert_array_equal(found.cases[1].images["image"].data[0].numpy(), values[..., 3])
    short = read_chosen(tmp_path / "perfusion.nii.gz", range(5, 7))
    assert [f.reference for f in short.failures] == ["index 6"]
    assert "from 0 to 5, got 6" in str(short.failures[0].error)
    with pytest.raises(BadOption, match="got 7"):
        read_chosen(tmp_path / "perfusion.nii.gz", range(7, 9))
    assert len(read_chosen(tmp_path / "perfusion.nii.gz", 2).cases) == 1
