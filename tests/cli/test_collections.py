"""``pellucid collections``, and a public data set explained, evaluated, pooled and studied by its name."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pellucid.demo.cases import MODELS
from pellucid.io.collections.declared import collections
from pellucid.study.folder import ITEMS

Command = Callable[..., object]
PNEUMONIA = MODELS / "pneumonia" / "model.toml"
STUDY = """
name = "films"
cases = "films"
collection = "{collection}"
limit = 3
methods = ["Saliency"]
metrics = ["Sparseness", "Dice"]
{more}
[models]
pneumonia = "{model}"
"""
STOP = '[stop]\nprotocol = "emergency-triage"\n[models]'


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """ChestX-ray14 with four films of two patients; two have a box."""
    folder = tmp_path / "films"
    (folder / "images").mkdir(parents=True)
    entry = ["Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,View Position"]
    boxes = ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    noise = np.random.default_rng(0).integers(0, 255, (4, 40, 40), dtype=np.uint8)
    for n, image in enumerate(noise):
        name = f"0000000{1 + n // 2}_00{n % 2}.png"
        Image.fromarray(image).save(folder / "images" / name)
        entry.append(f"{name},{'Pneumonia' if n % 2 else 'No Finding'},{1 + n // 2},0{60 + n}Y,M,{('PA', 'AP')[n % 2]}")
        if n % 2:
            boxes.append(f"{name},Pneumonia,256,256,512,256,,,")
    (folder / "Data_Entry_2017.csv").write_text("\n".join(entry), encoding="utf-8")
    (folder / "BBox_List_2017.csv").write_text("\n".join(boxes), encoding="utf-8")
    return folder


def test_every_data_set_is_listed_with_its_layout_and_terms(pellucid: Command) -> None:
    said = pellucid("collections").out
    listed = pellucid("collections", "--json").json
    assert [one["name"] for one in listed] == list(collections())
    for one in listed:
        assert one["name"] in said
        assert one["license"] in said
        assert one["layout"].splitlines()[0].strip() in said
    busi = pellucid("collections", "busi", "--json").json
    assert [one["regions"] for one in busi] == [["lesion"]]
    wrong = pellucid("collections", "bussi")
    assert wrong.code == 2
    assert "busi" in wrong.err


def test_a_data_set_is_evaluated_with_its_boxes(pellucid: Command, films: Path, tmp_path: Path) -> None:
    done = pellucid(
        "evaluate", films, "--collection", "auto", "--select", "entry.View Position=AP", "--limit", "1",
        "--model", PNEUMONIA, "--method", "Saliency", "--metric", "HitRate", "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    (case,) = done.json["cases"]
    assert case["case"] in ("00000001_001", "00000002_001")
    assert case["scores"][0]["region"] == "Pneumonia"
    assert "ChestX-ray14" in done.err
    assert "License: no restriction, with attribution" in done.err, "the terms are shown when it is used"


def test_a_data_set_is_explained_and_pooled(pellucid: Command, films: Path, tmp_path: Path) -> None:
    done = pellucid(
        "explain", films, "--collection", "chestxray14", "--model", PNEUMONIA, "--method", "Saliency",
        "--no-checks", "--override", "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.code == 0, done.json["failures"]
    assert len(done.json["cases"]) == 4
    pooled = pellucid(
        "cohort", films, "--collection", "chestxray14", "--model", PNEUMONIA, "--method", "PermutationImportance",
        "--out", tmp_path / "cohort", "--override", "--json",
    )  # fmt: skip
    assert pooled.code in (0, 2), pooled.err
    assert "ChestX-ray14" in pooled.err


def test_what_chooses_nothing_is_refused(
    pellucid: Command, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("explain", films, "--model", PNEUMONIA, "--out", tmp_path / "out")
    assert "add --collection NAME" in pellucid(*call, "--limit", "2").err
    assert "FIELD=VALUE" in pellucid(*call, "--collection", "auto", "--select", "AP").err
    assert "layout of BUSI" in pellucid(*call, "--collection", "busi").err
    monkeypatch.setattr("pellucid.cli.collecting._MOST", 3)
    many = pellucid(*call, "--collection", "auto")
    assert many.code == 2
    assert "at most 3 cases at once, chestxray14 has 4" in many.err


def test_a_study_names_a_data_set(pellucid: Command, films: Path, tmp_path: Path) -> None:
    text = STUDY.format(collection="chestxray14", model=MODELS.joinpath("pneumonia").as_posix(), more="")
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    done = pellucid("study", "run", tmp_path / "study.toml", "--out", tmp_path / "out", "--json")
    assert done.code in (0, 2), done.err
    items = [json.loads(line) for line in (tmp_path / "out" / ITEMS).read_text().splitlines() if line]
    assert len(items) == 3
    assert {item["patient"] for item in items} == {"00000001", "00000002"}
    assert {item["site"] for item in items} <= {"PA", "AP"}
    again = pellucid("study", "run", tmp_path / "study.toml", "--out", tmp_path / "out", "--json")
    assert again.code == done.code
    (tmp_path / "study.toml").write_text(text.replace("[models]", STOP), encoding="utf-8")
    assert "expected a table of cases" in pellucid("study", "run", tmp_path / "study.toml", "--out", "x").err
    (tmp_path / "study.toml").write_text(text.replace('collection = "chestxray14"\n', ""), encoding="utf-8")
    assert "'limit' and 'select' choose cases" in pellucid("study", "run", tmp_path / "study.toml", "--out", "x").err


def test_a_region_that_a_data_set_cannot_have(pellucid: Command, tmp_path: Path, films: Path) -> None:
    (tmp_path / "films" / "normal").mkdir()
    for end in ("", "_mask"):
        Image.new("L", (20, 20)).save(films / "normal" / f"normal (1){end}.png")
    text = STUDY.format(collection="busi", model=MODELS.joinpath("pneumonia").as_posix(), more='regions = ["spleen"]')
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    refused = pellucid("study", "run", tmp_path / "study.toml", "--out", tmp_path / "out")
    assert "no case has a region 'spleen'. regions: lesion." in refused.err
