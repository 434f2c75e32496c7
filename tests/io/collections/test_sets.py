"""Every data set on a folder of its layout, and on the real samples where there are some."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from pellucid.core.case import Case
from pellucid.core.image import Modality
from pellucid.io.collection import Choice, detect, read_collection
from pellucid.io.collections.declared import SETS, Collection, collections, facts_of, find_collection, first_of

NAMES = sorted(collections())
FIELD = re.compile(r"\{([^{}]+)\}")
CHOSEN_BY = {"split"}  # fields that only --select asks for


def templates(one: Collection) -> list[str]:
    """Every template of a data set."""
    marks = [*one.masks, *one.outlines, *one.tables.values(), *one.images.values()]
    found = [t for mark in marks for t in first_of(mark.file)]
    found += [one.case, *one.notes, *one.cases.beside, *(m.slices for m in one.masks)]
    found += [t.of for t in one.tables.values()] + [box.name for box in one.boxes]
    found += [t for fact in facts_of(one) for t in (*first_of(fact.of), *fact.words)]
    return found + [f"{{{m.labels}}}" for m in one.masks if m.labels]


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_a_file_declares_is_used(name: str) -> None:
    one = collections()[name]
    used = {field for template in templates(one) for field in FIELD.findall(template)}
    groups = set(re.compile(one.cases.path).groupindex) - CHOSEN_BY
    assert groups <= used | set(re.findall(r"\(\?P=(\w+)\)", one.cases.path))
    inner = {column for box in one.boxes for t in (box.name, *(box.frame or ())) for column in FIELD.findall(t)}
    assert {f for f in used if "." not in f} - inner <= groups | {"path", "dir", "root"}
    tables = {f.partition(".")[0] for f in used if "." in f}
    asked = tables | {box.table for box in one.boxes} | {f.table for f in facts_of(one) if f.table}
    assert asked | {"split"} == set(one.tables) | {"split"}  # MIMIC's split is for --select


@pytest.mark.parametrize("name", NAMES)
def test_its_file_says_what_a_user_must_know(name: str) -> None:
    one = collections()[name]
    assert (SETS / f"{name}.toml").is_file(), "the file is named after the data set"
    assert one.source.startswith("http")
    assert len(one.license) > 5
    assert re.search(r"\d{4}", one.citation), "a paper has a year"
    assert one.layout.strip()
    assert one.modality != Modality.UNKNOWN
    assert (SETS / f"{name}.toml").read_text(encoding="utf-8").isascii()


@pytest.mark.parametrize("name", NAMES)
def test_its_layout_is_read_and_told_from_all_others(name: str, layouts: Any) -> None:
    folder = layouts.make(name)
    one = find_collection(name)
    found = read_collection(folder, name)
    assert not found.failures
    assert found.cases
    assert len({case.name for case in found.cases}) == len(found.cases)
    assert detect(folder).name == name
    assert len(read_collection(folder.parent).cases) == len(found.cases), "the folder around it will do"
    for case in found.cases:
        assert case.files.keys() == case.images.keys()
        assert all(image.modality is not Modality.UNKNOWN for image in case.images.values())
        first = next(iter(case.images.values()))
        assert all(region.grid.same_geometry(first.grid) for region in case.regions.values())
    regions = {region for case in found.cases for region in case.regions}
    assert {m.name + (f"@{m.reader}" if m.reader else "") for m in one.masks if m.name} <= regions
    assert bool(one.outlines or one.boxes) <= bool(regions)
    assert all(
        any(getattr(c, fact) for c in found.cases) for fact in ("label", "patient", "group") if getattr(one, fact)
    )
    assert set(one.covariates) <= {name for case in found.cases for name in case.covariates}
    said = {t for case in found.cases for image in case.images.values() for t in image.traits}
    assert set(one.traits) <= said


def test_no_code_knows_a_data_set() -> None:
    """A new data set is one file: what reads it names forms and never a set."""
    code = [*SETS.parent.glob("*.py"), SETS.parent.parent / "collection.py"]
    assert len(code) > 5
    for file in code:
        strings = re.findall(r"\"([a-z0-9-]+)\"", file.read_text(encoding="utf-8"))
        assert not set(strings) & set(NAMES), file.name


def cases(layouts: Any, name: str) -> dict[str, Case]:
    return {case.name: case for case in read_collection(layouts.make(name), name).cases}


def test_brats_counts_no_cavity_of_new_years_as_enhancing_tumor(layouts: Any) -> None:
    old = cases(layouts, "brats")["Brats18_CBICA_AAB_1"]
    new = cases(layouts, "brats-2023")["BraTS-GLI-00005-001"]
    assert (old.group, old.label, old.patient) == ("CBICA", "HGG", "Brats18_CBICA_AAB_1")
    assert (new.patient, new.label) == ("BraTS-GLI-00005", None)
    for case in (old, new):
        assert list(case.images) == ["flair", "t1", "t1ce", "t2"]
        counts = [int(case.regions[r].mask.sum()) for r in ("WT", "TC", "ET")]
        assert counts == [216, 144, 72], "edema is whole tumor only, enhancing tumor is in all"
    cavity = new.regions["RC"].mask
    assert int(cavity.sum()) == 72
    assert not bool((cavity & new.regions["WT"].mask).any()), "label 4: enhancing tumor until 2021, not since"


def test_brats_of_children_has_other_labels_and_is_not_read(layouts: Any) -> None:
    folder = layouts.make("brats-2023")
    for path in sorted(folder.rglob("*MET*"), reverse=True):
        path.rename(path.with_name(path.name.replace("MET", "PED")))
    assert [case.name for case in read_collection(folder).cases] == ["BraTS-GLI-00005-001"]


def test_acdc_names_the_phase_by_its_own_file(layouts: Any) -> None:
    found = cases(layouts, "acdc")
    assert {n: c.covariates["systole"] for n, c in found.items()} == {
        "patient001_frame1": 0.0,
        "patient001_frame12": 1.0,
    }
    assert {c.label for c in found.values()} == {"DCM"}
    assert {c.patient for c in found.values()} == {"patient001"}


def test_the_decathlon_names_volumes_and_labels(layouts: Any) -> None:
    (case,) = cases(layouts, "msd").values()
    assert list(case.images) == ["T2", "ADC"]
    assert not np.array_equal(case.images["T2"].data, case.images["ADC"].data)
    assert {n: int(r.mask.sum()) for n, r in case.regions.items()} == {"PZ": 72, "TZ": 72}


def test_a_liver_without_tumor_has_no_such_region(layouts: Any) -> None:
    found = cases(layouts, "lits")
    assert set(found["volume-0"].regions) == {"liver", "tumor"}
    assert set(found["volume-11"].regions) == {"liver"}
    assert int(found["volume-0"].regions["liver"].mask.sum()) == 144, "the tumor lies in the liver"


def test_chaos_pictures_lie_where_their_dicom_file_does(layouts: Any) -> None:
    (case,) = cases(layouts, "chaos-ct").values()
    made, grid = layouts.phantom((6, 16, 20)), case.images["image"].grid
    mask = case.regions["liver"].mask.numpy()
    for number in range(6):  # of the file; its slice is the last but so many
        wide = np.zeros((16, 20), bool)
        wide[2:4, 5 : 7 + number] = True
        k = round(float(grid.index(made.place((5 - number, 0, 0)))[0, 0]))
        assert np.array_equal(mask[k], wide), number
    assert case.patient == "CT-5"


def test_chaos_organs_by_their_gray(layouts: Any) -> None:
    found = cases(layouts, "chaos-mr")
    assert set(found) == {"MR-7-T1DUAL-InPhase", "MR-7-T1DUAL-OutPhase", "MR-7-T2SPIR"}
    assert {c.patient for c in found.values()} == {"MR-7"}
    for case in found.values():
        rows = {n: int(np.argwhere(r.mask.numpy())[:, 1].min()) for n, r in case.regions.items()}
        assert rows == {"liver": 2, "right kidney": 5, "left kidney": 8, "spleen": 11}


def test_lidc_readers_nodules_and_ratings(layouts: Any) -> None:
    found = cases(layouts, "lidc-idri")
    assert set(found) == {"LIDC-IDRI-0001-nodule1", "LIDC-IDRI-0001-nodule2"}, "the radiograph is no case"
    both = next(c for c in found.values() if len(c.regions) == 2)
    one, two = both.regions["nodule@reader1"], both.regions["nodule@reader2"]
    assert (one.reader, two.reader) == ("reader1", "reader2")
    truth = np.zeros((16, 20), bool)
    truth[4:9, 5:12] = True  # within the ring, which is the first row outside
    made, grid = layouts.phantom((6, 16, 20)), both.images["image"].grid
    at = [round(float(grid.index(made.place((k, 0, 0)))[0, 0])) for k in range(6)]
    assert np.array_equal(one.mask[at[2]], truth)
    assert np.array_equal(one.mask[at[3]], truth)
    assert int(one.mask.sum()) == 2 * truth.sum()
    hole = truth.copy()
    hole[5:8, 6:9] = False
    assert np.array_equal(two.mask[at[3]], hole)
    assert both.covariates["malignancy"] == 4.0
    assert both.covariates["malignancy.reader1"] == 5.0
    assert both.covariates["readers"] == 2.0
    alone = next(c for c in found.values() if len(c.regions) == 1)
    assert np.flatnonzero(alone.regions["nodule@reader2"].mask.any(2).any(1)).tolist() == [at[5]]
    assert {c.patient for c in found.values()} == {"LIDC-IDRI-0001"}


def test_isic_lesions_stand_for_patients(layouts: Any) -> None:
    found = cases(layouts, "isic")
    assert found["ISIC_0024306"].label == "NV"
    assert found["ISIC_0024306"].patient == "HAM_0000550"
    assert (found["ISIC_0000001"].label, found["ISIC_0000001"].covariates) == ("bkl", {"age": 80.0})
    assert {n: list(c.regions) for n, c in found.items() if c.regions} == {"ISIC_0000000": ["lesion"]}


def test_busi_unites_the_masks_of_one_picture(layouts: Any) -> None:
    found = cases(layouts, "busi")
    assert int(found["benign-4"].regions["lesion"].mask.sum()) == 45 + 9
    assert not found["normal-1"].regions
    assert found["normal-1"].label == "normal"


def test_drive_has_readers_where_there_are_two(layouts: Any) -> None:
    found = cases(layouts, "drive")
    assert {r.reader for r in found["test-01"].regions.values()} == {"1st", "2nd", ""}
    assert "vessels@2nd" not in found["training-21"].regions


def test_boxes_of_1024_pixels_lie_on_a_smaller_picture(layouts: Any) -> None:
    found = cases(layouts, "chestxray14")
    sick, well = found["00000001_000"], found["00000013_002"]
    box = np.argwhere(sick.regions["Cardiomegaly"].mask.numpy())
    assert (box.min(0).tolist(), box.max(0).tolist()) == ([4, 10], [9, 14]), "rows 4 to 10, columns 10 to 15, half open"
    assert (sick.label, sick.patient, sick.group) == ("Cardiomegaly|Effusion", "00000001", "PA")
    assert sick.covariates == {"age": 58.0, "male": 1.0}
    assert sick.images["image"].traits["view"] == "PA"
    assert (well.label, well.regions, well.covariates["age"]) == ("No Finding", {}, 61.0)


def test_mimic_counts_an_uncertain_label_as_absent(layouts: Any) -> None:
    (case,) = cases(layouts, "mimic-cxr").values()
    assert (case.label, case.patient, case.group) == ("Atelectasis|Edema", "10000032", "PA")


def test_inbreast_contours_side_and_grade(layouts: Any) -> None:
    found = cases(layouts, "inbreast")
    sick = found["20586908"]
    mass = np.argwhere(sick.regions["mass"].mask.numpy())
    assert (mass.min(0).tolist(), mass.max(0).tolist(), len(mass)) == ([4, 6], [8, 14], 45)
    assert np.argwhere(sick.regions["calcification"].mask.numpy()).tolist() == [[12, 2]]
    assert (sick.label, sick.patient, sick.covariates) == ("BI-RADS 4a", "6c613a14b80a8591", {"density": 3.0})
    assert (sick.images["image"].traits["laterality"], sick.images["image"].traits["view"]) == ("R", "CC")
    assert (found["20586934"].regions, found["20586934"].covariates) == ({}, {})


def test_kvasir_box_in_the_pixels_of_the_first_picture(layouts: Any) -> None:
    (case,) = cases(layouts, "kvasir-seg").values()
    box = np.argwhere(case.regions["polyp box"].mask.numpy())
    assert (box.min(0).tolist(), box.max(0).tolist()) == ([4, 6], [8, 14])


@pytest.mark.parametrize(
    ("name", "label", "patient", "group"),
    [
        ("glas", "malignant", "8", None),
        ("kermany-oct", "CNV", "1016042", None),
        ("retouch", None, None, "Cirrus"),
        ("tcga-lgg", None, "TCGA_CS_4941", "CS"),
        ("ph2", "melanoma", None, None),
        ("kvasir", "normal-z-line", None, None),
        ("segthor", None, "Patient_01", None),
        ("endoscene", None, None, "CVC-300"),
    ],
)
def test_label_patient_and_group(name: str, label: str, patient: str, group: str, layouts: Any) -> None:
    assert (label, patient, group) in [(c.label, c.patient, c.group) for c in cases(layouts, name).values()]


def test_the_real_fundi_of_chase_and_drive(shared_data: Path) -> None:
    chase = read_collection(shared_data / "fundus_vessels", "chase-db1", Choice(limit=3))
    assert len(chase.cases) == 3
    for case in chase.cases:
        stem = f"Image_{case.name}_1stHO.png"
        truth = np.asarray(Picture.open(shared_data / "fundus_vessels" / "CHASEDB1" / stem)) > 0
        assert np.array_equal(case.regions["vessels@1st"].mask.numpy(), truth)
        assert case.images["image"].traits["laterality"] == case.name[-1]
    drive = read_collection(shared_data / "fundus_vessels", "drive", Choice(limit=2))
    assert [set(c.regions) for c in drive.cases] == [{"vessels@1st", "field of view"}] * 2


def test_the_real_ultrasound_and_polyps(shared_data: Path) -> None:
    busi = read_collection(shared_data / "ultrasound_busi", choice=Choice(where={"label": "normal"}, limit=2))
    assert [(c.label, c.regions) for c in busi.cases] == [("normal", {})] * 2
    sick = read_collection(shared_data / "ultrasound_busi", choice=Choice(where={"label": "malignant"}, limit=2))
    assert all(set(c.regions) == {"lesion"} for c in sick.cases)
    polyps = read_collection(shared_data / "endoscopy_polyp", choice=Choice(limit=3))
    assert [set(c.regions) for c in polyps.cases] == [{"polyp"}] * 3


def test_the_real_radiographs_with_their_boxes(shared_data: Path, tmp_path: Path) -> None:
    """The sample keeps the boxes in a table of its own: here it gets the names of the data set."""
    with (shared_data / "xray_nih" / "bbox.csv").open(encoding="utf-8") as stream:
        boxes = list(csv.reader(stream))[1:]
    (tmp_path / "images").mkdir()
    entry, listed = ["Image Index,Finding Labels,Patient ID"], ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    for name, finding, *edges in boxes:
        picture = name.replace(".png", ".jpg")
        (tmp_path / "images" / picture).symlink_to(shared_data / "xray_nih" / "images" / picture)
        entry.append(f"{name},{finding},1")
        listed.append(",".join([name, finding, *edges]))
    (tmp_path / "Data_Entry_2017.csv").write_text("\n".join(entry), encoding="utf-8")
    (tmp_path / "BBox_List_2017.csv").write_text("\n".join(listed), encoding="utf-8")
    found = read_collection(tmp_path)
    assert not found.failures
    assert len(found.cases) == len({row[0] for row in boxes})
    for name, finding, *edges in boxes:
        case = next(c for c in found.cases if name.startswith(c.name))
        finding = "Infiltration" if finding == "Infiltrate" else finding  # the boxes' word for the label
        assert finding in case.regions
        left, top, width, height = (float(e) for e in edges)
        area = float(case.regions[finding].mask.float().mean()) * 1024**2
        assert area == pytest.approx(width * height, rel=0.05)
        center = (
            np.argwhere(case.regions[finding].mask.numpy()).mean(0) * 1024 / np.array(case.images["image"].grid.shape)
        )
        assert center == pytest.approx([top + height / 2, left + width / 2], abs=3)


def test_the_real_hippocampi_in_the_layout_of_the_decathlon(shared_data: Path, tmp_path: Path) -> None:
    for ours, theirs in (("images", "imagesTr"), ("labels", "labelsTr")):
        (tmp_path / theirs).mkdir()
        for file in sorted((shared_data / "mri_hippocampus" / ours).iterdir())[:2]:
            (tmp_path / theirs / file.name).symlink_to(file)
    told = '{"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "Anterior", "2": "Posterior"}}'
    (tmp_path / "dataset.json").write_text(told, encoding="utf-8")
    found = read_collection(tmp_path)
    assert [list(c.images) for c in found.cases] == [["image"]] * 2
    assert [set(c.regions) for c in found.cases] == [{"Anterior", "Posterior"}] * 2
