"""Which series of a study is taken, and what is said of the others."""

import shutil

import numpy as np
import pytest
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from pellucid.core.errors import BadOption, NotApplicable, UnreadableImage
from pellucid.io.dicom import survey
from pellucid.io.folder import files_below
from pellucid.io.modelcard import parse_card
from pellucid.io.reader import read_cases
from pellucid.io.selection import RULE, Choosing, candidates, judge

CARD = """
[model]
name = "lungs"
version = "1"
task = "segmentation"
modality = ["ct"]
weights = "w.safetensors"
sha256 = "{digest}"
license = "MIT"
factory = "package.module:function"

[[inputs]]
name = "image"
rank = 3

[output]
labels = ["background", "lung"]
activation = "softmax"

[applies_to]
{rules}
"""


def card(rules=""):
    return parse_card(CARD.format(digest="0" * 64, rules=rules))


@pytest.fixture
def study(tmp_path, phantom, write, packaged):
    """One examination as archives send it: a scout, reconstructions, a capture, an MR, a reformat, a dose report."""
    uid = generate_uid()
    made = {}

    def add(name, shape=(6, 16, 20), change=lambda data: None, **options):
        thing = phantom(shape=shape, bright=(0, 3, 15), **options)
        datasets = thing.datasets()
        for data in datasets:
            data.StudyInstanceUID, data.SeriesNumber = uid, len(made) + 1
            data.SeriesDescription = "CANARYNAME ZEBRA chest"
            data.ConvolutionKernel = "B30f"
            change(data)
        made[name] = thing
        write(tmp_path / "study" / "CANARYNAME" / f"S{len(made)}", datasets)

    def sharp(data):
        data.ConvolutionKernel = "B70f"

    def scout(data):
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def capture(data):
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        data.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]

    add("scout", (1, 16, 20), scout)
    add("thick", (6, 16, 20))
    add("thin", (12, 16, 20), steps=(1.25, 0.8, 0.6))
    add("sharp", (14, 16, 20), sharp, steps=(1.25, 0.8, 0.6))
    add("capture", (1, 16, 20), capture)
    add("mr", (8, 16, 20), lambda data: setattr(data, "Modality", "MR"))
    add("reformat", (20, 16, 20), lambda data: setattr(data, "ImageType", ["DERIVED", "PRIMARY", "MPR"]))
    add("gap", (9, 16, 20))
    gap = sorted((tmp_path / "study" / "CANARYNAME" / "S8").iterdir())
    depths = {path: _depth(path) for path in gap}
    min(sorted(gap, key=depths.get)[3:4]).unlink()
    (tmp_path / "study" / "CANARYNAME" / "S9").mkdir()
    shutil.copy(packaged("reportsi.dcm"), tmp_path / "study" / "CANARYNAME" / "S9")
    return tmp_path / "study", made


def _depth(path):
    (member,) = survey([path]).members
    return float(member.header.ImagePositionPatient[2])


def test_the_card_chooses_and_says_why(study, canary):
    folder, made = study
    (case,) = read_cases(folder, choosing=Choosing(card('kernel = ["B30f"]'))).cases
    assert case.images["image"].data.shape == (1, *made["thin"].hu.shape)
    assert len(case.files["image"]) == 12
    choice = case.series
    assert (choice.number, choice.of) == (3, 8)
    assert choice.why == f"{RULE} (2 fit)"
    assert choice.rejected == (
        "1: a localizer",
        "2: fits, with 6 slices of 12",
        "4: kernel is B70f, the model is for B30f",
        "5: a screen capture or a page of doses",
        "6: the modality is mri, the model is for ct",
        "7: derived from other images",
        "8: 1 slice(s) missing after slice 3 of 8: 5.00 mm where 2.50 mm is usual",
        "1 x Basic Text SR Storage",
    )
    assert choice.words.startswith("series 3 of 8, of those that fit")
    assert not [part for part in canary if part in choice.words]


def test_without_a_kernel_the_most_slices_then_the_thinnest(study, tmp_path, phantom, write):
    folder, _ = study
    assert read_cases(folder, choosing=Choosing(card())).cases[0].series.number == 4
    (one,) = read_cases(folder, choosing=Choosing(card("slice_mm = [2.0, 3.0]"))).cases
    assert (one.series.number, one.series.why) == (2, "the only one that fits the model card")
    (same,) = read_cases(folder, choosing=Choosing(card("slice_mm = [2.0, 3.0]"), resample=True)).cases
    assert same.series.number == 8
    assert "resampled" in same.images["image"].traits


def test_equals_are_named(tmp_path, phantom, write):
    uid = generate_uid()
    for k in (1, 2):
        datasets = phantom().datasets()
        for data in datasets:
            data.StudyInstanceUID, data.SeriesNumber = uid, k
        write(tmp_path / "in" / f"s{k}", datasets)
    (case,) = read_cases(tmp_path / "in", choosing=Choosing(card())).cases
    assert case.series.number == 1
    assert "1, 2 are alike by this rule: choose with --series" in case.series.why
    assert case.series.rejected == ("2: fits as well, and comes later",)


def test_a_number_goes_before_the_card(study):
    folder, _ = study
    for choosing in (Choosing(number=7), Choosing(card(), number=7)):
        (case,) = read_cases(folder, choosing=choosing).cases
        assert case.images["image"].data.shape[1] == 20
        assert case.series.words == "series 7 of 8, chosen by its number; not taken: 1 x Basic Text SR Storage"
    with pytest.raises(BadOption, match="--series from 1 to 8, got 9"):
        read_cases(folder, choosing=Choosing(number=9))
    with pytest.raises(UnreadableImage, match="got one without"):
        read_cases(folder / "CANARYNAME" / "S9", choosing=Choosing(number=1))
    with pytest.raises(BadOption, match="--series from 1, got 0"):
        Choosing(number=0)


