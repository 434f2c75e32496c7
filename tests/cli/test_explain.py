"""The whole path through the command, on a picture, a volume and a DICOM series, with real images."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom.data
import pytest
from PIL import Image as Picture

from pellucid.guide.panel import USUAL_METRICS
from pellucid.io.archive import load_explanation
from pellucid.show.words import number
from pellucid.workbench.registry import metrics

Command = Callable[..., object]
METHODS = {"GradCAM", "HiResCAM", "InputXGradient", "IntegratedGradients", "Occlusion", "Saliency"}


def packaged(package: str, inside: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / inside


@pytest.fixture
def gray_picture(tmp_path: Path) -> Path:
    retina = Picture.open(packaged("skimage", "data/retina.jpg")).convert("L").resize((300, 200))
    path = tmp_path / "gray.png"
    retina.save(path)
    return path


def test_picture(pellucid: Command, classifier: Path, gray_picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = pellucid("explain", gray_picture, "--model", classifier, "--trust-code", "--out", out, "--json")
    assert done.code == 0, done.err
    case = done.json["cases"][0]
    assert {e["method"] for e in case["explanations"]} == METHODS
    assert case["explanations"][0]["model"] == "test classifier 1"
    report = Path(case["files"]["report"])
    assert report.is_file()
    page = report.read_text()
    assert "not a medical device" in page.lower()
    assert "patient left" not in page.lower()
    back = load_explanation(Path(case["files"]["archive GradCAM"]))
    assert back.numpy().shape == (1, 200, 300)


def test_one_method_with_parameters_and_named_target(
    pellucid: Command, classifier: Path, gray_picture: Path, tmp_path: Path
) -> None:
    done = pellucid(
        "explain",
        gray_picture,
        "--model",
        classifier,
        "--trust-code",
        "--out",
        tmp_path / "o",
        "--json",
        "--method",
        "Occlusion:window=100,stride=100",
        "--target",
        "finding>normal",
        "--fill",
        "0",
    )
    assert done.code == 0, done.err
    made = done.json["cases"][0]["explanations"]
    assert [e["method"] for e in made] == ["Occlusion"]
    assert made[0]["settings"]["window"] == 100
    assert made[0]["target"] == "finding over normal"
    assert made[0]["infill"] == "constant 0 (network units)"


def test_volume_lines_up_with_its_source(pellucid: Command, dark_voxels: Path, tmp_path: Path) -> None:
    affine = np.array([[-2.0, 0, 0, 90], [0, 2.5, 0, -120], [0, 0, 3, -70], [0, 0, 0, 1.0]])
    values = np.full((40, 36, 20), 40.0, np.float32)
    values[10:20, 8:20, 6:12] = -900
    path = tmp_path / "volume.nii.gz"
    nib.save(nib.Nifti1Image(values, affine), path)
    done = pellucid(
        "explain",
        path,
        "--model",
        dark_voxels,
        "--trust-code",
        "--out",
        tmp_path / "o",
        "--json",
        "--target",
        "air",
        "--method",
        "Saliency",
        "--method",
        "InputXGradient",
    )
    assert done.code == 0, done.err
    written = nib.load(done.json["cases"][0]["files"]["nifti Saliency"])
    np.testing.assert_allclose(written.affine, affine, atol=1e-4)
    heat = np.asarray(written.dataobj)
    center = (heat[..., None] * np.stack(np.indices(heat.shape), -1)).sum((0, 1, 2)) / heat.sum()
    np.testing.assert_allclose(center, [14.5, 13.5, 8.5], atol=0.5)


def test_dicom_series(pellucid: Command, dark_voxels: Path, shared_data: Path, tmp_path: Path) -> None:
    series = shared_data / "ct_lung_boxes" / "Lung_Dx-A0001_s1"
    done = pellucid(
        "explain",
        series,
        "--model",
        dark_voxels,
        "--trust-code",
        "--out",
        tmp_path / "o",
        "--json",
        "--target",
        "air",
        "--method",
        "Saliency",
        "--method",
        "Occlusion:window=80,stride=80",
    )
    assert done.code == 0, done.err
    case = done.json["cases"][0]
    written = nib.load(case["files"]["nifti Saliency"])
    assert sorted(written.shape) == [15, 512, 512]
    page = Path(case["files"]["report"]).read_text()
    for letter in ("R", "L", "A", "P"):
        assert f">{letter}<" in page or letter in page


def test_radiograph_in_dicom(pellucid: Command, classifier: Path, tmp_path: Path) -> None:
    film = Path(str(pydicom.data.get_testdata_file("RG1_UNCR.dcm", download=False)))
    done = pellucid(
        "explain", film, "--model", classifier, "--trust-code", "--out", tmp_path / "o", "--json", "--method", "GradCAM"
    )
    assert done.code == 0, done.err
    assert done.json["cases"][0]["case"].startswith("case-")


def test_evaluate_scores_every_map(pellucid: Command, classifier: Path, gray_picture: Path, tmp_path: Path) -> None:
    mask = np.zeros((200, 300), np.uint8)
    mask[50:100, 60:160] = 255
    Picture.fromarray(mask).save(tmp_path / "mask.png")
    done = pellucid(
        "evaluate",
        gray_picture,
        "--model",
        classifier,
        "--trust-code",
        "--out",
        tmp_path / "o",
        "--json",
        "--method",
        "GradCAM",
        "--method",
        "Saliency",
        "--region",
        tmp_path / "mask.png",
    )
    assert done.code == 0, done.err
    scores = done.json["cases"][0]["scores"]
    named = {(s["method"], s["metric"]) for s in scores}
    assert named == {(m, metric) for m in ("GradCAM", "Saliency") for metric in USUAL_METRICS}
    assert all(s["value"] is not None or s["reason"] for s in scores)
    dice = next(s for s in scores if s["metric"] == "Dice" and s["method"] == "Saliency")
    assert 0 <= dice["value"] <= 1
    assert dice["region"] == "expert"


def test_evaluate_takes_every_metric_where_all_is_asked(
    pellucid: Command, classifier: Path, gray_picture: Path, tmp_path: Path
) -> None:
    """Small settings are not to be had through ``all``: a tiny network and one cheap map."""
    done = pellucid(
        *("evaluate", gray_picture, "--model", classifier, "--trust-code", "--out", tmp_path / "o", "--json"),
        *("--method", "Saliency", "--metric", "all", "--no-checks"),
    )
    assert done.code == 0, done.err
    scores = done.json["cases"][0]["scores"]
    assert {s["metric"] for s in scores} == set(metrics())
    assert all(s["value"] is not None or s["reason"] for s in scores)


def test_without_a_region_overlap_is_undefined_and_says_why(
    pellucid: Command, classifier: Path, gray_picture: Path, tmp_path: Path
) -> None:
    done = pellucid(
        "evaluate",
        gray_picture,
        "--model",
        classifier,
        "--trust-code",
        "--out",
        tmp_path / "o",
        "--json",
        "--method",
        "Saliency",
        "--metric",
        "Dice",
    )
    score = done.json["cases"][0]["scores"][0]
    assert score["value"] is None
    assert score["reason"] == "no expert or planted region"


def test_the_same_seed_gives_the_same_maps(
    pellucid: Command, classifier: Path, gray_picture: Path, tmp_path: Path
) -> None:
    maps = []
    for name in ("a", "b"):
        done = pellucid(
            "explain",
            gray_picture,
            "--model",
            classifier,
            "--trust-code",
            "--out",
            tmp_path / name,
            "--json",
            "--method",
            "IntegratedGradients",
            "--seed",
            "5",
        )
        maps.append(load_explanation(Path(done.json["cases"][0]["files"]["archive IntegratedGradients"])).numpy())
    np.testing.assert_array_equal(*maps)


def test_several_cases_get_an_index(pellucid: Command, classifier: Path, gray_picture: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("one.png", "two.png"):
        (folder / name).write_bytes(gray_picture.read_bytes())
    (folder / "broken.png").write_bytes(gray_picture.read_bytes()[:400])
    done = pellucid(
        "explain",
        folder,
        "--model",
        classifier,
        "--trust-code",
        "--out",
        tmp_path / "o",
        "--json",
        "--method",
        "GradCAM",
    )
    assert done.code == 2, "a bad case must show in the exit code"
    assert [c["case"] for c in done.json["cases"]] == ["one", "two"]
    assert len(done.json["failures"]) == 1
    index = (tmp_path / "o" / "index.html").read_text()
    assert "one/report.html" in index
    assert "two/report.html" in index


def test_several_settings_of_one_method_and_metric_stand_apart(
    pellucid: Command, classifier: Path, gray_picture: Path, tmp_path: Path
) -> None:
    """Of two settings under one name none hides the other: not in the table, on the page, or among the files."""
    metrics = ["DeletionAUC:steps=4", "DeletionAUC:steps=4,block=64"]
    methods = ["Occlusion:window=50,stride=50", "Occlusion:window=100,stride=100"]
    words = ["evaluate", gray_picture, "--model", classifier, "--trust-code", "--out", tmp_path / "o", "--no-checks"]
    words += [w for m in metrics for w in ("--metric", m)] + [w for m in methods for w in ("--method", m)]
    done = pellucid(*words, "--json")
    assert done.code == 0, done.err
    case = done.json["cases"][0]
    assert [s["method"] for s in case["scores"]] == [m for m in methods for _ in metrics]
    assert len({s["value"] for s in case["scores"]}) == 4
    archives = [v for k, v in case["files"].items() if k.startswith("archive")]
    windows = [load_explanation(Path(path)).provenance.settings["window"] for path in archives]
    assert windows == [50, 100]
    page = Path(case["files"]["report"]).read_text()
    told = pellucid(*words).out
    for score in case["scores"]:
        assert f"{score['value']:.3g}" in told
        assert number(score["value"]) in page
    for name in (*methods, *metrics):
        assert name in page


def test_no_number_is_cut_in_two_and_what_is_undefined_says_why(
    pellucid: Command, classifier: Path, gray_picture: Path, tmp_path: Path
) -> None:
    words = ["evaluate", gray_picture, "--model", classifier, "--trust-code", "--out", tmp_path / "o", "--no-checks"]
    measured = ["Sparseness", "Entropy", "Dice", "IoU", "AverageDrop"]
    words += [w for m in measured for w in ("--metric", m)]
    told = pellucid(*words).out
    values = done_values(pellucid(*words, "--json").json)
    assert len(values) > 2 * len(METHODS)
    missing = [value for value in values if value not in told]
    assert missing == []
    assert told.count("no expert or planted region") == 1
    assert "undefined: Dice, IoU: no expert or planted region" in told


def done_values(results: dict) -> list[str]:
    return [f"{s['value']:.3g}" for s in results["cases"][0]["scores"] if s["value"] is not None]
