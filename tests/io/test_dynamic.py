"""Series of several volumes: the axis is named, one volume is chosen, and nothing is dealt out by order."""

import nibabel as nib
import numpy as np
import pytest

from pellucid.core.errors import BadOption, UnreadableImage
from pellucid.io.dicom import survey
from pellucid.io.dynamic import phases_of, read_phase
from pellucid.io.folder import files_of
from pellucid.io.reader import read_image


def dynamic(phantom, count, tag, hu=None):
    """One series of several volumes that differ by a constant."""
    still = phantom(shape=(4, 8, 9), bright=(1, 2, 3))
    truth = still.hu.copy()
    found = []
    for number in range(count):
        still.hu = truth + number
        for place, data in enumerate(still.datasets()):
            if found:
                data.SeriesInstanceUID, data.StudyInstanceUID = found[0].SeriesInstanceUID, found[0].StudyInstanceUID
                data.FrameOfReferenceUID = found[0].FrameOfReferenceUID
            tag(data, number, place)
            found.append(data)
    return found, truth


def temporal(data, number, place):
    data.TemporalPositionIdentifier = 3 * number + 1


def echoes(data, number, place):
    data.EchoTime, data.Modality = 4.5 + 10 * number, "MR"


def b_values(data, number, place):
    data.DiffusionBValue = [0.0, 500.0, 1000.0][number]


def clock(data, number, place):
    data.AcquisitionTime = f"1159{30 + 7 * number + place:02d}.5"


@pytest.mark.parametrize(
    ("tag", "told", "value"),
    [
        (temporal, r"3 along the axis temporal position \(1, 4, 7\)", 4),
        (echoes, r"3 along the axis echo time \(4\.5, 14\.5, 24\.5 ms\)", 14.5),
        (b_values, r"3 along the axis b-value \(0, 500, 1000 s/mm2\)", 500),
        (clock, r"3 along the axis acquisition time \(0, 7, 14 s\)", 7),
    ],
)
def test_the_axis_is_named_and_one_volume_chosen(tmp_path, phantom, write, tag, told, value, canary):
    datasets, truth = dynamic(phantom, 3, tag)
    found = survey(files_of(write(tmp_path / "x", datasets)))
    with pytest.raises(BadOption, match=told) as caught:
        read_phase(found)
    assert not any(word in str(caught.value) for word in (*canary, "1159"))
    image, files = read_phase(found, index=1)
    np.testing.assert_allclose(np.sort(image.data[0].numpy().ravel()), np.sort((truth + 1).ravel()), atol=1e-3)
    assert image.grid.shape == (4, 8, 9)
    assert len(set(files)) == 4
    assert image.traits["axis_value"] == value
    with pytest.raises(BadOption, match="from 0 to 2, got 3"):
        read_phase(found, index=3)


@pytest.mark.parametrize("dated", [True, False])
def test_a_scan_past_midnight_is_in_order_or_refused(tmp_path, phantom, write, dated):
    def late(data, number, place):
        data.AcquisitionTime = ["235930", "000030", "000130"][number]
        if dated:
            data.AcquisitionDate = "20200101" if number == 0 else "20200102"

    datasets, truth = dynamic(phantom, 3, late)
    found = survey(files_of(write(tmp_path / "x", datasets)))
    if dated:
        for number, second in enumerate((0.0, 60.0, 120.0)):
            image, _ = read_phase(found, index=number)
            assert image.traits["axis_value"] == second
            assert float(image.data.min()) == pytest.approx(float(truth.min()) + number, abs=1e-3)
    else:
        with pytest.raises(UnreadableImage, match="occupied twice"):
            read_phase(found, index=0)


def test_a_plain_series_is_read_as_before(tmp_path, phantom, write):
    folder = write(tmp_path / "x", phantom().datasets())
    image, files = read_phase(survey(files_of(folder)))
    assert image.digest == read_image(folder).digest
    assert len(files) == 6


def test_what_the_headers_do_not_part_is_refused_as_duplicates(tmp_path, phantom, write):
    def interleaved(data, number, place):
        data.AcquisitionTime = f"1159{30 + number + 2 * place:02d}"

    for tag in (lambda *_: None, interleaved):
        datasets, _ = dynamic(phantom, 2, tag)
        assert phases_of(datasets) is None
        with pytest.raises(UnreadableImage, match="positions occupied twice"):
            read_phase(survey(files_of(write(tmp_path / str(id(tag)), datasets))))


def test_a_missing_slice_of_one_volume_is_no_dynamic_series(tmp_path, phantom, write):
    datasets, _ = dynamic(phantom, 3, temporal)
    assert phases_of(datasets[:-1]) is None
    with pytest.raises(UnreadableImage):
        read_phase(survey(files_of(write(tmp_path / "x", datasets[:-1]))), index=0)


def test_a_nifti_names_its_fourth_axis(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    image = nib.Nifti1Image(values, np.eye(4))
    image.header.set_xyzt_units("mm", "msec")
    image.header["pixdim"][4] = 2500
    nib.save(image, tmp_path / "bold.nii.gz")
    with pytest.raises(BadOption, match=r"6 volumes \(time axis, 0 to 12\.5 s in steps of 2\.5 s\)"):
        read_image(tmp_path / "bold.nii.gz")
    one = read_image(tmp_path / "bold.nii.gz", index=3)
    assert (one.traits["axis"], one.traits["axis_value"], one.traits["axis_unit"]) == ("time", 7.5, "s")
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "dwi.nii")
    (tmp_path / "dwi.bval").write_text("0 0 500 1000 1000 2000\n")
    with pytest.raises(BadOption, match=r"6 volumes \(b-value axis, 0, 0, 500, 1000, 1000, 2000 s/mm2\)"):
        read_image(tmp_path / "dwi.nii")
    assert read_image(tmp_path / "dwi.nii", index=2).traits["axis_value"] == 500
    (tmp_path / "dwi.bval").write_text("0 0 nonsense\n")
    with pytest.raises(BadOption, match=r"6 volumes \(an axis that the file does not name\)"):
        read_image(tmp_path / "dwi.nii")
