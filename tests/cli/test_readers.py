"""Several readers' masks through the command, on a fundus photograph that two observers marked."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

Command = Callable[..., object]
VESSELS = Path(__file__).resolve().parents[2] / "src" / "pellucid" / "demo" / "models" / "vessels" / "model.toml"
METRICS = [
    *("Dice", "IoU", "MeanIoU", "CohenKappa:roi=box", "FleissKappa", "KrippendorffAlpha", "SurfaceDistance"),
    "HumanBenchmark:measure=dice,margin=0.05",
]
WORDS = "the region is the consensus of first, second: what at least half of them marked (ties count)"


def test_two_observers_of_a_real_photograph(pellucid: Command, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "fundus_vessels" / "CHASEDB1"
    done = pellucid(
        *("evaluate", folder / "Image_01L.jpg", "--model", VESSELS, "--out", tmp_path / "o", "--json", "--no-checks"),
        *("--region", f"first={folder / 'Image_01L_1stHO.png'}"),
        *("--region", f"second={folder / 'Image_01L_2ndHO.png'}"),
        *("--method", "InputXGradient", *(w for metric in METRICS for w in ("--metric", metric))),
    )
    assert done.code == 0, done.err
    case = done.json["cases"][0]
    assert case["readers"] == ["first", "second"]
    scores = {s["metric"]: s for s in case["scores"]}
    assert {s["region"] for s in scores.values()} == {"consensus"}
    assert {s["detail"]["truth"] for s in scores.values()} == {WORDS}
    assert 0.1 < scores["Dice"]["value"] < 0.6
    assert scores["MeanIoU"]["value"] > scores["IoU"]["value"]
    assert scores["SurfaceDistance"]["value"] is None
    assert "no millimeters" in scores["SurfaceDistance"]["reason"]
    fleiss, alpha = scores["FleissKappa"], scores["KrippendorffAlpha"]
    assert fleiss["value"] == pytest.approx(alpha["value"], abs=1e-4)
    assert fleiss["detail"]["readers"] == ["first", "second"]
    assert 0.7 < fleiss["detail"]["readers alone"][0] < 0.9
    assert fleiss["detail"]["difference"][0] < 0
    kappa = scores["CohenKappa"]["detail"]
    assert kappa["roi"] == "a box around all readers, twice as wide"
    assert set(kappa["by reader"][0]) == set(kappa["dice"][0]) == {"first", "second"}
    bench = scores["HumanBenchmark"]
    assert bench["value"] == pytest.approx(bench["detail"]["map"][0] - bench["detail"]["readers"])
    assert bench["settings"]["measure"] == "dice"
    assert 0.75 < bench["detail"]["readers"] < 0.9
    page = Path(case["files"]["report"]).read_text()
    assert WORDS in page
    assert "expert outline: consensus" in page


def test_readers_in_a_table(pellucid: Command, classifier: Path, tmp_path: Path) -> None:
    for name, column in (("a", 40), ("b", 44)):
        mask = np.zeros((64, 64), np.uint8)
        mask[20:40, column - 20 : column] = 255
        Picture.fromarray(mask).save(tmp_path / f"{name}.png")
    Picture.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))).save(tmp_path / "film.png")
    table = tmp_path / "cases.csv"
    table.write_text("image,region:mass@anna,region:mass@boris\nfilm.png,a.png,b.png\n")
    words = ["evaluate", table, "--model", classifier, "--trust-code", "--out", tmp_path / "o", "--json", "--no-checks"]
    done = pellucid(*words, "--method", "Saliency", "--metric", "HitRate")
    assert done.code == 0, done.err
    case = done.json["cases"][0]
    assert case["readers"] == ["anna", "boris"]
    assert case["scores"][0]["region"] == "consensus"
    assert case["scores"][0]["detail"]["chance"] == pytest.approx(24 * 20 / 64**2)


@pytest.mark.parametrize(
    ("regions", "problem"),
    [
        (["first=m.png", "second.png"], "2 masks were given, and number 2 names no reader. write --region READER=MASK"),
        (["a.png", "b.png"], "2 masks were given, and number 1 names no reader"),
        (["anna=m.png", "anna=n.png"], "the reader 'anna' was given twice. give one mask of each reader"),
        (["=m.png"], "expected a reader's name of letters, digits and spaces, got ''"),
        (["<b>=m.png"], "expected a reader's name of letters, digits and spaces, got '<b>'"),
        (["anna=absent.png"], "region of anna: expected an image file, got a path where there is none"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(
    pellucid: Command, classifier: Path, tmp_path: Path, regions: list[str], problem: str
) -> None:
    Picture.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "film.png")
    words = [
        "evaluate",
        tmp_path / "film.png",
        "--model",
        classifier,
        "--trust-code",
        "--out",
        tmp_path / "o",
        "--json",
    ]
    done = pellucid(*words, *(w for region in regions for w in ("--region", region)))
    assert done.code == 2
    said = json.loads(done.out)
    assert problem in f"{said['problem']}. {said['mend']}."


def test_an_equals_sign_in_a_file_name_is_no_reader(pellucid: Command, classifier: Path, tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    Picture.fromarray(mask).save(tmp_path / "a=b.png")
    Picture.fromarray(255 - mask).save(tmp_path / "film.png")
    done = pellucid(
        *("evaluate", tmp_path / "film.png", "--model", classifier, "--trust-code", "--out", tmp_path / "o", "--json"),
        *("--region", tmp_path / "a=b.png", "--method", "Saliency", "--metric", "HitRate", "--no-checks"),
    )
    assert done.code == 0, done.err
    assert done.json["cases"][0]["scores"][0]["region"] == "expert"
    assert done.json["cases"][0]["readers"] == []
