"""Answers and comparisons through the command, on real cases, and on the pages it writes."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Picture

from pellucid.demo.cases import MODELS, packaged
from pellucid.demo.planted import PLACES

Command = Callable[..., object]
ANTERIOR, POSTERIOR = "anterior hippocampus", "posterior hippocampus"


def text_of(page: Path) -> str:
    """What a reader reads, on one line."""
    plain = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page.read_text("utf-8"), flags=re.DOTALL)
    return " ".join(plain.split())


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Patches of the demo's real film as pictures: with a planted nodule, and without."""
    folder = tmp_path_factory.mktemp("patches")
    found = {}
    for one in packaged():
        if one.model == "nodule":
            values = one.case.images["image"].data[0].numpy()
            found[one.case.name] = folder / f"{one.case.name}.png"
            Picture.fromarray(np.round(values * 65535).astype(np.uint16)).save(found[one.case.name])
    return found


@pytest.fixture
def nodule(pellucid: Command) -> Callable[..., dict[str, object]]:
    def explain(path: Path, out: Path, *more: object) -> dict[str, object]:
        done = pellucid(
            "explain", path, "--model", MODELS / "nodule" / "model.toml", "--target", "nodule", "--method", "HiResCAM",
            "--method", "GradCAM", "--method", "Saliency", "--out", out, "--json", *more,
        )  # fmt: skip
        assert done.code == 0, done.err
        return done.json["cases"][0]

    return explain


@pytest.fixture
def hippocampus(pellucid: Command, shared_data: Path, tmp_path: Path) -> Callable[..., object]:
    names = tmp_path / "names.csv"
    names.write_text(f"label,name\n1,{ANTERIOR}\n2,{POSTERIOR}\n")
    atlas = f"{shared_data / 'mri_hippocampus' / 'labels' / 'hippocampus_001.nii.gz'}:{names}"

    def explain(*more: object, atlas: str = atlas) -> object:
        return pellucid(
            "explain", shared_data / "mri_hippocampus" / "images" / "hippocampus_001.nii.gz", "--model",
            MODELS / "hippocampus" / "model.toml", "--atlas", atlas, "--out", tmp_path / "o", "--json", *more,
        )  # fmt: skip

    return explain


def test_a_planted_nodule_is_found_where_it_was_planted(
    nodule: Callable[..., dict[str, object]], patches: dict[str, Path], tmp_path: Path
) -> None:
    case = nodule(patches["planted-nodule-upper-image-left"], tmp_path / "o")
    told = {e["method"]: e["answers"] for e in case["explanations"]}
    rows = {r["name"]: r for r in told["HiResCAM"]["regions"]["rows"]}
    lead = rows["middle third, image center"]
    assert lead["share"] > 0.5
    assert lead["low"] < lead["share"] < lead["high"]
    assert lead["density"] > 4
    assert told["Saliency"] == {"state": "nothing", "why": told["Saliency"]["why"]}
    peak = told["HiResCAM"]["peak"]
    place = PLACES["upper-image-left"]
    for axis in (0, 1):
        planted = place.center[axis] - (place.patch[axis] - 64)  # in pixels of the patch
        assert peak["first"][axis] - place.radius_px <= planted <= peak["last"][axis] + place.radius_px
    assert peak["lps_mm"] is None
    page = text_of(Path(case["files"]["report"]))
    assert told["HiResCAM"]["sentences"][0] in page
    assert "image left" in page
    assert "patient left" not in page
    assert case["agreement"][0]["names"] == ["HiResCAM", "GradCAM"]
    assert case["agreement"][0]["left_out"][0][0] == "Saliency"
    assert "says nothing about whether any of the maps is right" in page


def test_below_the_operating_point_nothing_is_told_outside_show_anyway(
    nodule: Callable[..., dict[str, object]], patches: dict[str, Path], tmp_path: Path
) -> None:
    case = nodule(patches["nothing-planted"], tmp_path / "o")
    assert {e["answers"]["state"] for e in case["explanations"]} == {"withheld"}
    assert all(set(e["answers"]) == {"state", "why"} for e in case["explanations"])
    assert set(case["agreement"][0]) == {"target", "withheld"}
    html = Path(case["files"]["report"]).read_text("utf-8")
    open_part = re.sub(r"<details>.*?</details>", "", html, flags=re.DOTALL)
    assert "Where the evidence lies" in html
    assert "Where the evidence lies" not in open_part
    assert "How far the methods agree" not in open_part


def test_volume_with_a_label_map_two_targets_and_their_difference(hippocampus: Callable[..., object]) -> None:
    done = hippocampus("--target", ANTERIOR, "--target", POSTERIOR, "--method", "HiResCAM", "--method", "GradCAM")
    assert done.code == 0, done.err
    case = done.json["cases"][0]
    told = {(e["method"], e["target"].split(" ")[0]): e["answers"] for e in case["explanations"]}
    for target, name in (("anterior", ANTERIOR), ("posterior", POSTERIOR)):
        rows = told["HiResCAM", target]["regions"]["rows"]
        assert rows[0]["name"] == name, "the network looks where the structure it was asked for lies"
        assert rows[0]["share"] > 0.5
        assert rows[0]["density"] > 10
        assert sum(r["share"] for r in rows) == pytest.approx(1, abs=1e-6)
    slices = told["HiResCAM", "anterior"]["key_slices"]
    assert slices["view"] == "axial"
    assert slices["together"] >= 0.5
    assert told["HiResCAM", "anterior"]["peak"]["lps_mm"] is not None
    assert [d["title"].split(":")[0] for d in case["differences"]] == ["HiResCAM", "GradCAM"]
    change = {c["name"]: c for c in case["differences"][0]["regions"]}
    assert change[ANTERIOR]["mean"] > 0 > change[POSTERIOR]["mean"]
    page = text_of(Path(case["files"]["report"]))
    assert f"of the positive evidence lies in the {ANTERIOR}" in page
    assert "how large a difference arises by chance" in page or "Mean difference" in page
    assert case["agreement"][0]["target"] != case["agreement"][1]["target"]