def test_nothing_is_taken_where_nothing_fits(study):
    with pytest.raises(NotApplicable, match=r"none of the 8 series .* 6: the modality is mri, .*--series NUMBER"):
        read_cases(study[0], choosing=Choosing(card('body_part = ["BRAIN"]\nkernel = ["H60"]')))


def test_without_a_rule_each_folder_is_what_it_was(study):
    cases = read_cases(study[0])
    assert len(cases.cases) == 7
    assert len(cases.failures) == 2  # the gap, and the folder of the report
    flat = study[0].parent / "flat"
    flat.mkdir()
    for number, file in enumerate(files_below(study[0])):
        shutil.copy(file, flat / str(number))
    with pytest.raises(UnreadableImage, match=r"expected one series, got 8: .*'pellucid dicom series' lists them"):
        read_cases(flat)
    (case,) = read_cases(flat, choosing=Choosing(card('kernel = ["B30f"]'))).cases
    assert case.series.number == 3


def test_studies_are_cases_and_one_bad_one_does_not_cost_the_others(study, phantom, write):
    folder, _ = study
    write(folder / "other" / "s", phantom().datasets())
    third = write(folder / "third" / "s", phantom().datasets())
    broken = next(iter(third.iterdir()))
    broken.write_bytes(broken.read_bytes()[:600])
    cases = read_cases(folder, choosing=Choosing(card('kernel = ["B30f"]')))
    assert [case.series is None for case in cases.cases] == [False, True]
    assert [f.reference for f in cases.failures] == ["study or image 3 of 3"]
    with pytest.raises(BadOption, match="expected one study for --series, got 3"):
        read_cases(folder, choosing=Choosing(number=1))
    assert "cannot be read" in cases.failures[0].error.problem


def test_a_damaged_file_elsewhere_is_listed(study):
    folder, _ = study
    (folder / "CANARYNAME" / "S6" / "bad").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    cases = read_cases(folder, choosing=Choosing(card('kernel = ["B30f"]')))
    assert cases.cases[0].series.number == 3
    assert [f.reference for f in cases.failures] == ["file 1 of 1 that cannot be read"]
    with pytest.raises(UnreadableImage, match="1 of 9 DICOM files cannot be read"):
        read_cases(folder, choosing=Choosing(number=6))


def test_films_of_one_examination_stay_cases_of_their_own(tmp_path, phantom, write):
    uid = generate_uid()
    for view in ("PA", "LL"):
        data = phantom(shape=(1, 16, 20), bright=(0, 3, 15)).datasets()[0]
        data.StudyInstanceUID, data.Modality, data.ViewPosition = uid, "DX", view
        del data.ImagePositionPatient
        write(tmp_path / "in" / view, [data])
    rule = Choosing(card('view = ["PA"]'))
    assert len(read_cases(tmp_path / "in", choosing=rule).cases) == 2
    (one,) = read_cases(tmp_path / "in", choosing=Choosing(number=2)).cases
    assert one.images["image"].traits["view"] == "PA"


def test_candidates_tell_what_they_are_without_what_people_typed(study, canary):
    found = candidates(survey(files_below(study[0])))
    assert found[2].title == "CT, 12 x 16 x 20, 1.25 mm, kernel B30f"
    assert found[2].grid.spacing == pytest.approx((1.25, 0.8, 0.6))
    assert [judge(one, Choosing()).verdict for one in found] == [
        *("excluded", "unknown", "unknown", "unknown"),
        *("excluded", "unknown", "excluded", "excluded"),
    ]
    spoken = " ".join([one.title + one.nature + one.problem for one in found] + [repr(one) for one in found])
    assert not [part for part in canary if part in spoken.replace(str(study[0]), "").replace("/CANARYNAME", "")]


def test_what_else_makes_a_series_none_to_explain(tmp_path, phantom, write):
    def nature(**tags):
        datasets = phantom(shape=(2, 16, 20), bright=(0, 0, 0)).datasets(modality=tags.pop("Modality", "CT"))
        for data in datasets:
            for name, value in tags.items():
                setattr(data, name, value)
        folder = write(tmp_path / generate_uid(), datasets)
        return candidates(survey(sorted(folder.iterdir())))[0].nature

    assert nature() == ""
    assert nature(ImageType=["ORIGINAL", "SECONDARY"]) == "a secondary image"
    assert nature(ImageType="ORIGINAL") == ""
    assert nature(ImageType=["ORIGINAL", "PRIMARY", "CT_SOM5 SCOUT"]) == "a localizer"
    assert nature(Modality="PT", CorrectedImage=["DECY", "SCAT"]) == "not corrected for attenuation"
    assert nature(Modality="PT", CorrectedImage=["DECY", "ATTN"]) == ""


def test_an_odd_size_is_said(tmp_path, phantom, write):
    datasets = phantom(shape=(3, 16, 20), bright=(0, 0, 0)).datasets()
    datasets[1].PixelSpacing = [0, 0]
    (one,) = candidates(survey(sorted(write(tmp_path / "s", datasets).iterdir())))
    assert "zero, negative" in one.problem
    assert np.isfinite(one.grid.matrix).all()
