"""What a damaged, mixed or foreign folder gets, and which cases are chosen."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from pellucid.core.case import Case
from pellucid.core.errors import BadOption, InputError, NonFinite, PellucidError, UnknownName, UnreadableImage
from pellucid.io.collection import Choice, detect, iter_collection, read_collection
from pellucid.io.collections import facts, outlines
from pellucid.io.collections.declared import find_collection, load_collection
from pellucid.io.reader import Failure

OWN = """
name = "ours"
title = "Our films"
modality = "x-ray"
source = "https://example.org"
license = "ours"
citation = "Nobody 2026"
layout = "film7.png   film7_mask.png"
case = "film{id}"
notes = ["film {id} of the study"]
[cases]
path = 'film(?P<id>\\d+)\\.png'
[images.image]
file = "{path}"
[[masks]]
name = "finding"
file = "{dir}film{id}_mask.png"
"""


def picture(path: Path, size: tuple[int, int] = (20, 16), value: int = 0) -> None:
    values = np.zeros(size[::-1], np.uint8)
    values[3:5, 4:9] = value
    Picture.fromarray(values).save(path)


def test_a_bad_case_is_listed_and_stops_nobody(layouts: Any) -> None:
    folder = layouts.make("chase-db1")
    for name in ("Image_02L", "Image_03L", "Image_04L"):
        shutil.copy(folder / "Image_01L.jpg", folder / f"{name}.jpg")
    for reader in ("1stHO", "2ndHO"):
        picture(folder / f"Image_03L_{reader}.png", size=(9, 9), value=255)
        (folder / f"Image_04L_{reader}.png").write_bytes((folder / "Image_01L_1stHO.png").read_bytes()[:40])
    found = read_collection(folder)
    assert [case.name for case in found.cases] == ["01L", "01R"]
    assert [f.reference for f in found.failures] == ["case 3 of 5", "case 4 of 5", "case 5 of 5"]
    missing, small, cut = (str(f.error) for f in found.failures)
    assert "a mask of vessels beside the image, got none" in missing
    assert "on the image's grid of 16 x 20" in small
    assert "got 9 x 9" in small
    assert "complete PNG" in cut
    assert not any("Image_0" in text for text in (missing, small, cut)), "file names stay out of messages"


def test_slices_without_their_pictures_are_refused(layouts: Any) -> None:
    folder = layouts.make("chaos-ct")
    next(folder.rglob("liver_GT_003.png")).unlink()
    found = read_collection(folder, "chaos-ct")
    assert "a picture for each of 6 slices, got 5" in str(found.failures[0].error)


def test_an_unknown_layout_an_empty_folder_and_a_wrong_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    with pytest.raises(BadOption, match="got one of none that is known"):
        read_collection(tmp_path)
    with pytest.raises(UnreadableImage, match="the layout of BUSI, breast ultrasound, got a folder without a case"):
        read_collection(tmp_path, "busi")
    with pytest.raises(UnreadableImage, match="the folder of a data set, got none"):
        read_collection(tmp_path / "absent", "busi")
    with pytest.raises(UnknownName, match="no data set 'bussi'"):
        read_collection(tmp_path, "bussi")


def test_two_layouts_in_one_folder_must_be_named(layouts: Any) -> None:
    folder = layouts.make("busi").parent
    layouts.make("kvasir")
    with pytest.raises(BadOption, match="got one of busi, kvasir"):
        detect(folder)
    assert {case.label for case in read_collection(folder, "kvasir").cases} == {"polyps", "normal-z-line"}


def test_a_missing_table_is_told_once_and_by_name(layouts: Any) -> None:
    folder = layouts.make("chestxray14")
    (folder / "Data_Entry_2017.csv").unlink()
    with pytest.raises(UnreadableImage, match=r"the table .*Data_Entry_2017\*\.csv"):
        read_collection(folder, "chestxray14")
    (folder / "Data_Entry_2017.csv").write_text("Name,Finding\nx,y\n", encoding="utf-8")
    with pytest.raises(UnreadableImage, match="a column 'Image Index', got one without"):
        read_collection(folder, "chestxray14")


def test_a_table_without_the_case_leaves_its_facts_out(layouts: Any) -> None:
    folder = layouts.make("glas")
    (folder / "Grade.csv").write_text("name,patient ID, grade (GlaS)\nother,1,benign\n", encoding="utf-8")
    (case,) = read_collection(folder).cases
    assert (case.label, case.patient) == (None, None)


def test_tables_may_be_packed_and_must_not_be_endless(layouts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    folder = layouts.make("mimic-cxr")
    for table in sorted(folder.glob("*.csv")):
        table.with_name(table.name + ".gz").write_bytes(gzip.compress(table.read_bytes()))
        table.unlink()
    (case,) = read_collection(folder).cases
    assert case.label == "Atelectasis|Edema"
    monkeypatch.setattr(facts, "_MAX_BYTES", 20)
    with pytest.raises(UnreadableImage, match="at most 20 bytes"):
        read_collection(folder, "mimic-cxr")


def test_a_box_is_called_as_the_label_is(layouts: Any) -> None:
    folder = layouts.make("chestxray14")
    text = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Infiltrate,9,9,99,99,,,\n"
    (folder / "BBox_List_2017.csv").write_text(text, encoding="utf-8")
    assert [sorted(case.regions) for case in read_collection(folder).cases] == [["Infiltration"], []]


def test_a_box_outside_the_picture_is_a_failure(layouts: Any) -> None:
    folder = layouts.make("chestxray14")
    header = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    for row, problem in (("2000,2000,9,9", "inside the image"), ("1,1,word,9", "got a row without")):
        text = f"{header}\n00000001_000.png,Mass,{row},,,\n"
        (folder / "BBox_List_2017.csv").write_text(text, encoding="utf-8")
        found = read_collection(folder)
        assert len(found.cases) == 1
        assert problem in str(found.failures[0].error)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.replace('"1.0"?>', '"1.0"?><!DOCTYPE a [<!ENTITY b "bb">]>'), "a document type"),
        (lambda t: t[: len(t) // 2], "damaged or incomplete"),
        (lambda t: t.replace("<xCoord>4<", "<xCoord>4e9<"), "far outside"),
        (lambda t: t.replace("<xCoord>4<", "<xCoord>nan<"), "far outside"),
        (lambda t: t.replace("<xCoord>4<", "<xCoord>four<"), "a case of the data set"),
        (lambda t: t.replace("<imageZposition>", "<imageZposition>z"), "a case of the data set"),
        (lambda t: t.replace("not in the series", "x").replace("<imageZposition>", "<imageZposition>9"), "on another"),
    ],
)
def test_hostile_and_foreign_outlines_fail_their_case(change: Any, problem: str, layouts: Any) -> None:
    folder = layouts.make("lidc-idri")
    (reading,) = folder.rglob("069.xml")
    reading.write_text(change(reading.read_text(encoding="utf-8")), encoding="utf-8")
    found = read_collection(folder, "lidc-idri")
    assert not found.cases
    assert problem in str(found.failures[0].error)


def test_a_property_list_with_entities_or_without_end(layouts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = layouts.make("inbreast")
    (contours,) = folder.rglob("20586908.xml")
    whole = contours.read_text(encoding="utf-8")
    contours.write_text(
        whole.replace("<!DOCTYPE plist", '<!DOCTYPE plist [<!ENTITY a "a">] >\n<!-- '), encoding="utf-8"
    )
    found = read_collection(folder)
    assert "a property list of contours" in str(found.failures[0].error)
    contours.write_text(whole, encoding="utf-8")
    monkeypatch.setattr(outlines, "_MAX_BYTES", 10)
    assert "at most 10 bytes" in str(read_collection(folder).failures[0].error)


def test_what_is_no_finite_image_fails_alone(layouts: Any) -> None:
    import nibabel as nib

    folder = layouts.make("lits")
    nib.save(nib.Nifti1Image(np.full((16, 20, 28), np.nan, np.float32), np.eye(4)), folder / "volume-0.nii")
    found = read_collection(folder)
    assert [c.name for c in found.cases] == ["volume-11"]
    assert isinstance(found.failures[0].error, NonFinite)


def test_a_drawn_limit_is_the_same_for_a_seed(shared_data: Path) -> None:
    folder = shared_data / "ultrasound_busi"
    draws = [[c.name for c in read_collection(folder, "busi", Choice(5, seed)).cases] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert len(draws[0]) == len(set(draws[0])) == 5
    with pytest.raises(BadOption, match="a limit of at least 1"):
        read_collection(folder, "busi", Choice(0))
    with pytest.raises(BadOption, match=r"none of \d+ cases has"):
        read_collection(folder, "busi", Choice(where={"label": "cyst"}))


def test_a_split_is_chosen_by_a_table_or_by_the_path(layouts: Any) -> None:
    folder = layouts.make("mimic-cxr")
    assert len(read_collection(folder, choice=Choice(where={"split.split": "train"})).cases) == 1
    with pytest.raises(BadOption, match=r"none of 1 cases .* its fields: patient, study, id, chexpert\.COLUMN, "):
        read_collection(folder, choice=Choice(where={"split.split": "test"}))
    tests = read_collection(layouts.make("kermany-oct"), choice=Choice(where={"split": "test"}))
    assert [c.label for c in tests.cases] == ["NORMAL"]


def test_cases_come_one_by_one(layouts: Any) -> None:
    folder = layouts.make("brats")
    stream = iter_collection(folder)
    first = next(stream)
    shutil.rmtree(folder)
    assert isinstance(first, Case)
    assert all(isinstance(rest, Failure) for rest in stream), "later cases are not read before they are asked for"


def test_a_data_set_of_ones_own_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "ours.toml").write_text(OWN, encoding="utf-8")
    picture(tmp_path / "film7.png", value=90)
    picture(tmp_path / "film7_mask.png", value=255)
    (case,) = read_collection(tmp_path, str(tmp_path / "ours.toml")).cases
    assert (case.name, case.notes, list(case.regions)) == ("film7", ("film 7 of the study",), ["finding"])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('name = "ours"', "", "'name'"),
        ('license = "ours"', 'licence = "ours"', "licen[cs]e"),
        ("(?P<id>", "(?P<id", "no regular expression"),
        ('modality = "x-ray"', 'modality = "sonar"', "modality 'sonar' is unknown"),
        ('case = "film{id}"', 'case = "{id}"\nlabel = {table = "t", columns = ["a"]}', "table 't' is used"),
        ("title", "=", "is not TOML"),
    ],
)
def test_a_file_that_is_wrong_is_told_where(old: str, new: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "ours.toml").write_text(OWN.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(BadOption, match=problem):
        load_collection(tmp_path / "ours.toml")


def test_a_file_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    inner = tmp_path / "set"
    inner.mkdir()
    picture(inner / "film7.png", value=90)
    picture(tmp_path / "film7_mask.png", value=255)
    for place in ("../film{id}_mask.png", f"{tmp_path.as_posix()}/film7_mask.png"):
        (tmp_path / "ours.toml").write_text(OWN.replace("{dir}film{id}_mask.png", place), encoding="utf-8")
        assert "got none" in str(read_collection(inner, str(tmp_path / "ours.toml")).failures[0].error)
    with pytest.raises(InputError, match="cannot be read"):
        find_collection(str(tmp_path / "absent.toml"))


def test_labels_that_a_data_set_does_not_name_are_refused(layouts: Any) -> None:
    folder = layouts.make("msd")
    (table,) = folder.rglob("dataset.json")
    told = json.loads(table.read_text(encoding="utf-8"))
    table.write_text(json.dumps({**told, "labels": {"PZ": 1, "gland": [1, 2], "background": 0}}), encoding="utf-8")
    (case,) = read_collection(folder).cases
    assert {n: int(r.mask.sum()) for n, r in case.regions.items()} == {"PZ": 72, "gland": 144}
    table.write_text(json.dumps({**told, "labels": "many"}), encoding="utf-8")
    found = read_collection(folder, "msd")
    assert isinstance(found.failures[0].error, PellucidError)
    assert "name the labels" in str(found.failures[0].error)