def test_saved_maps_are_compared_on_a_page_of_their_own(
    pellucid: Command, hippocampus: Callable[..., object], tmp_path: Path
) -> None:
    case = hippocampus(
        "--target", ANTERIOR, "--target", POSTERIOR, "--method", "HiResCAM", "--method", "GradCAM"
    ).json["cases"][0]["files"]  # fmt: skip
    saved = {key.removeprefix("archive "): path for key, path in case.items() if key.startswith("archive")}
    first, second, other = (
        next(p for k, p in saved.items() if k.startswith(w)) for w in ("HiResCAM-a", "HiResCAM-p", "GradCAM-a")
    )
    done = pellucid("compare", first, second, "--out", tmp_path / "c", "--json")
    assert done.code == 0, done.err
    found = done.json["comparison"]
    assert found["state"] == "told"
    assert found["unit"] == "logit"
    assert -1 <= found["agreement"]["rank"] <= 1
    assert json.loads((tmp_path / "c" / "results.json").read_text()) == done.json
    volume = nib.load(done.json["files"]["nifti difference"])
    np.testing.assert_allclose(volume.affine, nib.load(case["nifti " + Path(first).stem]).affine, atol=1e-4)
    page = text_of(Path(done.json["files"]["report"]))
    for words in ("Region by region", "Provenance of both", "not a medical device", "HiResCAM", "anterior third"):
        assert words in page, words
    refused = pellucid("compare", first, other, "--out", tmp_path / "d")
    assert refused.code == 2
    assert "--ranks" in refused.err
    assert not list((tmp_path / "d").glob("*"))
    ranks = pellucid("compare", first, other, "--out", tmp_path / "d", "--ranks")
    assert ranks.code == 0, ranks.err
    assert "Mean difference" not in text_of(tmp_path / "d" / "compare.html")


def test_two_examinations_keep_their_own_images(
    pellucid: Command, nodule: Callable[..., dict[str, object]], patches: dict[str, Path], tmp_path: Path
) -> None:
    names = ("planted-nodule-upper-image-left", "planted-nodule-upper-image-right", "nothing-planted")
    current, prior, none = (nodule(patches[n], tmp_path / n)["files"]["archive HiResCAM"] for n in names)
    refused = pellucid("compare", current, prior, "--out", tmp_path / "c")
    assert refused.code == 2
    assert "--prior" in refused.err
    done = pellucid("compare", current, prior, "--out", tmp_path / "c", "--prior", "--json")
    assert (done.json["comparison"]["first"], done.json["comparison"]["second"]) == ("current", "prior")
    page = text_of(tmp_path / "c" / "compare.html")
    assert "registered was not checked" in page
    html = (tmp_path / "c" / "compare.html").read_text("utf-8")
    height = int(re.search(r'<img [^>]*height="(\d+)"', html)[1])
    assert height > 1200, "two bare images, two maps and their difference"
    below = pellucid("compare", current, none, "--out", tmp_path / "e", "--prior", "--json")
    assert below.json["comparison"]["state"] == "withheld"
    assert "regions" not in below.json["comparison"]
    held = re.sub(r"<details>.*?</details>", "", (tmp_path / "e" / "compare.html").read_text("utf-8"), flags=re.DOTALL)
    assert "<img" not in held


def test_label_maps_and_archives_that_cannot_be_used(
    pellucid: Command, hippocampus: Callable[..., object], tmp_path: Path, shared_data: Path
) -> None:
    labels = shared_data / "mri_hippocampus" / "labels" / "hippocampus_001.nii.gz"
    one = nib.load(labels)
    flat = tmp_path / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.ones(one.shape, np.int16), one.affine), flat)
    far = tmp_path / "far.nii.gz"
    away = one.affine.copy()
    away[:3, 3] += 500
    nib.save(nib.Nifti1Image(np.asarray(one.dataobj).astype(np.int16), away), far)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("8,liver\n")
    for atlas, said in (
        (str(flat), "at least two labels"), (str(far), "reaches the image"), (f"{labels}:{wrong}", "names of"),
        (str(tmp_path / "absent.nii"), "path"),
    ):  # fmt: skip
        done = hippocampus("--method", "Saliency", atlas=atlas)
        assert done.code == 2, atlas
        assert said in done.err, done.err
    done = hippocampus("--method", "Saliency")
    saved = Path(done.json["cases"][0]["files"]["archive Saliency"])
    content = json.loads(saved.read_text())
    saved.write_text(json.dumps(content | {"version": 99}))
    refused = pellucid("compare", saved, saved, "--out", tmp_path / "c")
    assert refused.code == 2
    assert "version 99" in refused.err
